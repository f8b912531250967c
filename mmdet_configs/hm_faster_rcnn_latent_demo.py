# As hm_faster_rcnn_latent.py, small, on the embedded set.
_base_ = "hm_faster_rcnn_demo.py"
model = dict(
    task_view="y_hat",
    latent_backbone=dict(width=96, depth=3),
    trainable=("latent_backbone", "detector"),
    reader="latent_demo",
)
optim_wrapper = dict(paramwise_cfg=dict(lr_mult=dict(latent_backbone=3.0)))
