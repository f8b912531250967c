# The paper's D_m: the detector's own losses.
_base_ = "adapted.py"
work_dir = f"work_dirs/small_labels_{_base_.run}"
model = dict(
    lambda_machine=40 * _base_.lambda_human,
    machine_losses=dict(_delete_=True, labels=1.0),
)
