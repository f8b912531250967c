# hm-mbt2018-vbr-s: all_rates.py's codec with a wider latent, more blocks, and gains by
# the step. Coarse steps count more than their small losses would. It takes the whole
# pictures of tools/coco_subsets.py.
_base_ = "all_rates.py"
work_dir = "work_dirs/small_vbr"
model = dict(
    codec=dict(
        _delete_=True,
        type="hm-mbt2018-vbr-s",
        quality=4,
        checkpoint="work_dirs/small_vbr_start.pth",
    ),
    steps=dict(low=0.35, weight=0.5),
)
train_dataloader = dict(
    dataset=dict(
        folders=[
            _base_.data_root + "/train2017",
            _base_.person_root + "/whole_train",
        ]
    )
)
epochs = 60
train_cfg = dict(max_epochs=epochs)
optim_wrapper = dict(optimizer=dict(lr=3e-4, precondition_frequency=25))
param_scheduler = [
    _base_.param_scheduler[0],
    {**_base_.param_scheduler[1], "T_max": epochs, "eta_min": 1e-6},
]
