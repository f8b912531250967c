# People in COCO: crops at native resolution for training, whole pictures of val2017
# for validation. COCO_PERSON names the folder of the crops and annotations,
# MMDET_DATASETS the folder of COCO.
_base_ = "coco_detection.py"
person_root = "{{$COCO_PERSON:data/coco_small/person}}"
metainfo = dict(classes=("person",), palette=[(220, 20, 60)])

train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    batch_sampler=dict(type="AspectRatioBatchSampler", drop_last=True),
    dataset=dict(
        data_root="",
        metainfo=metainfo,
        ann_file=person_root + "/annotations/person_train.json",
        data_prefix=dict(img=person_root + "/train/"),
    ),
)
val_dataloader = dict(
    num_workers=0,
    dataset=dict(
        data_root="",
        metainfo=metainfo,
        ann_file=person_root + "/annotations/person_val.json",
        data_prefix=dict(img=_base_.data_root + "/val2017/"),
    ),
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(
        type="CocoMetric",
        ann_file=person_root + "/annotations/person_val.json",
        metric="bbox",
    ),
    dict(type="RateDistortionMetric"),
]
test_evaluator = val_evaluator
