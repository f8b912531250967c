# hm-mbt2018-vbr-s-v2 and its weights for persons beside the codecs of kodak.py.
_base_ = ["kodak.py"]
v2 = {**_base_.zoo, "type": "hm-mbt2018-vbr-s-v2"}
anchor = "v2"
codecs = [
    dict(name="base", **_base_.zoo),
    dict(name="v2", **v2),
    dict(name="v2 person", metric="person", **v2),
    *_base_.codecs[2:],
]
