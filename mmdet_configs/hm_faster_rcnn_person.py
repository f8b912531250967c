# A compact codec adapted to a person detector on COCO's people. In this order:
#   tools/train.py mmdet_configs/person/detector.py
#   tools/train.py mmdet_configs/person/codec.py
#   tools/train.py mmdet_configs/hm_faster_rcnn_person.py
_base_ = [
    "_base_/default_runtime.py",
    "_base_/datasets/coco_person.py",
    "_base_/models/demo_codec.py",
    "_base_/models/person_detector.py",
    "_base_/schedules/demo.py",
]
model = dict(
    type="HumanMachineDetector",
    codec=dict(checkpoint="work_dirs/codec/epoch_20.pth", **_base_.codec),
    detector=_base_.detector,
    detector_checkpoint="work_dirs/detector/epoch_6.pth",
    resize=dict(),  # the detector reads native resolution
    # See hm_faster_rcnn.py for what the two trade.
    lambda_human=0.0035,
    lambda_machine=1.0,
    trainable=("g_a", "g_s", "entropy", "g_t"),
    backbone=dict(),
)
train_dataloader = dict(batch_size=2)
train_cfg = dict(max_epochs=2, val_interval=2)
param_scheduler = [dict(T_max=2)]
