# hm-mbt2018-vbr-s trained on as long and on the same pictures, for people alone: what
# the adapted one is measured against.
_base_ = "vbr_adapted.py"
work_dir = f"work_dirs/small_vbr_control_{_base_.seed}"
model = dict(lambda_machine=0.0)
