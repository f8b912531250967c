# A compact codec for real pictures, trained for humans alone; it starts from the
# demo's.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/models/human_machine.py",
    "../_base_/datasets/coco_person.py",
    "../_base_/models/demo_codec.py",
]
work_dir = "work_dirs/person_codec"
model = dict(
    codec=dict(checkpoint="compressai_hm://demo_codec.pth", **_base_.codec),
    detector=None,
    lambda_human=0.0035,
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomCrop", crop_size=(256, 256), allow_negative_crop=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
train_dataloader = dict(
    batch_size=8, dataset=dict(filter_cfg=None, pipeline=train_pipeline)
)
val_evaluator = [_base_.val_evaluator[1]]
test_evaluator = val_evaluator

train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=8, val_interval=8)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="HumanMachineOptimWrapperConstructor",
    optimizer=dict(type="Adam", lr=5e-4),
)
param_scheduler = [
    dict(type="CosineAnnealingLR", T_max=8, eta_min=1e-5, convert_to_iter_based=True),
]
