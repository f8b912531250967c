# Faster R-CNN's neck and heads read y_hat through a LatentBackbone. The LatentBackbone
# is trained from random weights, and the stream is frozen.
_base_ = "hm_faster_rcnn.py"
demo_config = "hm_faster_rcnn_latent_demo.py"

model = dict(
    type="LatentHumanMachineDetector",
    latent_backbone=dict(width=256, depth=6),
    lambda_human=0,  # only what detectors read is trained
    trainable=("latent_backbone", "detector"),
    reader="faster_rcnn_latent",
)
