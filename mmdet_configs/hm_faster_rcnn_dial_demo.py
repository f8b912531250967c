# Codecs of 0.18 bpp for different λ_m, from people only (0) to mostly machines. Train
# one for each λ_m of 0, 0.1, 0.4 and 1.6, for example
#   M=0.4
#   tools/train.py mmdet_configs/hm_faster_rcnn_dial_demo.py \
#       --cfg-options model.lambda_machine=$M --work-dir work_dirs/dial_$M
# and then plot their PSNR against mAP:
#   tools/rate_accuracy.py mmdet_configs/sweeps/dial.py
_base_ = "hm_faster_rcnn_demo.py"
custom_hooks = [*_base_.custom_hooks, dict(type="HoldRateHook", bpp=0.18)]
train_cfg = dict(max_epochs=12, val_interval=12)
optim_wrapper = dict(optimizer=dict(lr=3e-4))
param_scheduler = [
    dict(type="CosineAnnealingLR", T_max=12, eta_min=1e-5, convert_to_iter_based=True),
]
