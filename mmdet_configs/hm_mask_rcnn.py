# Cheng 2020 adapted to Mask R-CNN X-101-32x8d-FPN 3x, as in the paper.
_base_ = [
    "_base_/default_runtime.py",
    "_base_/models/human_machine.py",
    "_base_/datasets/coco_instance.py",
    "_base_/schedules/adaptation_2e.py",
]
model = dict(
    codec=dict(type="hm-cheng2020-anchor", quality=3, pretrained="base", g_t_width=32),
    detector="mmdet::mask_rcnn/mask-rcnn_x101-32x8d_fpn_ms-poly-3x_coco.py",
    detector_checkpoint="https://download.openmmlab.com/mmdetection/v2.0/"
    "mask_rcnn/mask_rcnn_x101_32x8d_fpn_mstrain-poly_3x_coco/"
    "mask_rcnn_x101_32x8d_fpn_mstrain-poly_3x_coco_20210607_161042-8bd2c639.pth",
    # hm_faster_rcnn.py explains both numbers.
    lambda_human=0.0067,
    lambda_machine=1.0,
    trainable=("g_a", "g_s", "entropy", "g_t"),
)
