# RTMDet-nano on people at 320 pixels. MMPose publishes its weights.
_base_ = "mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py"
depthwise = dict(use_depthwise=True, norm_cfg=dict(type="BN"))
model = dict(
    data_preprocessor=dict(batch_augments=None),
    backbone=dict(deepen_factor=0.33, widen_factor=0.25, init_cfg=None, **depthwise),
    neck=dict(in_channels=[64, 128, 256], out_channels=64, **depthwise),
    bbox_head=dict(
        num_classes=1, in_channels=64, feat_channels=64, share_conv=False, **depthwise
    ),
)
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(320, 320), keep_ratio=True),
    dict(type="Pad", size=(320, 320), pad_val=dict(img=(114, 114, 114))),
    dict(type="PackDetInputs"),
]
