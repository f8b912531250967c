# hm-mbt2018-vbr-s-v2: hm-mbt2018-vbr-s trained on for people, with contexts that see
# what is coded.
_base_ = "vbr_control.py"
work_dir = "work_dirs/small_vbr_v2"
epochs = 4
train_cfg = dict(max_epochs=epochs, val_interval=epochs)
param_scheduler = [
    _base_.param_scheduler[0],
    {**_base_.param_scheduler[1], "T_max": epochs},
]
