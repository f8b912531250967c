# The base codec for people alone, at one of four rates: QUALITY=4, then 3, 2 and 1,
# each from the one above; 4 from pretrain.py.
_base_ = "pretrain.py"
quality = _base_.quality
start = "small_pretrain" if quality == 4 else f"small_base_q{quality + 1}"
work_dir = f"work_dirs/small_base_q{quality}"
model = dict(
    codec=dict(checkpoint=f"work_dirs/{start}/codec.pth.tar"),
    lambda_human=_base_.lambda_human,
)
epochs = 12 if quality == 4 else 8
train_cfg = dict(max_epochs=epochs)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, end=50),
    dict(
        type="CosineAnnealingLR",
        T_max=epochs,
        eta_min=2e-6,
        convert_to_iter_based=True,
    ),
]
