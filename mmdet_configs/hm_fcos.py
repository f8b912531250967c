# Cheng 2020 adapted to FCOS R50-FPN on COCO 2017.
_base_ = "hm_faster_rcnn.py"
model = dict(
    detector="mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py",
    detector_checkpoint="https://download.openmmlab.com/mmdetection/v2.0/"
    "fcos/fcos_r50_caffe_fpn_gn-head_1x_coco/"
    "fcos_r50_caffe_fpn_gn-head_1x_coco-821213aa.pth",
)
