# people_control.py over three seeds, on the first 200 pictures. CODECS names the folder
# of person_0.pth.tar and control_0.pth.tar to person_2.pth.tar and control_2.pth.tar:
# codec.pth.tar of hm_compact_person.py with randomness.seed=0 to 2, without and with
# model.lambda_machine=0.
_base_ = ["people.py"]
folder = "{{$CODECS:work_dirs/seeds}}"
names = [f"{kind} {seed}" for kind in ("control", "person") for seed in range(3)]
anchor = "control 0"
codecs = [
    dict(
        name=name,
        checkpoints=[folder + "/" + name.replace(" ", "_") + ".pth.tar"],
        steps=_base_.steps,
    )
    for name in names
]
seeds = [dict(name="person", of=names[3:], against=names[:3])]
sets = [dict(count=200, **_base_.sets[0])]
