# One codec for every rate, for people alone: each picture draws a step of quantisation,
# and the coder chooses one (tools/codec.py encode --step, --bpp). It starts from the
# second of the four, which lies in the middle, and keeps its g_t as it is.
_base_ = "base.py"
work_dir = "work_dirs/small_all_rates"
model = dict(
    codec=dict(_delete_=True, type="hm-mbt2018-s", quality=2, pretrained=True),
    lambda_human=0.0035,
    steps=dict(low=0.4, high=6.0, regions=0.3),
    quantizer="ste",
)
train_cfg = dict(max_epochs=34)
param_scheduler = [
    _base_.param_scheduler[0],
    {**_base_.param_scheduler[1], "T_max": 34},
]
