# A compact codec adapted to a small Faster R-CNN on the drawn set.
_base_ = [
    "_base_/default_runtime.py",
    "_base_/models/human_machine.py",
    "_base_/datasets/drawn.py",
    "_base_/models/demo_codec.py",
    "_base_/models/demo_detector.py",
    "_base_/schedules/demo.py",
]
model = dict(
    codec=dict(checkpoint="compressai_hm://demo_codec.pth", **_base_.codec),
    detector=_base_.detector,
    detector_checkpoint="compressai_hm://demo_detector.pth",
    resize=dict(scale=(192, 192), keep_ratio=True),
    # This is less than the 0.0035 that the codec was trained with, so that the bits for
    # the detector replace bits for PSNR, and the rate stays the same.
    lambda_human=0.002,
    lambda_machine=0.25,
    trainable=("g_a", "g_s", "entropy", "g_t"),
)
