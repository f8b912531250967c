# The rates above those of machines.py, where detectors lose next to nothing: its base
# and attention on the first 100 pictures.
_base_ = ["machines.py"]
entry = {**_base_.entry, "steps": [0.9, 0.62, 0.43]}
codecs = [
    dict(name="base", **entry),
    dict(name="attention", attention=_base_.attention, **entry),
]
sets = [dict(count=100, **_base_.sets[0])]
