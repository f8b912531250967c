# This is hm_rtmdet_latent.py with Faster R-CNN. Its two stages learn the boxes that it
# finds in the uncompressed picture.
_base_ = "hm_rtmdet_latent.py"
demo_config = "hm_faster_rcnn_latent_demo.py"
model = dict(
    detector="mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
    detector_checkpoint="https://download.openmmlab.com/mmdetection/v2.0/"
    "faster_rcnn/faster_rcnn_r50_fpn_1x_coco/"
    "faster_rcnn_r50_fpn_1x_coco_20200130-047c8118.pth",
    machine_losses=[
        dict(type="FeatureLoss", weight=2.0),
        dict(type="PseudoLabelLoss", prefix="pseudo"),
        dict(type="DetectorLoss"),
    ],
    reader="faster_rcnn_latent",
)
