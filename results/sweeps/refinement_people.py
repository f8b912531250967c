# What `encode --refine 10` saves for people and for detectors, on the first 100
# pictures of people that recipes are chosen on.
_base_ = ["machines.py"]
entry = dict(type="hm-mbt2018-vbr-s", qualities=[1], steps=[5.6, 2.7, 1.3])
codecs = [
    dict(name="base", **entry),
    dict(name="refined", refine=10, **entry),
]
people = _base_.sets[0]
sets = [
    dict(
        name="people",
        count=100,
        detectors=people["detectors"],
        dataset={
            **people["dataset"],
            "ann_file": _base_.person + "/annotations/whole_val.json",
            "data_prefix": dict(img=_base_.person + "/whole_val/"),
        },
    )
]
