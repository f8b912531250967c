# Cheng 2020 adapted to RetinaNet R50-FPN on COCO 2017.
_base_ = "hm_faster_rcnn.py"
model = dict(
    detector="mmdet::retinanet/retinanet_r50_fpn_1x_coco.py",
    detector_checkpoint="https://download.openmmlab.com/mmdetection/v2.0/"
    "retinanet/retinanet_r50_fpn_1x_coco/"
    "retinanet_r50_fpn_1x_coco_20200130-c2398f9e.pth",
)
