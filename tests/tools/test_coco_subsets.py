import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ..io.test_pictures import SWAPPED

TOOL = runpy.run_path(str(Path(__file__).parents[2] / "tools/coco_subsets.py"))
CATEGORIES = [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}]


@pytest.fixture
def coco(tmp_path):
    """Three pictures of 40x30 in each split, and lists of them."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        folder = tmp_path / f"coco/{split}2017"
        folder.mkdir(parents=True)
        images, annotations = [], []
        for number in (1, 2, 3):
            name = f"{number:012d}.jpg"
            pixels = rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)
            # A profile that OpenCV, which reads the other sets, ignores.
            Image.fromarray(pixels).save(folder / name, icc_profile=SWAPPED)
            images.append({"id": number, "file_name": name, "width": 40, "height": 30})
            for category, box in (
                (1, [4, 4, 20, 20]),
                (1, [0, 0, 12, 12]),
                (3, [1] * 4),
            ):
                annotations.append(
                    {"id": len(annotations), "image_id": number, "iscrowd": 0,
                     "category_id": category, "bbox": box, "area": 9}
                )  # fmt: skip
        truth = {
            "images": images,
            "annotations": annotations,
            "categories": CATEGORIES,
        }
        path = tmp_path / f"coco/annotations/instances_{split}2017.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(truth))
    lists = tmp_path / "lists.json"
    lists.write_text(
        json.dumps(
            {
                "train": [2],
                "val": [1, 2],
                "person_val": [1],
                "person_train": {"3": [8, 10, 24, 16]},
                "person_more": [2],
                "person_more_val": [1],
                "person_test": [1],
            }
        )
    )
    return tmp_path / "coco", tmp_path / "out", lists


def test_the_sets_are_built(coco):
    root, out, lists = coco
    for _ in range(2):  # again, over what is there
        TOOL["build"](root, out, lists)
    names = sorted(str(p.relative_to(out)) for p in out.rglob("*.*"))
    assert names == [
        "annotations/instances_train2017.json",
        "annotations/instances_val2017.json",
        "person/annotations/person_train.json",
        "person/annotations/person_val.json",
        "person/annotations/whole_test.json",
        "person/annotations/whole_train.json",
        "person/annotations/whole_val.json",
        "person/train/000000000003.png",
        "person/whole_test/000000000001.jpg",
        "person/whole_train/000000000002.jpg",
        "person/whole_train/000000000003.jpg",
        "person/whole_val/000000000001.jpg",
        "train2017/000000000002.jpg",
        "val2017/000000000001.jpg",
        "val2017/000000000002.jpg",
    ]
    whole = np.array(Image.open(root / "val2017/000000000003.jpg"))
    crop = np.array(Image.open(out / "person/train/000000000003.png"))
    assert (crop == whole[10:26, 8:32]).all()
    truth = json.loads((out / "person/annotations/person_train.json").read_text())
    assert truth["images"][0]["crop"] == [8, 10, 24, 16]
    boxes = [(a["bbox"], a["iscrowd"]) for a in truth["annotations"]]
    assert boxes == [([0, 0, 16, 14], 0), ([0, 0, 4, 2], 1)]
    truth = json.loads((out / "person/annotations/person_val.json").read_text())
    assert {a["category_id"] for a in truth["annotations"]} == {1}
    assert [c["name"] for c in truth["categories"]] == ["person"]
    truth = json.loads((out / "person/annotations/whole_train.json").read_text())
    assert [image["id"] for image in truth["images"]] == [2, 3]
    boxes = [a["bbox"] for a in truth["annotations"] if a["image_id"] == 3]
    assert boxes == [[4, 4, 20, 20], [0, 0, 12, 12]]


def test_another_coco_is_refused(coco):
    root, out, lists = coco
    subsets = json.loads(lists.read_text())
    lists.write_text(json.dumps({**subsets, "val": [1, 9]}))
    with pytest.raises(ValueError, match="1 pictures are not listed"):
        TOOL["build"](root, out, lists)


def test_the_shipped_lists_do_not_mix():
    lists = json.loads(TOOL["LISTS"].read_text())
    assert [len(lists[k]) for k in ("person_train", "person_val", "train", "val")] == [
        1000,
        136,
        220,
        230,
    ]
    assert len(lists["person_more"]) == 200 and len(lists["person_more_val"]) == 300
    assert set(lists["person_val"]) <= set(lists["val"])
    crops, more, more_val, test = (
        set(map(int, lists[k]))
        for k in ("person_train", "person_more", "person_more_val", "person_test")
    )
    assert not crops & set(lists["val"])
    assert not (crops | more) & more_val
    assert not (more | more_val) & set(lists["val"])
    assert len(test) == 500
    assert not test & (crops | more | more_val | set(lists["val"]))
