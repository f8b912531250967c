# Training for machines, as results/protocol.md says: three seeds of
# mmdet_configs/small/vbr_control.py and vbr_adapted.py (SEED=0, 1, 2), attention with
# it, and HEVC and VVC, on the first 200 pictures of machines.py.
_base_ = ["machines.py"]
run = "work_dirs/small_vbr_{}/codec.pth.tar"
steps = [5.6, 3.9, 2.7, 1.9]
control, adapted = (
    [
        dict(
            name=f"{kind} {seed}",
            checkpoints=[run.format(f"{kind}_{seed}")],
            steps=steps,
        )
        for seed in (0, 1, 2)
    ]
    for kind in ("control", "adapted")
)
together = [
    dict(
        name=f"together {seed}",
        attention=_base_.attention,
        checkpoints=adapted[seed]["checkpoints"],
        steps=steps,
    )
    for seed in (0, 1, 2)
]

anchor = "control 0"
codecs = [
    control[0],
    adapted[0],
    together[0],
    control[1],
    adapted[1],
    dict(name="HEVC", type="hevc", qualities=[49, 44, 39]),
    dict(
        name="HEVC attention",
        type="hevc",
        qualities=[49, 44, 39],
        attention=_base_.attention,
    ),
    dict(name="VVC", type="vvc", qualities=[49, 44, 39]),
    control[2],
    adapted[2],
    together[1],
    together[2],
]
seeds = [
    dict(
        name=name,
        of=[own["name"] for own in trained],
        against=[own["name"] for own in control],
    )
    for name, trained in (("adapted", adapted), ("together", together))
]
sets = [dict(count=200, **_base_.sets[0])]
