# The demo's codec, JPEG and WebP on the drawn set. This sweep needs no downloads.
_base_ = [
    "../_base_/datasets/drawn.py",
    "../_base_/models/demo_detector.py",
]
custom_imports = dict(imports=["compressai_hm.detection"])

anchor = "JPEG"
codecs = [
    dict(name="JPEG", type="jpeg", qualities=[5, 10, 15, 25, 40]),
    dict(name="WebP", type="webp", qualities=[1, 5, 15, 30, 50]),
    dict(
        name="demo codec",
        checkpoints=["compressai_hm://demo_codec.pth"],
        steps=[0.5, 0.7, 1, 1.4, 2],  # one model gives the whole curve
    ),
]
sets = [
    dict(
        name="drawn",
        dataset=_base_.val_dataloader.dataset,
        detectors=[
            dict(
                name="Faster R-CNN R18",
                config=dict(
                    model=_base_.detector,
                    test_pipeline=[
                        dict(type="Resize", scale=(192, 192), keep_ratio=True)
                    ],
                ),
                checkpoint="compressai_hm://demo_detector.pth",
            )
        ],
    ),
]
