# hm-mbt2018-vbr-s-v2 as it ships, against hm-mbt2018-vbr-s: alone, for detectors of
# persons, and with attention; on the pictures of machines.py.
_base_ = ["machines.py"]
steps = [5.6, 3.9, 2.7, 1.9]
entry = {**_base_.entry, "type": "hm-mbt2018-vbr-s-v2", "steps": steps}
anchor = "v2"
codecs = [
    dict(name="v2", **entry),
    dict(name="v2 person", metric="person", **entry),
    dict(
        name="v2 person attention",
        metric="person",
        attention=_base_.attention,
        **entry,
    ),
    {**_base_.codecs[0], "steps": steps},
]
