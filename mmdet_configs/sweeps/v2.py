# hm-mbt2018-vbr-s-v2 on 500 pictures of people in COCO, as results/protocol.md says. It
# compares the weights for people, the weights for detectors of persons, and the latter
# with regions of interest from a detector.
# MMDET_DATASETS, COCO_PERSON and DETECTORS are as in coco.py.
_base_ = ["coco.py"]
steps = [5.6, 3.9, 2.7, 1.9]
entry = dict(type="hm-mbt2018-vbr-s-v2", qualities=[1], steps=steps)
yolox, rtmdet = (_base_.sets[i]["detectors"][0] for i in (0, 1))
detector_regions = dict(
    detectors=[dict(config=rtmdet["config"], checkpoint=rtmdet["checkpoint"])]
)
anchor = "v2"
codecs = [
    dict(name="v2", **entry),
    dict(name="v2 person", metric="person", **entry),
    dict(
        name="v2 person regions",
        metric="person",
        detector_regions=detector_regions,
        **entry,
    ),
]
test_detectors = [
    rtmdet,
    dict(**yolox, classes="coco"),
    dict(
        name="person detector",
        config="{{fileDirname}}/../person/rtmdet_mobilenetv2.py",
        checkpoint="compressai_hm://person_detector.pth",
    ),
]
sets = [
    dict(
        name="people",
        dataset={
            **_base_.sets[1]["dataset"],
            "ann_file": _base_.person + "/annotations/whole_test.json",
            "data_prefix": dict(img=_base_.person + "/whole_test/"),
        },
        detectors=test_detectors,
    )
]
