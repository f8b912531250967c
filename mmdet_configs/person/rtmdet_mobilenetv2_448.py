# Continues the training of the distilled detector with objects as large as in testing.
_base_ = "rtmdet_mobilenetv2_distilled.py"
work_dir = "work_dirs/person_448"
load_from = "work_dirs/person_distilled/epoch_18.pth"
train_pipeline = _base_.train_pipeline
train_pipeline[2].update(scale=(448, 448), ratio_range=(0.7, 1.4))
datasets = _base_.train_dataloader.dataset.datasets
for dataset in datasets:
    dataset["pipeline"] = train_pipeline
train_dataloader = dict(dataset=dict(datasets=datasets))
train_cfg = dict(max_epochs=6)
optim_wrapper = dict(optimizer=dict(lr=6e-4))
param_scheduler = [
    {**_base_.param_scheduler[0], "end": 50},
    {**_base_.param_scheduler[1], "T_max": 6},
]
