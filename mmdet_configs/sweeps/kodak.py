# hm-compact at every quality on Kodak, compared with JPEG, WebP, AVIF, JPEG XL, HEVC
# and VVC. The last two are coded by x265 and vvenc, and by the reference software that
# HM_ENCODER and the other variables of docs/reference_encoders.md name. KODAK names the
# folder of the pictures.
entry = dict(type="hm-compact", qualities=list(range(1, 9)))
classical = dict(qualities=[47, 42, 37, 32])
anchor = "hm-compact"
codecs = [
    dict(name="hm-compact", **entry),
    dict(name="person", metric="person", **entry),
    dict(name="JPEG", type="jpeg", qualities=[2, 5, 10, 20, 30, 50]),
    dict(name="WebP", type="webp", qualities=[1, 10, 30, 55, 75]),
    dict(name="AVIF", type="avif", qualities=[1, 6, 15, 28, 40]),
    dict(name="JPEG XL", type="jpegxl", qualities=[11, 20, 35, 55, 75]),
    dict(name="x265 4:4:4", type="hevc", **classical),
    dict(name="vvenc 4:2:0", type="vvc", **classical),
    dict(name="HM 4:4:4", type="hevc-hm", **classical),
    dict(name="VTM 4:4:4", type="vvc-vtm", **classical),
]
sets = [dict(name="kodak", pictures="{{$KODAK:data/kodak}}")]
