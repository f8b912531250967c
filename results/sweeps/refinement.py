# What `encode --refine 50` saves for people, on Kodak at four rates.
_base_ = ["kodak.py"]
entry = dict(type="hm-mbt2018-vbr-s", qualities=[1, 3, 5, 7])
codecs = [
    dict(name="base", **entry),
    dict(name="refined", refine=50, **entry),
]
