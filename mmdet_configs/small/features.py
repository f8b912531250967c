# Without labels: the detector's features on x_bar against those on x.
_base_ = "adapted.py"
work_dir = f"work_dirs/small_features_{_base_.run}"
model = dict(machine_losses=dict(labels=0.0, features=1.0))
