# What training for persons alone does: v2's weights for persons against v2 trained on
# as long for people alone (mmdet_configs/small/vbr_v2_control.py), on the first 200
# pictures of v2.py.
_base_ = ["v2.py"]
control = dict(
    name="control",
    checkpoints=["work_dirs/small_vbr_v2_control_0/codec.pth.tar"],
    steps=_base_.steps,
)
anchor = "control"
codecs = [control, *_base_.codecs[1:3]]
sets = [dict(count=200, **_base_.sets[0])]
