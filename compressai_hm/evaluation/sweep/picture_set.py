"""The pictures of a set, and the objects in them."""

import contextlib
import io
import zlib
from pathlib import Path

from ... import detection  # noqa: F401, before mmdet: offers mmcv's ops

# isort: split
import mmcv
import numpy as np
import torch
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.registry import init_default_scope
from pycocotools.coco import COCO
from torch import Tensor

from ...detection.configs import detector_config
from ...io.pictures import OPENCV, find_pictures
from .config_checks import check_keys
from .digests import file_digest, value_digest


class PictureSet:
    """The pictures of a set, in a fixed order, and the objects in them.

    Args:
        entry: Dict with ``name``, and ``pictures`` (a folder) or ``dataset`` (an
            MMDetection data set config in COCO's format) with ``detectors``. With
            ``count`` the set has the first pictures only.

    Raises:
        ValueError: If the entry is wrong or there are no pictures.
    """

    def __init__(self, entry: dict):
        name = entry["name"]
        keys = {"name", "pictures", "dataset", "detectors", "count"}
        check_keys(f"set {name!r}", entry, keys)
        if ("pictures" in entry) == ("dataset" in entry):
            raise ValueError(f"set {name!r} needs pictures or dataset, and not both")
        self.truth, self.classes, self.categories = None, (), []
        if "dataset" in entry:
            init_default_scope("mmdet")
            with contextlib.redirect_stdout(io.StringIO()):
                dataset = DATASETS.build({**entry["dataset"], "test_mode": True})
                self.truth = COCO(dataset.ann_file)
            self.classes, self.categories = dataset.metainfo["classes"], dataset.cat_ids
            data = (dataset.get_data_info(i) for i in range(len(dataset)))
            pictures = sorted((d["img_id"], Path(d["img_path"])) for d in data)
        else:
            folder = Path(entry["pictures"])
            if not folder.is_dir():
                raise ValueError(f"set {name!r}: {folder} is no folder")
            if entry.get("detectors"):
                raise ValueError(f"set {name!r}: detectors need a dataset")
            pictures = list(enumerate(find_pictures(folder, OPENCV, deep=False)))
        self.pictures: list[tuple[int, Path]] = pictures[: entry.get("count")]
        if not self.pictures:
            raise ValueError(f"set {name!r} holds no pictures")
        self.digests = {p: zlib.crc32(p.read_bytes()) for _, p in self.pictures}
        self.detectors = list(entry.get("detectors", ()))
        keys = {"name", "config", "checkpoint", "classes"}
        for detector in self.detectors:
            check_keys(f"a detector of set {name!r}", detector, keys)

    def digest(self) -> str:
        """Returns 8 characters that differ for other pictures, objects or detectors."""
        truth = self.truth.dataset if self.truth else None
        detectors = [
            [
                d["name"],
                detector_config(d["config"], None),
                file_digest(d["checkpoint"]),
            ]
            for d in self.detectors
        ]
        pictures = [(n, p.name, self.digests[p]) for n, p in self.pictures]
        return value_digest([pictures, truth, self.categories, detectors])

    def boxes(self, number: int) -> Tensor | None:
        """Returns the boxes of the objects in a picture.

        Args:
            number: Id of the picture.

        Returns:
            ``(n, 4)``: left, top, right, bottom in pixels; None in a set without
            objects.
        """
        if self.truth is None:
            return None
        ids = self.truth.getAnnIds(imgIds=[number], catIds=self.categories)
        boxes = [annotation["bbox"] for annotation in self.truth.loadAnns(ids)]
        out = torch.tensor([b for b in boxes if b[2] > 0 and b[3] > 0]).reshape(-1, 4)
        out[:, 2:] += out[:, :2]
        return out

    def map_categories(
        self, detector: dict, trained_for: tuple[str, ...] | None = None
    ) -> list[int | None]:
        """Maps a detector's labels to the set's categories.

        Args:
            detector: The set's entry of the detector. Its ``classes`` name the labels.
            trained_for: Names of the labels in the detector's checkpoint, used without
                ``classes``. Defaults to the set's classes.

        Returns:
            The category id of each label; None for labels that the set lacks.

        Raises:
            ValueError: If the set has none of the labels.
        """
        names = detector.get("classes", trained_for or self.classes)
        if names == "coco":
            names = CocoDataset.METAINFO["classes"]
        categories = self.truth.loadCats(self.categories)
        ids = {category["name"]: category["id"] for category in categories}
        if not ids.keys() & set(names):
            raise ValueError(
                f"detector {detector['name']!r} knows {list(names)}, and the set only "
                f"{list(ids)}: give it classes=... (names, or 'coco')"
            )
        return [ids.get(name) for name in names]


def read_picture(path: Path) -> Tensor:
    """Reads a picture like MMDetection.

    Args:
        path: File in one of OpenCV's formats.

    Returns:
        RGB, uint8, ``(1, 3, H, W)``.

    Raises:
        ValueError: If OpenCV cannot read the file.
    """
    picture = mmcv.imread(path, flag="color")
    if picture is None:
        raise ValueError(f"{path} is not a readable picture")
    picture = np.ascontiguousarray(picture[..., ::-1])
    return torch.from_numpy(picture).permute(2, 0, 1)[None]
