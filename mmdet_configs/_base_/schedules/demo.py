train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=6, val_interval=6)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="HumanMachineOptimWrapperConstructor",
    optimizer=dict(type="Adam", lr=4e-4),
    paramwise_cfg=dict(lr_mult=dict(g_t=3.0)),
)
param_scheduler = [
    dict(type="CosineAnnealingLR", T_max=6, eta_min=1e-5, convert_to_iter_based=True),
]
