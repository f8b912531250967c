# Kodak at every quality: the base, the weights of metric="person", and HEVC and VVC, by
# x265 and vvenc and by the reference software that HM_ENCODER and the others of
# docs/reference_encoders.md name.
_base_ = ["machines.py"]
zoo = dict(type="hm-mbt2018-vbr-s", qualities=list(range(1, 9)))
classical = dict(qualities=[47, 42, 37])
anchor = "base"
codecs = [
    dict(name="base", **zoo),
    dict(name="person", metric="person", **zoo),
    dict(name="x265 4:4:4", type="hevc", **classical),
    dict(name="vvenc 4:2:0", type="vvc", **classical),
    dict(name="HM 4:4:4", type="hevc-hm", **classical),
    dict(name="VTM 4:4:4", type="vvc-vtm", **classical),
]
sets = [dict(name="kodak", pictures="{{$KODAK:data/kodak}}")]
