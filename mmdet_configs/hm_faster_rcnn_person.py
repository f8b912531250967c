# A compact codec adapted to a person detector on COCO's people. In this order:
#   tools/train.py mmdet_configs/person/detector.py
#   tools/train.py mmdet_configs/person/codec.py
#   tools/train.py mmdet_configs/hm_faster_rcnn_person.py
_base_ = [
    "_base_/default_runtime.py",
    "_base_/models/human_machine.py",
    "_base_/datasets/coco_person.py",
    "_base_/models/demo_codec.py",
    "_base_/models/person_detector.py",
    "_base_/schedules/demo.py",
]
model = dict(
    codec=dict(checkpoint="work_dirs/person_codec/epoch_8.pth", **_base_.codec),
    detector=_base_.detector,
    detector_checkpoint="work_dirs/person_detector/epoch_12.pth",
    resize=dict(scale=None),  # the pictures' own size
    # As in hm_faster_rcnn_demo.py: below the codec's own 0.0035, to keep the rate.
    lambda_human=0.002,
    lambda_machine=0.25,
    trainable=("g_a", "g_s", "entropy", "g_t"),
)
train_dataloader = dict(batch_size=2)
train_cfg = dict(max_epochs=1, val_interval=1)
param_scheduler = [
    dict(type="CosineAnnealingLR", T_max=1, eta_min=1e-5, convert_to_iter_based=True),
]
