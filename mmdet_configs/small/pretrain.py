# A compact base codec for people alone, at the highest rate; the other rates start from
# it. Its pictures: tools/coco_subsets.py.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/models/human_machine.py",
    "../_base_/models/small_codec.py",
]
data_root = "{{$MMDET_DATASETS:data/coco_small}}"
person_root = "{{$COCO_PERSON:data/coco_small/person}}"
work_dir = "work_dirs/small_pretrain"
model = dict(
    codec={**_base_.codec, "g_t_width": 0},
    detector=None,
    lambda_human=0.013,
)
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="PictureFolder",
        folders=[data_root + "/train2017", person_root + "/train"],
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="RandomDownscale", low=0.5),  # to half the size at most
            dict(type="RandomCrop", crop_size=(192, 192)),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PackDetInputs"),
        ],
    ),
)
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=29)
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="HumanMachineOptimWrapperConstructor",
    optimizer=dict(type="SOAP", lr=1e-3, weight_decay=0, precondition_frequency=20),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, end=100),
]
