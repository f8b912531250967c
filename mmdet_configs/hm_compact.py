# hm-compact for people, from scratch: one set of weights for every rate. Each picture
# is coded with a random quantization step, and two fifths of the pictures have regions
# of finer steps.
#
#   tools/train.py mmdet_configs/hm_compact.py --resume     continues after a stop
#
# EPOCHS is the length of the training. The learning rate falls over the last fifth of
# it. Before that, a training may be resumed with another number of epochs: a copy of
# its work folder, resumed with few more epochs, gives finished weights early. Holding
# the full rate for longer than some 20 epochs was of no use (results/compact.md).
#
# CACHE_BYTES is memory for decoded pictures; 1.4e9 holds all. It pays off with a GPU.
#
# tools/coco_subsets.py makes the folders of MMDET_DATASETS and COCO_PERSON out of COCO
# 2017. BSDS500 names the pictures of the Berkeley Segmentation Data Set
# (BSDS500/data/images in https://github.com/BIDS/BSDS500).
_base_ = ["_base_/default_runtime.py", "_base_/models/human_machine.py"]
coco_root = "{{$MMDET_DATASETS:data/coco_small}}"
person_root = "{{$COCO_PERSON:data/coco_small/person}}"
bsds_root = "{{$BSDS500:data/BSDS500/data/images}}"
model = dict(
    codec=dict(type="hm-compact", quality=4),
    lambda_human=0.0035,
    steps=dict(low=0.35, high=6.0, regions=0.4, weight=0.5),
)
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="PictureFolder",
        folders=[
            coco_root + "/train2017",
            person_root + "/whole_train",
            bsds_root,
        ],
        pipeline=[
            dict(type="LoadCachedImage", cache_bytes=int(float("{{$CACHE_BYTES:0}}"))),
            dict(type="RandomDownscale", low=0.4, least=192, keep=0.4),
            dict(type="RandomCrop", crop_size=(192, 192)),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PackDetInputs"),
        ],
    ),
)
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=int("{{$EPOCHS:24}}"))
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="HumanMachineOptimWrapperConstructor",
    optimizer=dict(type="SOAP", lr=1e-3),
)
param_scheduler = []
custom_hooks = [*_base_.custom_hooks, dict(type="DecayHook")]
