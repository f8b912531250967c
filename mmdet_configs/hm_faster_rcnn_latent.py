# Faster R-CNN's neck and heads read y_hat through a LatentBackbone, which starts from
# nothing; the stream is frozen.
_base_ = "hm_faster_rcnn.py"
demo_config = "hm_faster_rcnn_latent_demo.py"

model = dict(
    task_view="y_hat",
    latent_backbone=dict(width=256, depth=6),
    lambda_human=0,  # nothing that people see is trained
    trainable=("latent_backbone", "detector"),
    reader="faster_rcnn_latent",
)
