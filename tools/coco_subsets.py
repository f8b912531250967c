"""Builds from COCO 2017 the sets on which the package's weights were trained.

    python tools/coco_subsets.py data/coco data/coco_small
    export MMDET_DATASETS=data/coco_small COCO_PERSON=data/coco_small/person

mmdet_configs/_base_/datasets/coco_subsets.json lists COCO ids and crops. For training
codecs there are 1000 crops with people (of val2017, none of them a validation picture)
and 220 pictures; for validation, 136 whole pictures with people and 230 with all
classes. The person detector has 1200 whole pictures for training, among them those of
the crops, and 300 for validation. 500 other pictures are for a single final test.

The original sets counted every box, also a crowd's, as one person (9 of 459 boxes in
the 220 of train2017). The sets that are built here ignore crowds, as COCO's files do,
so results on them differ a little.
"""

import io
import json
from itertools import chain
from pathlib import Path

import _command
from PIL import Image, ImageOps
from tqdm import tqdm

from compressai_hm.io.files import write_whole

LISTS = Path(__file__).parents[1] / "mmdet_configs/_base_/datasets/coco_subsets.json"
PERSON = {"id": 1, "name": "person", "supercategory": "person"}
VISIBLE = 0.25
"""A box that a crop cuts to less than this share is ignored (iscrowd)."""


def main() -> None:
    """Builds the sets."""
    parser = _command.parser(__doc__)
    text = "folder with train2017, val2017 and annotations"
    parser.add_argument("coco", type=Path, help=text)
    parser.add_argument("out", type=Path, help="folder for the sets")
    args = parser.parse_args()
    try:
        build(args.coco, args.out)
    except (OSError, ValueError, KeyError) as e:
        raise ValueError(f"{args.coco} is not COCO 2017 as expected: {e}") from e
    print(f"export MMDET_DATASETS={args.out} COCO_PERSON={args.out / 'person'}")


def build(coco: Path, out: Path, lists: Path = LISTS) -> None:
    """Writes the sets in the layout of the data set configs.

    Args:
        coco: Folder of COCO 2017 in MMDetection's layout.
        out: Folder for the sets; files that exist are kept.
        lists: JSON file of ids and crops.

    Raises:
        FileNotFoundError: If a picture or annotation file is missing.
    """
    subsets = json.loads(lists.read_text(encoding="utf-8"))
    for split in ("train", "val"):
        name = f"instances_{split}2017.json"
        truth = json.loads((coco / "annotations" / name).read_text(encoding="utf-8"))
        chosen = _select(truth, subsets[split])
        _write(chosen, out / "annotations" / name)
        folder = f"{split}2017"
        for image in tqdm(chosen["images"], desc=folder):
            _copy(coco / folder, out / folder, image["file_name"])
    whole = {
        "whole_train": [*map(int, subsets["person_train"]), *subsets["person_more"]],
        "whole_val": subsets["person_more_val"],
        "whole_test": subsets["person_test"],
    }
    people = {
        **_select(truth, [*subsets["person_val"], *chain(*whole.values())]),
        "categories": [PERSON],
    }
    people["annotations"] = [a for a in people["annotations"] if a["category_id"] == 1]
    annotations = out / "person/annotations"
    _write(_select(people, subsets["person_val"]), annotations / "person_val.json")
    crops = _crop_annotations(people, subsets["person_train"])
    _write(crops, annotations / "person_train.json")
    for name, numbers in whole.items():
        _write(_select(people, numbers), annotations / f"{name}.json")
        for number in tqdm(numbers, desc=f"person/{name}"):
            _copy(coco / "val2017", out / "person" / name, f"{number:012d}.jpg")
    for number, (left, top, width, height) in tqdm(
        subsets["person_train"].items(), desc="person/train"
    ):
        source = coco / "val2017" / f"{int(number):012d}.jpg"
        target = out / "person/train" / f"{int(number):012d}.png"
        if not target.exists():
            _crop(source, (left, top, left + width, top + height), target)


def _copy(source: Path, target: Path, name: str) -> None:
    if not (target / name).exists():
        target.mkdir(parents=True, exist_ok=True)
        write_whole((source / name).read_bytes(), target / name)


def _crop(source: Path, box: tuple[int, int, int, int], target: Path) -> None:
    """Writes the pixels that MMDetection reads: upright, without a color profile."""
    with Image.open(source) as image, io.BytesIO() as f:
        ImageOps.exif_transpose(image).convert("RGB").crop(box).save(f, "PNG")
        write_whole(f.getvalue(), target)


def _select(truth: dict, ids: list[int]) -> dict:
    """Returns the annotations of some pictures."""
    ids = set(ids)
    images = [image for image in truth["images"] if image["id"] in ids]
    if len(images) != len(ids):
        raise ValueError(f"{len(ids) - len(images)} pictures are not listed")
    return {
        "images": images,
        "annotations": [a for a in truth["annotations"] if a["image_id"] in ids],
        "categories": truth["categories"],
    }


def _crop_annotations(people: dict, crops: dict[str, list[int]]) -> dict:
    images = [
        {
            "id": int(number),
            "file_name": f"{int(number):012d}.png",
            "width": crop[2],
            "height": crop[3],
            "crop": crop,
        }
        for number, crop in crops.items()
    ]
    annotations = []
    for annotation in people["annotations"]:
        crop = crops.get(str(annotation["image_id"]))
        box = _crop_box(annotation["bbox"], crop) if crop else None
        if box:
            area = annotation["bbox"][2] * annotation["bbox"][3]
            ignored = annotation["iscrowd"] or box[2] * box[3] < VISIBLE * area
            annotations.append(
                {
                    "id": annotation["id"],
                    "image_id": annotation["image_id"],
                    "category_id": 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(ignored),
                }
            )
    return {"images": images, "annotations": annotations, "categories": [PERSON]}


def _crop_box(box: list[float], crop: list[int]) -> list[float] | None:
    """Returns a box in the coordinates of a crop; None if it is outside."""
    left, top = max(box[0], crop[0]), max(box[1], crop[1])
    right = min(box[0] + box[2], crop[0] + crop[2])
    bottom = min(box[1] + box[3], crop[1] + crop[3])
    if right <= left or bottom <= top:
        return None
    return [left - crop[0], top - crop[1], right - left, bottom - top]


def _write(content: dict, path: Path) -> None:
    write_whole(json.dumps(content).encode(), path)


if __name__ == "__main__":
    _command.run(main, "stopped; the same command continues")
