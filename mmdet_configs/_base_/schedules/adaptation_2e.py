# One optimizer with a group for each part that trains, and one for the quantiles.
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=2, val_interval=1)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="HumanMachineOptimWrapperConstructor",
    optimizer=dict(type="Adam", lr=1e-4),
    paramwise_cfg=dict(max_norm=1.0, quantiles_lr=1e-3),
)
param_scheduler = [
    dict(type="MultiStepLR", milestones=[1], gamma=0.1),
]
