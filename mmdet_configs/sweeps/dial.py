# The codecs of hm_faster_rcnn_dial_demo.py: PSNR against mAP at one rate.
_base_ = "demo.py"

anchor = "λ_m 0"
codecs = [
    dict(name="λ_m 0", checkpoints=["work_dirs/dial_0/codec.pth.tar"]),
    dict(name="λ_m 0.1", checkpoints=["work_dirs/dial_0.1/codec.pth.tar"]),
    dict(name="λ_m 0.4", checkpoints=["work_dirs/dial_0.4/codec.pth.tar"]),
    dict(name="λ_m 1.6", checkpoints=["work_dirs/dial_1.6/codec.pth.tar"]),
]
dial = True  # plots PSNR of x_hat against mAP of each view, one point per codec
