# hm-compact compared with hm-mbt2018-vbr-s-v2, at every quality, on Kodak.
_base_ = ["kodak.py"]
codecs = [
    _base_.codecs[0],
    dict(name="hm-compact", type="hm-compact", **_base_.zoo),
]
