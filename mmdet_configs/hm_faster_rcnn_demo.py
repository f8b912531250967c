# A compact codec adapted to a small Faster R-CNN on the embedded set.
_base_ = [
    "_base_/default_runtime.py",
    "_base_/datasets/embedded.py",
    "_base_/models/demo_codec.py",
    "_base_/models/demo_detector.py",
    "_base_/schedules/demo.py",
]
model = dict(
    type="HumanMachineDetector",
    codec=dict(checkpoint="compressai_hm://demo_codec.pth", **_base_.codec),
    detector=_base_.detector,
    detector_checkpoint="compressai_hm://demo_detector.pth",
    resize=dict(scale=(192, 192), keep_ratio=True),
    # See hm_faster_rcnn.py for what the two trade.
    lambda_human=0.0035,
    lambda_machine=1.0,
    trainable=("g_a", "g_s", "entropy", "g_t"),
    backbone=dict(),
)
