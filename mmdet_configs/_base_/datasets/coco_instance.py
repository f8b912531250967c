_base_ = "coco_detection.py"

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_evaluator = [
    dict(
        type="CocoMetric",
        ann_file=_base_.data_root + "/annotations/instances_val2017.json",
        metric=["bbox", "segm"],
    ),
    dict(type="RateDistortionMetric"),
]
test_evaluator = val_evaluator
