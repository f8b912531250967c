# The effect of training for detectors of persons: v2's weights for detectors, compared
# with v2 after training for as long for people only, on the first 200 pictures of
# v2.py. The control's weights do not ship; this sweep serves to draw its results again.
_base_ = ["v2.py"]
control = dict(
    name="control",
    checkpoints=["work_dirs/small_vbr_v2_control_0/codec.pth.tar"],
    steps=_base_.steps,
)
anchor = "control"
codecs = [control, *_base_.codecs[1:]]
sets = [dict(count=200, **_base_.sets[0])]
