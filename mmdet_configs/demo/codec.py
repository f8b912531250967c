# The demo's codec, trained for humans alone.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/models/human_machine.py",
    "../_base_/datasets/drawn.py",
    "../_base_/models/demo_codec.py",
]
work_dir = "work_dirs/demo_codec"
model = dict(codec=_base_.codec, detector=None, lambda_human=0.0035)
train_dataloader = dict(dataset=dict(num_train=2000, data_root="data/drawn_2000/"))
val_evaluator = [_base_.val_evaluator[1]]
test_evaluator = val_evaluator

train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=24, val_interval=4)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="HumanMachineOptimWrapperConstructor",
    optimizer=dict(type="Adam", lr=1e-3),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, end=200),
    dict(type="CosineAnnealingLR", T_max=24, eta_min=1e-5, convert_to_iter_based=True),
]
