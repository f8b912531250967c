# λ_m as a dial: at 0.18 bpp whatever it is, from people alone (0) to machines first.
# For each λ_m of 0, 0.1, 0.4 and 1.6, such as
#   M=0.4
#   tools/train.py mmdet_configs/hm_faster_rcnn_dial_demo.py \
#       --cfg-options model.lambda_machine=$M --work-dir work_dirs/dial_$M
# and then the family's PSNR against mAP:
#   tools/rate_accuracy.py results/sweeps/dial.py
_base_ = "hm_faster_rcnn_demo.py"
custom_hooks = [*_base_.custom_hooks, dict(type="HoldRateHook", bpp=0.18)]
