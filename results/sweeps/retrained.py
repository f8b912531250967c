# Training for machines on what is coded, seed 0 of mmdet_configs/small/vbr_control.py
# and vbr_adapted.py, and attention with it, on the pictures of trainings.py.
_base_ = ["trainings.py"]
codecs = [_base_.control[0], _base_.adapted[0], _base_.together[0]]
seeds = []
