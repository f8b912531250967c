# This is hm_rtmdet_latent.py with YOLOX-s.
_base_ = "hm_rtmdet_latent.py"
model = dict(
    detector="mmdet::yolox/yolox_s_8xb8-300e_coco.py",
    detector_checkpoint="https://download.openmmlab.com/mmdetection/v2.0/"
    "yolox/yolox_s_8x8_300e_coco/"
    "yolox_s_8x8_300e_coco_20211121_095711-4592a793.pth",
    reader="yolox_latent",
)
