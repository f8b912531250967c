# A person detector on a MobileNetV2, at 448 pixels. It is the detector of
# compressai_hm://person_detector.pth. Those weights were trained first by
# rtmdet_mobilenetv2_distilled.py and then by rtmdet_mobilenetv2_448.py; this config
# tests them, and trains the same detector without a teacher. MOBILENETV2 names the
# backbone's weights from ImageNet, COCO_PERSON and MMDET_DATASETS name the folders that
# tools/coco_subsets.py makes. --amp makes training faster.
_base_ = ["../_base_/default_runtime.py", "../_base_/datasets/coco_person.py"]
work_dir = "work_dirs/person_rtmdet"
depthwise = dict(
    use_depthwise=True, norm_cfg=dict(type="BN"), act_cfg=dict(type="SiLU")
)
model = dict(
    type="RTMDet",
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    backbone=dict(
        type="MobileNetV2",
        out_indices=(2, 4, 6),
        frozen_stages=2,
        norm_eval=True,
        init_cfg=dict(
            type="Pretrained",
            checkpoint="{{$MOBILENETV2:weights/mobilenetv2_mmdet_backbone.pth}}",
        ),
    ),
    neck=dict(
        type="CSPNeXtPAFPN",
        in_channels=[32, 96, 320],
        out_channels=64,
        num_csp_blocks=1,
        expand_ratio=0.5,
        **depthwise,
    ),
    bbox_head=dict(
        type="RTMDetSepBNHead",
        num_classes=1,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        share_conv=False,
        with_objectness=False,
        exp_on_reg=True,
        anchor_generator=dict(type="MlvlPointGenerator", offset=0, strides=[8, 16, 32]),
        bbox_coder=dict(type="DistancePointBBoxCoder"),
        loss_cls=dict(
            type="QualityFocalLoss", use_sigmoid=True, beta=2.0, loss_weight=1.0
        ),
        loss_bbox=dict(type="GIoULoss", loss_weight=2.0),
        **depthwise,
    ),
    train_cfg=dict(
        assigner=dict(type="DynamicSoftLabelAssigner", topk=13),
        allowed_border=-1,
        pos_weight=-1,
        debug=False,
    ),
    test_cfg=dict(
        nms_pre=30000,
        min_bbox_size=0,
        score_thr=0.001,
        nms=dict(type="nms", iou_threshold=0.65),
        max_per_img=300,
    ),
)
gray = dict(img=(114, 114, 114))
# Crops are wider than high, as most pictures are.
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="RandomResize", scale=(320, 320), ratio_range=(0.6, 1.6), keep_ratio=True
    ),
    dict(type="RandomCrop", crop_size=(256, 320), allow_negative_crop=True),
    dict(type="YOLOXHSVRandomAug"),
    dict(type="RandomFlip", prob=0.5),
    dict(type="Pad", size=(320, 256), pad_val=gray),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(448, 448), keep_ratio=True),
    dict(type="Pad", size=(448, 448), pad_val=gray),
    dict(type="PackDetInputs"),
]
person_root = _base_.person_root
people = dict(
    type=_base_.dataset_type,
    metainfo=_base_.metainfo,
    filter_cfg=None,
    pipeline=train_pipeline,
)
train_dataloader = dict(
    batch_size=16,
    batch_sampler=None,
    dataset=dict(
        _delete_=True,
        type="ConcatDataset",
        datasets=[
            dict(
                ann_file=person_root + "/annotations/whole_train.json",
                data_prefix=dict(img=person_root + "/whole_train/"),
                **people,
            ),
            dict(
                ann_file=person_root + "/annotations/person_train.json",
                data_prefix=dict(img=person_root + "/train/"),
                **people,
            ),
            dict(
                ann_file=_base_.data_root + "/annotations/instances_train2017.json",
                data_prefix=dict(img=_base_.data_root + "/train2017/"),
                **people,
            ),
        ],
    ),
)
val_dataloader = dict(
    dataset=dict(
        ann_file=person_root + "/annotations/whole_val.json",
        data_prefix=dict(img=person_root + "/whole_val/"),
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(
        type="CocoMetric",
        ann_file=person_root + "/annotations/whole_val.json",
        metric="bbox",
    )
]
test_evaluator = val_evaluator

train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=18, val_interval=6)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1.5e-3, weight_decay=0.02),
    paramwise_cfg=dict(
        custom_keys=dict(backbone=dict(lr_mult=0.3)),
    ),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.05, by_epoch=False, end=150),
    dict(
        type="CosineAnnealingLR",
        T_max=18,
        eta_min_ratio=0.01,
        convert_to_iter_based=True,
    ),
]
custom_hooks = [
    dict(type="ReseedHook"),
    dict(
        type="EMAHook",
        ema_type="ExpMomentumEMA",
        momentum=0.002,
        gamma=300,
        update_buffers=True,
    ),
]
