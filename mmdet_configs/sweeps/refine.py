# The demo's codec with each picture's latent refined by 0, 10 and 50 iterations. The
# sweep measures what more time at the encoder gains.
_base_ = "demo.py"
weights = "compressai_hm://demo_codec.pth"
training = "{{fileDirname}}/../hm_faster_rcnn_demo.py"

anchor = "0 iterations"
codecs = [
    dict(name="0 iterations", checkpoints=[weights]),
    dict(name="10 iterations", checkpoints=[weights], refine=10, config=training),
    dict(name="50 iterations", checkpoints=[weights], refine=50, config=training),
]
