# The person detector on uncompressed pictures, by plain MMDetection.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco_person.py",
    "../_base_/models/person_detector.py",
]
work_dir = "work_dirs/person_detector"
model = _base_.detector
custom_hooks = [dict(type="ReseedHook")]
# A picture without proposals leaves the box head without a gradient.
find_unused_parameters = True
# Native resolution; Resize only says so.
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="RandomResize", scale=(416, 416), ratio_range=(0.6, 1.0), keep_ratio=True
    ),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale_factor=1.0, keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="PackDetInputs"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = [_base_.val_evaluator[0]]
test_evaluator = val_evaluator

train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=12, val_interval=3)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=4e-4, weight_decay=0.02),
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.5))),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.05, by_epoch=False, end=100),
    dict(
        type="CosineAnnealingLR",
        T_max=6,
        end=6,
        eta_min=4e-6,
        convert_to_iter_based=True,
    ),
    # Once more, from half the rate.
    dict(
        type="CosineRestartLR",
        periods=[6],
        restart_weights=[0.5],
        begin=6,
        end=12,
        eta_min=4e-6,
        convert_to_iter_based=True,
    ),
]
