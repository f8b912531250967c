# hm-compact beside hm-mbt2018-vbr-s-v2 on Kodak.
_base_ = ["kodak.py"]
anchor = "v2"
codecs = [
    dict(name="v2", **{**_base_.zoo, "type": "hm-mbt2018-vbr-s-v2"}),
    dict(name="hm-compact", **{**_base_.zoo, "type": "hm-compact"}),
]
