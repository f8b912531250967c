"""Data sets that check their files before any long work begins."""

import logging
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.datasets.base_det_dataset import BaseDetDataset
from mmdet.registry import DATASETS
from mmengine.logging import print_log
from PIL import ExifTags, Image
from torch.utils.data import Dataset

from ...io.pictures import OPENCV, find_pictures
from . import drawn

_MAX_OPENED = 2000


@DATASETS.register_module()
class CheckedCocoDataset(CocoDataset):
    """CocoDataset that checks its files when it is made.

    Every picture must exist and have the size that the annotation file states, and up
    to 2000 pictures are opened.

    Raises:
        FileNotFoundError: If the annotation file or a picture is missing.
        ValueError: If the annotation file is not COCO's, or lists other classes than
            ``metainfo``, or in another order; if it gives one id to two pictures, boxes
            that leave their pictures, or categories that it does not list; in training,
            if it lists no picture with objects, or no masks although the pipeline loads
            masks; if a picture is broken or of another size.
    """

    def load_data_list(self) -> list[dict]:
        classes = self.metainfo["classes"]
        if isinstance(classes, str):
            raise ValueError(one_name(self.ann_file, classes))
        if not Path(self.ann_file).is_file():
            raise FileNotFoundError(f"annotation file {self.ann_file} does not exist")
        try:
            data = super().load_data_list()
        except (ValueError, KeyError, TypeError, AssertionError) as e:
            raise ValueError(
                f"{self.ann_file} is not a COCO annotation file: {type(e).__name__} {e}"
            ) from e
        if self._fault:
            raise ValueError(f"{self.ann_file}: {self._fault}")
        objects = [item for record in data for item in record["instances"]]
        if not objects and not self.test_mode:
            raise ValueError(
                f"{self.ann_file} lists no objects of {classes} in its {len(data)} "
                "pictures"
            )
        if self._listed != list(classes):
            raise ValueError(
                f"{self.ann_file} lists of metainfo.classes {list(classes)} these, in "
                f"this order: {self._listed}. Labels are numbered by the file's list: "
                "make both the same (classes without objects do no harm)"
            )
        without = sum("mask" not in item for item in objects)
        if loads_masks(self) and without:
            raise ValueError(
                f"{self.ann_file}: {without} of {len(objects)} objects have no "
                "segmentation; set LoadAnnotations(with_mask=False), or annotate masks"
            )
        paths = [Path(record["img_path"]) for record in data]
        missing = [path for path in paths if not path.is_file()]
        if missing:
            raise FileNotFoundError(
                f"{len(missing)} of {len(paths)} pictures of {self.ann_file} are "
                f"missing, the first is {missing[0]}"
            )
        _check_sizes(self.ann_file, data)
        _open_some(paths)
        return data

    def COCOAPI(self, path: str) -> COCO:  # CocoDataset calls it as its class attribute
        coco = CocoDataset.COCOAPI(path)
        ids = coco.get_cat_ids(cat_names=self.metainfo["classes"])
        self._listed = [coco.cats[number]["name"] for number in ids]
        self._fault = _find_fault(coco.dataset)
        annotations = coco.dataset.get("annotations", ())
        unlisted = sum(a["image_id"] not in coco.imgs for a in annotations)
        if unlisted:
            print_log(
                f"{path}: {unlisted} annotations are of pictures that it does "
                "not list, and are left out",
                "current",
                logging.WARNING,
            )
        return coco


_BEYOND = 2
"""Pixels by which a box may leave its picture."""


def _find_fault(content: dict) -> str:
    """Returns what in a COCO file would be misread; an empty text if nothing would."""
    images: dict = {}
    for image in content["images"]:
        other = images.setdefault(image["id"], image)
        if other is not image:
            return (
                f"two pictures have the id {image['id']}, {other['file_name']} and "
                f"{image['file_name']}: boxes of one would stand on the other. Give "
                "each an id of its own, in images and annotations"
            )
    listed = {category["id"]: category["name"] for category in content["categories"]}
    annotations = content.get("annotations", ())  # a list of pictures to test has none
    annotations = [a for a in annotations if a["image_id"] in images]
    numbers = (a["category_id"] for a in annotations)
    unlisted = Counter(number for number in numbers if number not in listed)
    if unlisted:
        ids = ", ".join(f"{key} ({count})" for key, count in sorted(unlisted.items()))
        return (
            f"{unlisted.total()} annotations have a category_id that categories does "
            f"not list: {ids}. Listed are {listed}; are the ids shifted?"
        )
    boxes = [(a["bbox"], images[a["image_id"]]) for a in annotations if a.get("bbox")]
    outside = [pair for pair in boxes if _leaves_picture(*pair)]
    if len(outside) >= 3 and len(outside) > 0.05 * len(boxes):
        box, image = outside[0]
        return (
            f"{len(outside)} of {len(boxes)} boxes leave their pictures, the first is "
            f"{box} in {image['file_name']} of {image['width']}x{image['height']}: are "
            "they x, y, width, height?"
        )
    return ""


def _leaves_picture(box: list[float], image: dict) -> bool:
    left, top, width, height = box
    return (
        min(left, top) < -_BEYOND
        or left + width > image["width"] + _BEYOND
        or top + height > image["height"] + _BEYOND
    )


_SECONDS = 10
"""Time limit for comparing sizes. A local disk needs 1 second for 10000 pictures."""

_SIDEWAYS = range(5, 9)
"""EXIF orientations that OpenCV, which reads the pictures, turns by 90 degrees."""


def _check_sizes(ann_file: str, data: list[dict]) -> None:
    """Compares stated sizes with the files' headers, as many as 10 seconds allow."""
    differing, end = [], time.monotonic() + _SECONDS
    for count, record in enumerate(random.Random(0).sample(data, len(data)), 1):
        try:
            with Image.open(record["img_path"]) as picture:
                width, height = picture.size
                if picture.getexif().get(ExifTags.Base.Orientation) in _SIDEWAYS:
                    width, height = height, width
        except (OSError, SyntaxError) as e:
            raise ValueError(f"picture {record['img_path']} is broken: {e}") from e
        if (width, height) != (record["width"], record["height"]):
            differing.append((record, width, height))
        if time.monotonic() > end and count < len(data):
            print_log(
                f"{ann_file}: the sizes of {count} of {len(data)} pictures were "
                "compared with the files', which are slow to read",
                "current",
                logging.WARNING,
            )
            break
    if differing:
        record, width, height = min(differing, key=lambda item: item[0]["img_path"])
        raise ValueError(
            f"{ann_file}: {len(differing)} of {count} pictures have another size "
            f"than it states. The first is {record['img_path']}, stated are "
            f"{record['width']}x{record['height']}, the file has {width}x{height}: the "
            "boxes would stand elsewhere"
        )


def one_name(what: str, classes: str) -> str:
    """Returns the error message for ``classes=("kite")``, which lacks a comma.

    Args:
        what: The file or data set that is wrong.
        classes: The text that was given for the list of classes.
    """
    return (
        f"{what}: metainfo.classes must be a list of names or a file of them, got "
        f"{classes!r}; of one class it is ({classes!r},)"
    )


def loads_masks(dataset: Dataset) -> bool | None:
    """Returns whether a pipeline loads masks; None if it loads no annotations.

    Args:
        dataset: The data set.
    """
    steps = getattr(getattr(dataset, "pipeline", None), "transforms", ())
    loads = [step.with_mask for step in steps if hasattr(step, "with_mask")]
    return any(loads) if loads else None


def _open_some(paths: list[Path]) -> None:
    for path in paths[:: -(-len(paths) // _MAX_OPENED)]:
        try:
            with Image.open(path) as picture:
                picture.draft("RGB", (1, 1))  # JPEG: decodes an eighth of the size
                picture.load()
        except (OSError, SyntaxError) as e:
            raise ValueError(f"picture {path} is broken: {e}") from e


@DATASETS.register_module()
class PictureFolder(BaseDetDataset):
    """All pictures in folders and their subfolders, without labels.

    Pictures are recognized by the content of a file, not by its name. Hidden files are
    left out, and links are followed.

    Args:
        folders: One folder or several.
        **kwargs: Arguments of BaseDetDataset, such as ``pipeline``.

    Raises:
        FileNotFoundError: If a folder does not exist or holds no pictures.
        ValueError: If a picture is broken.
    """

    def __init__(self, folders: str | list[str], **kwargs: Any):
        self.folders = [folders] if isinstance(folders, str) else list(folders)
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        if not self.folders:
            raise FileNotFoundError("PictureFolder needs folders, got none")
        paths: list[Path] = []
        for folder in self.folders:
            pictures = list(find_pictures(folder, OPENCV))
            if not pictures:
                raise FileNotFoundError(f"there are no pictures in {folder}")
            paths += pictures
        missing = [path for path in paths if not path.is_file()]
        if missing:
            raise FileNotFoundError(
                f"{missing[0]} is a link to {missing[0].readlink()}, which is missing"
            )
        _open_some(paths)
        return [
            {"img_id": number, "img_path": str(path), "instances": []}
            for number, path in enumerate(paths)
        ]

    def get_data_info(self, idx: int) -> dict:
        data = super().get_data_info(idx)
        with Image.open(data["img_path"]) as picture:  # only the header is read
            data["width"], data["height"] = picture.size  # for AspectRatioBatchSampler
        return data

    def filter_data(self) -> list[dict]:
        return self.data_list


@DATASETS.register_module()
class DrawnCocoDataset(CheckedCocoDataset):
    """The default data set: drawn pictures, made under ``data_root`` if absent.

    Args:
        num_train: Number of training pictures. Defaults to 400.
        num_val: Number of validation pictures. Defaults to 100.
        seed: The same seed draws the same set. Defaults to 0.
        **kwargs: Arguments of CocoDataset.
    """

    METAINFO = {
        "classes": tuple(drawn.CATEGORIES.values()),
        "palette": [
            (220, 20, 60),
            (0, 82, 0),
            (0, 0, 230),
            (120, 166, 157),
            (255, 179, 0),
            (110, 76, 0),
            (174, 57, 255),
            (0, 220, 176),
        ],
    }

    def __init__(
        self,
        *args: Any,
        data_root: str,
        num_train: int = 400,
        num_val: int = 100,
        seed: int = 0,
        lazy_init: bool = False,
        **kwargs: Any,
    ):
        if not lazy_init:
            drawn.make_coco(data_root, num_train, num_val, seed)
        super().__init__(*args, data_root=data_root, lazy_init=lazy_init, **kwargs)
