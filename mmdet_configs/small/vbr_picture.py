# What vbr_latent.py is compared with: RTMDet-nano reads x_hat of the same streams, and
# trains on as long.
_base_ = "vbr_latent.py"
work_dir = "work_dirs/small_vbr_picture"
model = dict(
    task_view="x_hat",
    latent_backbone=None,
    resize=_base_.rtmdet["resize"],
    trainable=("detector",),
    reader=None,
)
optim_wrapper = dict(optimizer=dict(lr=2e-4))
