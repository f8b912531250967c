# base.py's codec trained on with mixed quantisation, so that it decodes what it trains
# on: with noise alone the lowest rate loses 1.1 dB once it rounds.
_base_ = "base.py"
quality = _base_.quality
work_dir = f"work_dirs/small_mixed_q{quality}"
model = dict(
    codec=dict(checkpoint=f"work_dirs/small_base_q{quality}/codec.pth.tar"),
    quantizer="ste",
)
train_cfg = dict(max_epochs=4)
param_scheduler = [
    _base_.param_scheduler[0],
    {**_base_.param_scheduler[1], "T_max": 4},
]
