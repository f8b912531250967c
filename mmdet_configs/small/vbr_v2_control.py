# What vbr_v2_person.py is measured against: as long for people alone.
_base_ = "vbr_v2_person.py"
work_dir = f"work_dirs/small_vbr_v2_control_{_base_.seed}"
model = dict(lambda_machine=0.0)
