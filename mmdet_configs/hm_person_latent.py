# The package's person detector reads hm-compact's latent. It teaches itself, on the
# uncompressed pictures, and labels count beside it. COCO_PERSON and MMDET_DATASETS name
# the folders that tools/coco_subsets.py makes. EPOCHS is how long it trains, and METRIC
# which of hm-compact's weights it reads.
_base_ = [
    "_base_/default_runtime.py",
    "_base_/models/human_machine.py",
    "_base_/datasets/coco_person.py",
]
metric = "{{$METRIC:mse}}"
work_dir = f"work_dirs/person_latent_{metric}"
model = dict(
    type="LatentHumanMachineDetector",
    codec=dict(type="hm-compact", quality=4, pretrained=True, metric=metric),
    detector="{{fileDirname}}/person/rtmdet_latent.py",
    detector_checkpoint="compressai_hm://person_detector.pth",
    steps=dict(low=1.0, high=6.0),
    latent_cache=dict(variants=3, bytes=4e9),
    latent_backbone=dict(widths=(80,), depths=(4,)),
    ratio_range=(0.6, 1.0),
    lambda_human=0,  # only what detectors read is trained
    machine_losses=[
        dict(type="FeatureLoss", weight=2.0),
        dict(type="HeadLoss"),
        dict(type="DetectorLoss", weight=0.5),
    ],
    trainable=("latent_backbone", "detector"),
    reader="people",
)
person_root = _base_.person_root
pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="PackDetInputs"),
]
people = dict(
    type=_base_.dataset_type,
    metainfo=_base_.metainfo,
    filter_cfg=None,
    pipeline=pipeline,
)
train_dataloader = dict(
    batch_size=8,
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
    )
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(
        type="CocoMetric",
        ann_file=person_root + "/annotations/whole_val.json",
        metric="bbox",
    ),
    dict(type="RateDistortionMetric"),
]
test_evaluator = val_evaluator

epochs = int("{{$EPOCHS:60}}")
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=epochs, val_interval=epochs)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="HumanMachineOptimWrapperConstructor",
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.02),
    paramwise_cfg=dict(max_norm=10.0, lr_mult=dict(detector=0.5)),
)
param_scheduler = []
custom_hooks = [*_base_.custom_hooks, dict(type="DecayHook")]
