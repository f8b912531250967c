# RTMDet-nano's neck and heads on the latent of hm-mbt2018-vbr-s, from a step of 1.3 to
# 5.6: a LatentBackbone, which starts from nothing, and they train on frozen streams.
_base_ = "vbr_adapted.py"
work_dir = "work_dirs/small_vbr_latent"
rtmdet = _base_.readers[0]
model = dict(
    detector=rtmdet["detector"],
    detector_checkpoint=rtmdet["checkpoint"],
    lambda_human=0,
    lambda_machine=1.0,
    machine_losses=[dict(type="DetectorLoss", weight=1.0)],
    task_view="y_hat",
    latent_backbone=dict(width=192, depth=4),
    steps=dict(low=1.3, high=5.6, weight=2.0),
    trainable=("latent_backbone", "detector"),
    reader="rtmdet_latent",
)
train_dataloader = dict(batch_size=8)
val_evaluator = [
    dict(
        type="CocoMetric",
        ann_file=_base_.person_root + "/annotations/whole_val.json",
        metric="bbox",
    ),
    *_base_.val_evaluator,
]
test_evaluator = val_evaluator
epochs = 6
train_cfg = dict(max_epochs=epochs, val_interval=epochs)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="AdamW", lr=1e-3, weight_decay=0.02)
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, end=50),
    dict(
        type="CosineAnnealingLR",
        T_max=epochs,
        eta_min=1e-5,
        convert_to_iter_based=True,
    ),
]
