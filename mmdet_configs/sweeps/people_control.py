# The effect of training for detectors of persons on the pictures of people.py. The
# control was trained for as long for people alone. CODECS names the folder of its
# weights, codec.pth.tar of hm_compact_person.py with model.lambda_machine=0.
_base_ = ["people.py"]
control = dict(
    name="control",
    checkpoints=["{{$CODECS:work_dirs/seeds}}/control_0.pth.tar"],
    steps=_base_.steps,
)
anchor = "control"
codecs = [control, _base_.codecs[1]]
