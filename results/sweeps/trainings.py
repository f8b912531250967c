# Training for machines, as results/protocol.md says: three seeds of
# mmdet_configs/small/vbr_control.py and vbr_adapted.py (SEED=0, 1, 2), and attention
# with it, on the first 200 pictures of people of machines.py and on Kodak; and VVC.
_base_ = ["machines.py"]
run = "work_dirs/small_vbr_{}_{}/codec.pth.tar"
steps = [5.6, 3.9, 2.7, 1.9]
seeds = [0, 1, 2]
control, adapted = (
    [f"{name} {seed}" for seed in seeds] for name in ("control", "adapted")
)

anchor = "control 0"
codecs = []
for seed in seeds:
    codecs += [
        dict(
            name=control[seed], checkpoints=[run.format("control", seed)], steps=steps
        ),
        dict(
            name=adapted[seed], checkpoints=[run.format("adapted", seed)], steps=steps
        ),
    ]
    if seed == 0:
        together = {**codecs[-1], "name": "together 0", "attention": _base_.attention}
        codecs.append(together)
    if seed == 1:
        codecs.append(dict(name="VVC", type="vvc", qualities=[49, 45, 41, 37]))
seeds = [dict(name="adapted", of=adapted, against=control)]
sets = [
    dict(count=200, **_base_.sets[0]),
    dict(name="kodak", pictures="{{$KODAK:data/kodak}}"),
]
