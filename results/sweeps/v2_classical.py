# hm-mbt2018-vbr-s-v2 with all levers beside HEVC and VVC, with the same help, on the
# first 200 pictures of v2.py.
_base_ = ["v2_control.py"]
quality = dict(qualities=[49, 44, 39])
anchor = "VVC"
codecs = [
    dict(name="VVC", type="vvc", **quality),
    dict(name="HEVC", type="hevc", **quality),
    dict(name="HEVC attention", type="hevc", attention=_base_.attention, **quality),
    *_base_.codecs[1:],
]
