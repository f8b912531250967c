# A small version of hm_faster_rcnn_latent.py, on 2000 drawn pictures.
_base_ = "hm_faster_rcnn_demo.py"
model = dict(
    type="LatentHumanMachineDetector",
    latent_backbone=dict(widths=(64,), depths=(3,)),
    lambda_human=0,  # only what detectors read is trained
    lambda_machine=1.0,
    machine_losses=[dict(type="FeatureLoss", weight=2.0), dict(type="DetectorLoss")],
    latent_cache=dict(variants=1),
    trainable=("latent_backbone", "detector"),
    reader="latent_demo",
)
train_dataloader = dict(dataset=dict(num_train=2000, data_root="data/drawn_2000/"))
train_cfg = dict(max_epochs=6, val_interval=6)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="AdamW", lr=1e-3, weight_decay=0.01),
    paramwise_cfg=dict(_delete_=True, max_norm=5.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.05, by_epoch=False, end=100),
    dict(type="CosineAnnealingLR", T_max=6, eta_min=1e-5, convert_to_iter_based=True),
]
