# hm-mbt2018-vbr-s-v2 at every quality on Kodak, compared with HEVC and VVC. They are
# coded by x265 and vvenc, and by the reference software that HM_ENCODER and the other
# variables of docs/reference_encoders.md name. KODAK names the folder of the pictures.
zoo = dict(qualities=list(range(1, 9)))
v2 = dict(type="hm-mbt2018-vbr-s-v2", **zoo)
classical = dict(qualities=[47, 42, 37])
anchor = "v2"
codecs = [
    dict(name="v2", **v2),
    dict(name="v2 person", metric="person", **v2),
    dict(name="x265 4:4:4", type="hevc", **classical),
    dict(name="vvenc 4:2:0", type="vvc", **classical),
    dict(name="HM 4:4:4", type="hevc-hm", **classical),
    dict(name="VTM 4:4:4", type="vvc-vtm", **classical),
]
sets = [dict(name="kodak", pictures="{{$KODAK:data/kodak}}")]
