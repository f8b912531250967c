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
    # Below the codec's own lambda_human of 0.0035, so that the bits which the detector
    # asks for come from those spent on PSNR, and the rate stays.
    lambda_human=0.002,
    lambda_machine=0.25,
    trainable=("g_a", "g_s", "entropy", "g_t"),
)
