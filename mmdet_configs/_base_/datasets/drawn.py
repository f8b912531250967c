# The default data set, which is drawn under data_root when it is first used.
_base_ = "coco_instance.py"
data_root = "data/drawn/"

train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    batch_sampler=dict(drop_last=True),
    dataset=dict(type="DrawnCocoDataset", data_root=data_root),
)
val_dataloader = dict(
    num_workers=0,
    dataset=dict(type="DrawnCocoDataset", data_root=data_root),
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(
        type="CocoMetric",
        ann_file=data_root + "annotations/instances_val2017.json",
        metric="bbox",
    ),
    dict(type="RateDistortionMetric"),
]
test_evaluator = val_evaluator
