# Cheng 2020 adapted to RTMDet-Ins-s, boxes and masks, on COCO 2017.
_base_ = "hm_mask_rcnn.py"
model = dict(
    detector="mmdet::rtmdet/rtmdet-ins_s_8xb32-300e_coco.py",
    detector_checkpoint="https://download.openmmlab.com/mmdetection/v3.0/"
    "rtmdet/rtmdet-ins_s_8xb32-300e_coco/"
    "rtmdet-ins_s_8xb32-300e_coco_20221121_212604-fdc5d7ec.pth",
)
