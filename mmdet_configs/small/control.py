# The base codec trained on as long and on the same pictures, for people alone: what the
# adapted one is measured against.
_base_ = "adapted.py"
work_dir = f"work_dirs/small_control_{_base_.run}"
model = dict(lambda_machine=0.0)
