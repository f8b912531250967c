# hm-compact on 500 pictures of people in COCO, as results/protocol.md says: the weights
# for people and those for detectors of persons, each with and without regions of
# interest from RTMDet-nano, and with regions from the latent.
# MMDET_DATASETS, COCO_PERSON and DETECTORS are as in coco.py.
_base_ = ["coco.py"]
steps = [6.0, 4.2, 3.0, 2.0]
entry = dict(type="hm-compact", qualities=[1], steps=steps)
for_persons = dict(metric="person", **entry)
yolox, rtmdet = (_base_.sets[i]["detectors"][0] for i in (0, 1))
detector_regions = dict(
    detectors=[dict(config=rtmdet["config"], checkpoint=rtmdet["checkpoint"])]
)
weights = "compressai_hm://hm-compact"
latent_regions = dict(
    detectors=[
        dict(
            config="{{fileDirname}}/../person/rtmdet_latent.py",
            checkpoint=weights + ".people.pth",
            reader=weights + "-person.people.reader",
            score_thr=[0.15, 0.3],
        )
    ]
)
anchor = "hm-compact"
codecs = [
    dict(name="hm-compact", **entry),
    dict(name="person", **for_persons),
    dict(name="regions", detector_regions=detector_regions, **entry),
    dict(name="person regions", detector_regions=detector_regions, **for_persons),
    dict(name="person latent regions", detector_regions=latent_regions, **for_persons),
]
sets = [
    dict(
        name="people",
        dataset={
            **_base_.sets[1]["dataset"],
            "ann_file": _base_.person + "/annotations/whole_test.json",
            "data_prefix": dict(img=_base_.person + "/whole_test/"),
        },
        detectors=[
            rtmdet,
            dict(**yolox, classes="coco"),
            dict(
                name="person detector",
                config="{{fileDirname}}/../person/rtmdet_mobilenetv2.py",
                checkpoint="compressai_hm://person_detector.pth",
            ),
        ],
    )
]
