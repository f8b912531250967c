# metric="person" of hm-mbt2018-vbr-s-v2: vbr_adapted.py from it, with a λ_m that costs
# people less.
_base_ = "vbr_adapted.py"
work_dir = f"work_dirs/small_vbr_v2_person_{_base_.seed}"
model = dict(codec=dict(type="hm-mbt2018-vbr-s-v2"), lambda_machine=0.55)
