# The small models of mmdet_configs/small: adapted (as they ship), control and
# ablations, beside the classical codecs of coco.py. Adapted to Faster R-CNN; YOLOX-Nano
# and RTMDet-nano read unseen.
_base_ = ["coco.py", "../../mmdet_configs/_base_/models/person_detector.py"]
runs = "work_dirs/small_{}/codec.pth"
classical = {  # around the learned codecs' rates
    "JPEG": [5, 10, 20, 30, 50],
    "WebP": [1, 10, 30, 55],
    "AVIF": [6, 15, 28, 40],
    "HEVC": [43, 39, 35, 31],
    "VVC": [43, 39, 35, 31],
}

anchor = "control"
codecs = [
    *[
        {**c, "qualities": classical[c["name"]]}
        for c in _base_.codecs
        if c["name"] in classical
    ],
    dict(
        name="control", checkpoints=[runs.format(f"control_q{q}") for q in (1, 2, 3, 4)]
    ),
    dict(
        name="adapted",
        type="hm-mbt2018-s",
        qualities=[1, 2, 3, 4],
        trained_for="Faster R-CNN",
    ),
    *[
        dict(name=name, checkpoints=[runs.format(f"{run}_q{q}") for q in (1, 2)])
        for name, run in (
            ("labels", "labels"),
            ("features", "features"),
            ("g_t alone", "reader"),
        )
    ],
    *[
        dict(
            name=name,
            checkpoints=[
                runs.format(run + q) for q in ("_q1", "_q2", "_q1_seed1", "_q2_seed1")
            ],
            curve=False,  # two rates, two seeds
        )
        for name, run in (("with g_t", "adapted"), ("without g_t", "without_g_t"))
    ],
]
differences = [dict(of="with g_t", against="without g_t")]
table1 = dict(
    anchor="HEVC",
    columns=[
        ("person", "mAP Faster R-CNN"),
        ("person", "mAP RTMDet-nano"),
        ("coco", "mAP YOLOX-Nano"),
        ("kodak", "psnr"),
    ],
)
on_coco, on_people, on_kodak = _base_.sets
faster_rcnn = dict(
    name="Faster R-CNN",
    config=dict(model=_base_.detector, test_pipeline=[]),
    checkpoint="work_dirs/person_detector/epoch_12.pth",
)
on_people = {**on_people, "detectors": [faster_rcnn, *on_people["detectors"]]}
sets = [on_people, on_kodak, on_coco]
