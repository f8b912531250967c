# hm-compact adapted at every rate to two detectors of people in COCO, RTMDet-nano and
# YOLOX-Nano. The losses compare their features inside people's boxes, at the scales of
# their tests. DETECTORS names the folder of their weights. --cfg-options
# model.lambda_machine=0 trains the control that the result is measured against.
_base_ = [
    "_base_/default_runtime.py",
    "_base_/models/human_machine.py",
    "_base_/datasets/coco_person.py",
]
detectors = "{{$DETECTORS:checkpoints}}"
loss_detectors = [
    dict(
        detector="{{fileDirname}}/person/rtmdet_nano.py",
        checkpoint=detectors + "/rtmdet_nano_person_mmdet.pth",
        resize=dict(scale=(192, 192), pad_val=114, size_divisor=32),  # 384 * 320 / 640
    ),
    dict(
        detector="mmdet::yolox/yolox_nano_8xb8-300e_coco.py",
        checkpoint=detectors + "/yolox_nano_mmdet.pth",
        resize=dict(scale=(250, 250), pad_val=114, size_divisor=32),  # 384 * 416 / 640
    ),
]
model = dict(
    codec=dict(type="hm-compact", quality=4, pretrained=True),
    lambda_human=0.0035,
    lambda_machine=0.8,
    machine_losses=[dict(type="ObjectFeatureLoss", **kw) for kw in loss_detectors],
    steps=dict(low=0.35, high=6.0, regions=0.4, weight=0.5),
    trainable=("g_a", "g_s", "entropy"),
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomCrop", crop_size=(384, 384), allow_negative_crop=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
train_dataloader = dict(
    batch_size=2,
    dataset=dict(
        ann_file=_base_.person_root + "/annotations/whole_train.json",
        data_prefix=dict(img=_base_.person_root + "/whole_train/"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        ann_file=_base_.person_root + "/annotations/whole_val.json",
        data_prefix=dict(img=_base_.person_root + "/whole_val/"),
    )
)
test_dataloader = val_dataloader
val_evaluator = [_base_.val_evaluator[1]]
test_evaluator = val_evaluator
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=2, val_interval=2)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="HumanMachineOptimWrapperConstructor",
    optimizer=dict(type="SOAP", lr=1.5e-4),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, end=50),
    dict(type="CosineAnnealingLR", T_max=2, eta_min=1e-6, convert_to_iter_based=True),
]
