# Training for machines, as results/protocol.md says: three seeds of
# mmdet_configs/small/vbr_control.py and vbr_adapted.py (SEED=0, 1, 2), and attention
# with it, on the first 250 pictures of people of machines.py and on Kodak.
_base_ = ["machines.py"]
run = "work_dirs/small_vbr_{}/codec.pth.tar"
steps = [5.6, 3.9, 2.7, 1.9]
seeds = [0, 1, 2]
kinds = dict(
    control=dict(run="control"),
    adapted=dict(run="adapted"),
    together=dict(run="adapted", attention=_base_.attention),
)

anchor = "control 0"
codecs = []
for seed in seeds:
    for name, kind in kinds.items():
        kind = dict(**kind)
        weights = run.format(f"{kind.pop('run')}_{seed}")
        codecs.append(
            dict(name=f"{name} {seed}", checkpoints=[weights], steps=steps, **kind)
        )
seeds = [
    dict(
        name=name,
        of=[f"{name} {seed}" for seed in seeds],
        against=[f"control {seed}" for seed in seeds],
    )
    for name in ("adapted", "together")
]
sets = [
    dict(count=250, **_base_.sets[0]),
    dict(name="kodak", pictures="{{$KODAK:data/kodak}}"),
]
