# One codec for every rate, for people alone: each picture draws a step of quantisation,
# and the coder chooses one (tools/codec.py encode --step, --bpp). It starts from the
# second of the four, which lies in the middle, and keeps its g_t.
_base_ = "pretrain.py"
work_dir = "work_dirs/small_all_rates"
model = dict(
    codec=dict(_delete_=True, type="hm-mbt2018-s", quality=2, pretrained=True),
    lambda_human=0.0035,
    steps=dict(low=0.4, high=6.0, regions=0.3),
    mixed_quantisation=True,
)
epochs = 34
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
