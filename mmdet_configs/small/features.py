# Without annotations: the detector's features everywhere, not in the boxes alone.
_base_ = "adapted.py"
work_dir = f"work_dirs/small_features_{_base_.run}"
model = dict(machine_losses=dict(objects=0.0, features=1.0))
