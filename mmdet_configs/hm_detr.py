# Cheng 2020 adapted to DETR R50 on COCO 2017.
_base_ = "hm_faster_rcnn.py"
model = dict(
    detector="mmdet::detr/detr_r50_8xb2-150e_coco.py",
    detector_checkpoint="https://download.openmmlab.com/mmdetection/v3.0/"
    "detr/detr_r50_8xb2-150e_coco/"
    "detr_r50_8xb2-150e_coco_20221023_153551-436d03e8.pth",
)
