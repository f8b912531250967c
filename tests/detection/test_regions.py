"""Steps are finer where detectors find something; by the demo's detector."""

import pickle

import matplotlib
import pytest
import torch
from mmengine.structures import InstanceData

from compressai_hm.bitstream.step_map import encode_map
from compressai_hm.detection import DetectorRegions
from compressai_hm.detection.datasets import drawn
from compressai_hm.detection.engine.hooks.draw_views_hook import draw_views
from compressai_hm.detection.regions import detections_to_importance
from compressai_hm.io.pictures import read_picture

from . import tiny

DEMO = dict(
    config=str(tiny.CONFIGS / "demo/detector.py"),
    checkpoint="compressai_hm://demo_detector.pth",
)
CODEC = dict(type="hm-compact", quality=4, step=1.0, pretrained=True)


def found(*boxes, masks=None):
    out = InstanceData(bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    if masks is not None:
        out.masks = masks
    return out


@pytest.fixture(scope="module")
def picture(drawn_set):
    return read_picture(sorted((drawn_set / "val2017").iterdir())[0])


def test_objects_cover_the_blocks_they_touch():
    inside = detections_to_importance(
        found((20, 17, 30, 31), (60, 0, 64.5, 5)), (50, 70)
    )
    assert inside.shape == (4, 5)
    expected = torch.zeros(4, 5)
    expected[1, 1] = expected[0, 3] = expected[0, 4] = 1
    assert torch.equal(inside, expected)
    grown = detections_to_importance(found((20, 17, 30, 31)), (50, 70), margin=8)
    assert torch.equal(grown[:3, :3], torch.ones(3, 3)) and grown.sum() == 9
    beyond = detections_to_importance(
        found((-50, -50, -5, -5), (500, 0, 600, 9)), (50, 70), 4
    )
    assert not beyond.any()
    assert not detections_to_importance(found(), (50, 70)).any()
    assert detections_to_importance(found((-5, -5, 99, 99)), (50, 70)).all()


def test_masks_count_in_place_of_boxes():
    masks = torch.zeros(1, 50, 70, dtype=torch.bool)
    masks[0, 20:30, 20:30] = True
    inside = detections_to_importance(found((0, 0, 70, 50), masks=masks), (50, 70))
    assert inside.sum() == inside[1, 1] == 1
    grown = detections_to_importance(
        found((0, 0, 70, 50), masks=masks.numpy()), (50, 70), 2
    )
    assert torch.equal(grown, inside)
    assert (
        detections_to_importance(found((0, 0, 70, 50), masks=masks), (50, 70), 5).sum()
        == 9
    )
    empty = found(masks=masks[:0].numpy())
    assert detections_to_importance(empty, (50, 70), 5).shape == (4, 5)


def test_the_map_is_of_what_is_found(picture):
    regions = DetectorRegions([DEMO], gain=4.0)
    own = regions.detectors[0]
    steps = regions.step_map(picture, 2.0)
    assert set(steps.flatten().tolist()) == {0.5, 2.0}
    boxes = own.view.detect(own.module, picture[0])
    boxes = boxes[boxes.scores >= 0.3]
    assert len(boxes)
    expected = detections_to_importance(boxes, tuple(picture.shape[-2:]), 8)
    assert torch.equal(steps == 0.5, expected == 1)
    assert torch.equal(
        DetectorRegions([DEMO, DEMO], gain=4.0).step_map(picture, 2.0), steps
    )


def test_nothing_found_is_uniform(picture):
    regions = DetectorRegions([DEMO], score_thr=1.1)
    assert (regions.step_map(picture, 1.5) == 1.5).all()
    gray = torch.full((1, 3, 33, 70), 0.5)
    assert DetectorRegions([DEMO]).step_map(gray).shape == (3, 5)


def test_less_sure_objects_count_less(picture):
    """An object that reaches one of two thresholds has half the importance."""
    sure, rest = (
        DetectorRegions([DEMO], score_thr=t).importance(picture) for t in (0.9, 0.05)
    )
    assert 0 < sure.mean() < rest.mean()
    regions = DetectorRegions([{**DEMO, "score_thr": [0.9, 0.05]}], gain=4.0)
    assert torch.equal(regions.importance(picture), (sure + rest) / 2)
    steps = regions.step_map(picture, 2.0)
    assert set(steps.flatten().tolist()) == {0.5, 1.0, 2.0}
    assert regions.identity() != DetectorRegions([DEMO], gain=4.0).identity()


@pytest.mark.parametrize("size", [(1, 3000), (3000, 1), (1, 1), (17, 1)])
def test_pictures_too_thin_for_a_detector_are_uniform(size):
    steps = DetectorRegions([DEMO]).step_map(torch.rand(1, 3, *size))
    assert steps.shape == tuple(-(-side // 16) for side in size) and (steps == 1).all()


def test_a_detector_without_boxes_is_told(picture, monkeypatch):
    regions = DetectorRegions([DEMO])
    regions.load()
    module = regions.detectors[0].module
    monkeypatch.setattr(module, "predict", lambda inputs, samples: samples)
    with pytest.raises(ValueError, match="a FasterRCNN finds no boxes"):
        regions.step_map(picture)


def test_only_some_classes_count(picture):
    """By the names that the entry, the weights or the config's data set say."""
    names = tuple(drawn.CATEGORIES.values())
    every = DetectorRegions([DEMO], only=names).importance(picture)
    assert torch.equal(every, DetectorRegions([DEMO]).importance(picture))
    maps = [DetectorRegions([DEMO], only=[n]).importance(picture) for n in names]
    assert torch.equal(torch.stack(maps).amax(0), every)
    assert 0 < sum(bool(m.any()) for m in maps) < len(names)
    turned = {**DEMO, "classes": names[::-1]}
    found = DetectorRegions([turned], only=names[:1]).importance(picture)
    assert torch.equal(found, maps[-1])
    found = DetectorRegions([turned, DEMO], only=names[:1]).importance(picture)
    assert torch.equal(found, torch.maximum(maps[-1], maps[0]))

    with pytest.raises(ValueError, match=r"no detector knows \['person'\], but \['"):
        DetectorRegions([DEMO], only=["person"]).load()
    for wrong in ("coco", ["person"], "person"):
        with pytest.raises(ValueError, match="it has 8 labels: give as many names"):
            DetectorRegions([{**DEMO, "classes": wrong}], only=["person"]).load()
    config = tiny.Config.fromfile(DEMO["config"])
    for own in (config.model, dict(config, test_dataloader=PEOPLE)):
        with pytest.raises(ValueError, match="does not name its classes, nor does"):
            DetectorRegions([{**DEMO, "config": own}], only=["person"]).load()


PEOPLE = dict(dataset=dict(type="CocoDataset", metainfo=dict(classes=("person",))))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (dict(detectors=[]), r"must be a list of dict\(config=..., checkpoint=...\)"),
        (dict(detectors=DEMO), "must be a list"),
        (dict(detectors=[dict(config="a.py")]), "takes dict.*got {'config': 'a.py'}"),
        (dict(detectors=["mmdet::a.py"]), "takes dict.*got 'mmdet::a.py'"),
        (dict(detectors=[{**DEMO, "checkpoint": None}]), "takes dict"),
        (
            dict(detectors=[DEMO], gain=0.5),
            "detector_regions.gain must be 1 or from 1.1 on",
        ),
        (dict(detectors=[DEMO], gain=1.05), "must be 1 or from 1.1 on, got 1.05"),
        (dict(detectors=[DEMO], margin=-1), "margin must be 0 or more, got -1"),
        (dict(detectors=[DEMO], only="person"), "only must be a list of names"),
        (dict(detectors=[DEMO], only=[]), "only must be a list of names"),
        (dict(detectors=[DEMO], score_thr="high"), "score_thr must be a number"),
        (dict(detectors=[{**DEMO, "score_thr": []}]), r"such, got \[\]"),
    ],
)
def test_bad_options_name_their_key(options, named):
    with pytest.raises(ValueError, match=named):
        DetectorRegions(**options)


def test_a_codec_with_a_detector_is_none():
    config = str(tiny.CONFIGS / "hm_faster_rcnn_demo.py")
    with pytest.raises(ValueError, match="give the detector's own config"):
        DetectorRegions([{**DEMO, "config": config}])


@pytest.mark.parametrize("coding", ["bytes", "forward"])
def test_evaluation_codes_by_the_map(picture, coding):
    height, width = picture.shape[-2:]
    samples = {}
    for name, options in (
        ("fine", {}),
        ("coarse", dict(step=2.0)),
        (
            "detector_regions",
            dict(step=2.0, detector_regions=dict(detectors=[DEMO], gain=2.0)),
        ),
    ):
        model = tiny.model(codec=CODEC, coding=coding, **options).eval()
        model.init_weights()
        (samples[name],) = model.predict(picture, [tiny.sample(height, width)])
    bits = {name: sample.metainfo["bits"] for name, sample in samples.items()}
    assert bits["coarse"] < bits["detector_regions"] < bits["fine"]
    steps = samples["detector_regions"].metainfo["steps"]
    values = steps.values(steps.offsets.shape)
    assert values.min() == 1 and values.max() == 2
    inside = torch.from_numpy(values == 1)
    inside = inside.repeat_interleave(16, 0).repeat_interleave(16, 1)
    error = {
        name: (sample.x_hat / 255 - picture[0]).square().mean(0)[inside].mean()
        for name, sample in samples.items()
    }
    assert error["detector_regions"] < 0.8 * error["coarse"]
    if coding == "bytes":
        codec, x = model.codec, picture
        coded = codec.compress(x, steps)["strings"]
        own = sum(len(string) for part in coded for string in part)
        assert bits["detector_regions"] == 8 * (own + len(encode_map(steps.offsets)))


def test_detectors_of_regions_are_no_part_of_the_model(picture):
    model = tiny.model(detector_regions=dict(detectors=[DEMO]))
    assert not [key for key in model.state_dict() if "detector" in key]
    model.init_weights()
    model.train()
    assert not model.detector_regions.detectors[0].module.training
    pickle.dumps(model.eval().predict(picture, [tiny.sample(*picture.shape[-2:])]))


def test_classical_codecs_have_no_steps():
    for options in (dict(step=2.0), dict(detector_regions=dict(detectors=[DEMO]))):
        with pytest.raises(ValueError, match="are of HM codecs, not of JPEG"):
            tiny.model(codec=dict(type="jpeg", quality=30), **options)
    with pytest.raises(ValueError, match="step must lie from 0.125 to 16, got 20"):
        tiny.model(step=20)


def test_the_map_is_drawn(picture, tmp_path):
    height, width = picture.shape[-2:]
    panels = []
    for options in ({}, dict(detector_regions=dict(detectors=[DEMO], gain=2))):
        model = tiny.model(codec=CODEC, **options).eval()
        model.init_weights()
        (sample,) = model.predict(picture, [tiny.sample(height, width)])
        bgr = (picture[0].flip(0) * 255).byte()
        figure = draw_views(model, bgr, sample)
        assert isinstance(figure, matplotlib.figure.Figure)
        panels.append([ax.get_title() for ax in figure.axes if ax.images])
        figure.savefig(tmp_path / f"{len(panels)}.png")
    assert len(panels[0]) == 6 and len(panels[1]) == 7
    assert "steps, 1.00 (dark) to 0.50" in panels[1]
