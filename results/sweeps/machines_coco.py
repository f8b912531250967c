# COCO, all 80 classes: what attention to people costs what is no person, and attention
# to all that YOLOX-Nano finds, which then reads it.
_base_ = ["machines.py"]
entry = {**_base_.entry, "steps": _base_.entry["steps"][:3]}
yolox = _base_.yolox
codecs = [
    dict(name="base", **entry),
    dict(name="attention to people", attention=_base_.attention, **entry),
    dict(
        name="attention to all",
        attention=dict(
            detectors=[
                dict(
                    config=yolox["config"],
                    checkpoint=yolox["checkpoint"],
                    classes="coco",
                )
            ]
        ),
        **entry,
    ),
]
sets = [_base_.coco]
