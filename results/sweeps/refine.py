# The demo's codec with each picture's latent refined by 0, 10 and 50 steps: what
# seconds at the encoder buy.
_base_ = "demo.py"
weights = "compressai_hm/zoo/weights/demo_codec.pth"
training = "{{fileDirname}}/../../mmdet_configs/hm_faster_rcnn_demo.py"

anchor = "0 steps"
codecs = [
    dict(name="0 steps", checkpoints=[weights]),
    dict(name="10 steps", checkpoints=[weights], refine=10, config=training),
    dict(name="50 steps", checkpoints=[weights], refine=50, config=training),
]
