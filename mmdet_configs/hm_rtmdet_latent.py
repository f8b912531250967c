# RTMDet-tiny's neck and heads read hm-compact's latent through a LatentBackbone, and
# the stream is frozen. The detector itself teaches: on the uncompressed picture it has
# the features, scores and boxes that those on the latent should have.
_base_ = "hm_rtmdet.py"

model = dict(
    type="LatentHumanMachineDetector",
    codec=dict(_delete_=True, type="hm-compact", quality=4, pretrained=True),
    steps=dict(low=1.0, high=6.0),
    latent_cache=dict(variants=3, bytes=4e9),
    latent_backbone=dict(widths=(128,), depths=(4,)),
    ratio_range=(0.6, 1.0),
    lambda_human=0,  # only what detectors read is trained
    machine_losses=[
        dict(type="FeatureLoss", weight=2.0),
        dict(type="HeadLoss", weight=1.0),
        dict(type="DetectorLoss", weight=1.0),
    ],
    trainable=("latent_backbone", "detector"),
    reader="rtmdet_latent",
)
