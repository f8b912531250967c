# The distilled detector, trained on for objects as large as in testing.
_base_ = "rtmdet_mobilenetv2_distilled.py"
work_dir = "work_dirs/person_448"
load_from = "work_dirs/person_distilled/epoch_18.pth"
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="RandomResize", scale=(448, 448), ratio_range=(0.7, 1.4), keep_ratio=True
    ),
    dict(type="RandomCrop", crop_size=(256, 320), allow_negative_crop=True),
    dict(type="YOLOXHSVRandomAug"),
    dict(type="RandomFlip", prob=0.5),
    dict(type="Pad", size=(320, 256), pad_val=_base_.gray),
    dict(type="PackDetInputs"),
]
datasets = _base_.train_dataloader.dataset.datasets
for own in datasets:
    own["pipeline"] = train_pipeline
train_dataloader = dict(dataset=dict(datasets=datasets))
train_cfg = dict(max_epochs=6)
optim_wrapper = dict(optimizer=dict(lr=6e-4))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.05, by_epoch=False, end=50),
    dict(
        type="CosineAnnealingLR",
        T_max=6,
        eta_min_ratio=0.01,
        convert_to_iter_based=True,
    ),
]
