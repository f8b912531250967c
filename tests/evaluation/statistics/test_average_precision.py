import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from pycocotools.mask import encode

from compressai_hm.evaluation.statistics.average_precision import Matches

PICTURES = [7, 3, 12, 5, 20]


def drawn(seed=0, pictures=PICTURES):
    """Truth and detections that sometimes hit."""
    rng = np.random.default_rng(seed)
    annotations, detections = [], []
    for picture in pictures:
        for _ in range(rng.integers(1, 7)):
            box = [*rng.uniform(0, 80, 2), *rng.uniform(10, 40, 2)]
            category = int(rng.integers(1, 4))
            annotations.append(
                dict(
                    id=len(annotations) + 1, image_id=picture, category_id=category,
                    bbox=box, area=box[2] * box[3], iscrowd=int(rng.random() < 0.15),
                )
            )  # fmt: skip
            for _ in range(rng.integers(0, 4)):
                moved = np.array(box) + rng.normal(0, 3, 4)
                detections.append(
                    dict(
                        image_id=picture, category_id=category,
                        bbox=moved.tolist(), score=float(rng.random()),
                    )
                )  # fmt: skip
    truth = COCO()
    truth.dataset = {
        "images": [dict(id=p, width=128, height=128) for p in pictures],
        "annotations": annotations,
        "categories": [dict(id=i, name=str(i)) for i in (1, 2, 3)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
    return truth, detections


def pycocotools(truth, detections, pictures, kind="bbox", which=0):
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(detections), kind)
        evaluation.params.imgIds = pictures
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[which]


@pytest.mark.parametrize("seed", range(5))
def test_it_is_pycocotools_figure(seed):
    truth, detections = drawn(seed)
    matches = Matches(truth, detections, PICTURES, [1, 2, 3])
    expected = pycocotools(truth, detections, PICTURES)
    assert matches.average_precision()[0] == pytest.approx(expected, abs=1e-12)
    assert expected > 0.05


@pytest.mark.parametrize("which, size", [(3, "small"), (4, "medium")])
def test_it_is_pycocotools_figure_by_size(which, size):
    truth, detections = drawn(0)
    matches = Matches(truth, detections, PICTURES, [1, 2, 3], sizes=size)
    expected = pycocotools(truth, detections, PICTURES, which=which)
    assert matches.average_precision()[0] == pytest.approx(expected, abs=1e-12)
    assert expected > 0.05
    large = Matches(truth, detections, PICTURES, [1, 2, 3], sizes="large")
    assert np.isnan(large.average_precision()[0])


@pytest.mark.parametrize("seed", range(3))
def test_weights_are_repeated_pictures(seed):
    truth, detections = drawn(seed)
    matches = Matches(truth, detections, PICTURES, [1, 2, 3])
    weights = np.array([[1, 1, 0, 1, 0], [0, 1, 1, 1, 1.0]])
    some = [[p for p, w in zip(PICTURES, row, strict=True) if w] for row in weights]
    for value, pictures in zip(matches.average_precision(weights), some, strict=True):
        assert value == pytest.approx(pycocotools(truth, detections, pictures))
    doubled = matches.average_precision(2 * weights)
    assert doubled == pytest.approx(matches.average_precision(weights))


def test_nothing_found_is_zero():
    truth, _ = drawn()
    matches = Matches(truth, [], PICTURES, [1, 2, 3])
    assert matches.average_precision()[0] == 0


def as_masks(boxes):
    """Each box as a mask of its own."""
    out = []
    for box in boxes:
        mask = np.zeros((128, 128), np.uint8, order="F")
        left, top, width, height = np.clip(box["bbox"], 0, 127).astype(int)
        mask[top : top + height, left : left + width] = 1
        out.append({**box, "segmentation": encode(mask)})
    return out


def test_masks_too():
    truth, detections = drawn()
    truth.dataset["annotations"] = as_masks(truth.dataset["annotations"])
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
    detections = as_masks(detections)
    matches = Matches(truth, detections, PICTURES, [1, 2, 3], "segm")
    expected = pycocotools(truth, detections, PICTURES, "segm")
    assert matches.average_precision()[0] == pytest.approx(expected, abs=1e-12)
    boxes = pycocotools(truth, detections, PICTURES)
    assert 0.05 < expected != pytest.approx(boxes)
