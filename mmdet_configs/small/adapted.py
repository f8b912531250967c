# The adapted codec at one of four rates (QUALITY=1 to 4), from mixed.py's: all parts
# but the detector (person/detector.py) train. The other files here change one thing
# each. D_m compares features inside the people's boxes; labels.py has the paper's.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/models/human_machine.py",
    "../_base_/datasets/coco_person.py",
    "../_base_/models/small_codec.py",
    "../_base_/models/person_detector.py",
]
quality = _base_.quality
seed = int("{{$SEED:0}}")
run = f"q{quality}" if seed == 0 else f"q{quality}_seed{seed}"
work_dir = f"work_dirs/small_adapted_{run}"
randomness = dict(seed=seed)
weight = {1: 200, 2: 200, 3: 100, 4: 100}[quality]  # Kodak's bits stay within 3 %
model = dict(
    codec=dict(
        checkpoint=f"work_dirs/small_mixed_q{quality}/codec.pth.tar", **_base_.codec
    ),
    detector=_base_.detector,
    detector_checkpoint="work_dirs/person_detector/epoch_12.pth",
    resize=dict(scale=None),  # the pictures' own size
    lambda_human=_base_.lambda_human,
    lambda_machine=weight * _base_.lambda_human,
    machine_losses=dict(objects=1.0),
    quantizer="ste",
    trainable=("g_a", "g_s", "entropy", "g_t"),
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomCrop", crop_size=(320, 320), allow_negative_crop=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
people = {**_base_.train_dataloader.dataset, "pipeline": train_pipeline}
train_dataloader = dict(
    batch_size=2,
    dataset=dict(
        _delete_=True,
        type="ConcatDataset",
        datasets=[
            people,
            {  # with and without people
                **people,
                "ann_file": _base_.data_root + "/annotations/instances_train2017.json",
                "data_prefix": dict(img=_base_.data_root + "/train2017/"),
                "filter_cfg": dict(filter_empty_gt=False),
            },
        ],
    ),
)
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=1, val_interval=1)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="HumanMachineOptimWrapperConstructor",
    optimizer=dict(type="SOAP", lr=3e-4, weight_decay=0, precondition_frequency=20),
    paramwise_cfg=dict(lr_mult=dict(g_t=0.1)),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, end=50),
    dict(type="CosineAnnealingLR", T_max=1, eta_min=1e-6, convert_to_iter_based=True),
]
