# Faster R-CNN's neck and heads read y_hat through a LatentBackbone; the stream is
# frozen.
_base_ = "hm_faster_rcnn.py"
demo_config = "hm_faster_rcnn_latent_demo.py"

model = dict(
    task_view="y_hat",
    latent_backbone=dict(width=256, depth=6),
    trainable=("latent_backbone", "detector"),
    reader="faster_rcnn_latent",
)
# The backbone starts from nothing, the neck and heads from the detector's weights.
optim_wrapper = dict(paramwise_cfg=dict(lr_mult=dict(latent_backbone=3.0)))
