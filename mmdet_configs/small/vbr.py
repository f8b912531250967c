# hm-mbt2018-vbr-s: all_rates.py's codec with a wider latent and more blocks, on a GPU.
# Coarse steps count more than their small losses would. Whole pictures of
# tools/coco_subsets.py, of which a crop is left when they are shrunk to 0.6.
_base_ = "all_rates.py"
work_dir = "work_dirs/small_vbr"
model = dict(
    codec=dict(
        _delete_=True,
        type="hm-mbt2018-vbr-s",
        quality=4,
        checkpoint="work_dirs/small_vbr_start.pth",
    ),
    steps=dict(low=0.35, weight=0.3),
)
train_dataloader = dict(
    batch_size=32,
    num_workers=8,
    dataset=dict(
        _delete_=True,
        type="RepeatDataset",
        times=20,
        dataset=dict(
            type="PictureFolder",
            folders=[
                _base_.data_root + "/train2017",
                _base_.person_root + "/whole_train",
            ],
            pipeline=[
                dict(type="LoadImageFromFile"),
                dict(type="RandomDownscale", low=0.6),
                dict(type="RandomCrop", crop_size=(256, 256)),
                dict(type="RandomFlip", prob=0.5),
                dict(type="PackDetInputs"),
            ],
        ),
    ),
)
epochs = 10
train_cfg = dict(max_epochs=epochs)
optim_wrapper = dict(optimizer=dict(lr=1e-3, precondition_frequency=50))
param_scheduler = [
    _base_.param_scheduler[0],
    {**_base_.param_scheduler[1], "T_max": epochs},
]
