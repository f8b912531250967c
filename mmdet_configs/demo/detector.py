# The demo's detector, trained on uncompressed pictures by plain MMDetection.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/drawn.py",
    "../_base_/models/demo_detector.py",
]
work_dir = "work_dirs/demo_detector"
model = _base_.detector
custom_hooks = [dict(type="ReseedHook")]
train_dataloader = dict(
    batch_size=8, dataset=dict(num_train=2000, data_root="data/drawn_2000/")
)
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(192, 192), keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="PackDetInputs"),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = [_base_.val_evaluator[0]]
test_evaluator = val_evaluator

train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=16, val_interval=4)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.01),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.05, by_epoch=False, end=200),
    dict(type="CosineAnnealingLR", T_max=16, eta_min=1e-5, convert_to_iter_based=True),
]
