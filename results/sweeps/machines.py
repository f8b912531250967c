# Bits at equal accuracy, as results/protocol.md says: attention on people in COCO, and
# weights that ship for detectors of persons, alone and with it.
# MMDET_DATASETS, COCO_PERSON and DETECTORS as in coco.py.
_base_ = ["coco.py"]
entry = dict(type="hm-mbt2018-vbr-s", qualities=[1], steps=[5.6, 3.9, 2.7, 1.9, 1.3])
coco = _base_.sets[0]
yolox, rtmdet = (_base_.sets[i]["detectors"][0] for i in (0, 1))
attention = dict(
    detectors=[dict(config=rtmdet["config"], checkpoint=rtmdet["checkpoint"])]
)
anchor = "base"
codecs = [
    dict(name="base", **entry),
    dict(name="attention", attention=attention, **entry),
    dict(name="person", metric="person", **entry),
    dict(name="person attention", metric="person", attention=attention, **entry),
]
readers = [
    rtmdet,
    dict(**yolox, classes="coco"),
    dict(
        name="person detector",
        config="mmdet_configs/person/rtmdet_mobilenetv2.py",
        checkpoint="compressai_hm/zoo/weights/person_detector.pth",
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
        detectors=readers,
    )
]
