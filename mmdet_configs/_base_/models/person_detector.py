# Faster R-CNN with a MobileNetV2-FPN, one class; ImageNet weights in MMDetection's key
# names from the file that MOBILENETV2 names.
_base_ = "demo_detector.py"
detector = dict(
    backbone=dict(
        _delete_=True,
        type="MobileNetV2",
        out_indices=(1, 2, 4, 6),
        frozen_stages=2,
        norm_cfg=dict(type="BN", requires_grad=True),
        norm_eval=True,
        init_cfg=dict(
            type="Pretrained",
            checkpoint="{{$MOBILENETV2:weights/mobilenetv2_mmdet_backbone.pth}}",
        ),
    ),
    neck=dict(in_channels=[24, 32, 96, 320], num_outs=5),
    rpn_head=dict(
        anchor_generator=dict(
            scales=[8], ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16, 32, 64]
        )
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(finest_scale=56, featmap_strides=[4, 8, 16, 32]),
        bbox_head=dict(fc_out_channels=256, num_classes=1),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=256)),
        rpn_proposal=dict(nms_pre=1000, max_per_img=300),
        rcnn=dict(sampler=dict(num=128)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=1000, max_per_img=300), rcnn=dict(max_per_img=100)),
)
