# Cheng 2020 adapted to Faster R-CNN R50-FPN on COCO 2017.
_base_ = [
    "_base_/default_runtime.py",
    "_base_/models/human_machine.py",
    "_base_/datasets/coco_detection.py",
    "_base_/schedules/adaptation_2e.py",
]
# tools/train.py runs this config instead if COCO is missing.
demo_config = "hm_faster_rcnn_demo.py"

model = dict(
    codec=dict(type="hm-cheng2020-anchor", quality=3, pretrained="base", g_t_width=32),
    detector="mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
    detector_checkpoint="https://download.openmmlab.com/mmdetection/v2.0/"
    "faster_rcnn/faster_rcnn_r50_fpn_1x_coco/"
    "faster_rcnn_r50_fpn_1x_coco_20200130-047c8118.pth",
    # L = bpp + lambda_human * 255^2 MSE(x, x_hat) + lambda_machine * the detector's
    # losses. lambda_human sets the rate; this is CompressAI's value for quality 3.
    # lambda_machine trades bits and PSNR for mAP: 0 is the plain codec, and at 1 a
    # detector loss of 1 weighs as much as 1 bpp.
    lambda_human=0.0067,
    lambda_machine=1.0,
    trainable=("g_a", "g_s", "entropy", "g_t"),  # the detector is frozen
)
