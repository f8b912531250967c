# Training for machines on what is coded, seed 0 of mmdet_configs/small/vbr_control.py
# and vbr_adapted.py, attention with it, and the base, on the pictures of trainings.py.
_base_ = ["trainings.py"]
base = {**_base_.codecs[0], **_base_.entry, "name": "base", "steps": _base_.steps}
base.pop("checkpoints")
codecs = [_base_.control[0], _base_.adapted[0], _base_.together[0], base]
seeds = []
