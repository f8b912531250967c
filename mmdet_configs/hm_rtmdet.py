# Cheng 2020 adapted to RTMDet-tiny on COCO 2017.
_base_ = "hm_faster_rcnn.py"
model = dict(
    detector="mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py",
    detector_checkpoint="https://download.openmmlab.com/mmdetection/v3.0/"
    "rtmdet/rtmdet_tiny_8xb32-300e_coco/"
    "rtmdet_tiny_8xb32-300e_coco_20220902_112414-78e30dcc.pth",
)
