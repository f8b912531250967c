"""Detectors that are given decoded pictures, as a sweep's sets name them."""

import json
from functools import lru_cache

from mmdet.registry import MODELS
from mmdet.structures.mask import encode_mask_results
from mmengine.registry import init_default_scope
from torch import Tensor

from ...detection import DetectorView
from ...detection.build import detector_config, load_detector


class SweepDetector:
    """A detector with its own test pipeline after the decoder.

    Args:
        config: MMDetection's: a file, a name such as "mmdet::yolox/...", or a dict
            with ``model`` and ``test_pipeline``.
        checkpoint: Its weights.
        device: Where it computes.
    """

    def __init__(self, config: str | dict, checkpoint: str, device: str = "cpu"):
        init_default_scope("mmdet")
        cfg, resize = detector_config(config, None)
        self.model = MODELS.build(cfg).eval()
        self.classes = load_detector(self.model, checkpoint)
        self.model.to(device)
        self.view = DetectorView(**resize)

    def detect(
        self, picture: Tensor, number: int, categories: list[int | None]
    ) -> list[dict]:
        """COCO results on an 8-bit picture.

        Args:
            picture: RGB, ``(1, 3, H, W)``.
            number: Its id.
            categories: COCO's category of each label; None drops it.

        Raises:
            ValueError: If the detector has more labels than that.
        """
        found = self.view.detect(self.model, picture[0].float() / 255, number)
        out = []
        for i in range(len(found)):
            label = int(found.labels[i])
            if label >= len(categories):
                raise ValueError(
                    f"the detector found label {label}, but its classes are "
                    f"{len(categories)}: say classes=... (names, or 'coco') beside its "
                    "config"
                )
            if categories[label] is None:
                continue
            left, top, right, bottom = found.bboxes[i].tolist()
            record = {
                "image_id": number,
                "category_id": categories[label],
                "bbox": [left, top, right - left, bottom - top],
                "score": float(found.scores[i]),
            }
            if "masks" in found:
                (mask,) = encode_mask_results([found.masks[i].numpy()])
                record["segmentation"] = {**mask, "counts": mask["counts"].decode()}
            out.append(record)
        return out


def build_detector(entry: dict, device: str = "cpu") -> SweepDetector:
    """The detector of a set's entry, made once in a process.

    Args:
        entry: With ``config`` and ``checkpoint``.
        device: Where it computes.
    """
    return _built_detector(json.dumps(entry["config"]), entry["checkpoint"], device)


@lru_cache
def _built_detector(config: str, checkpoint: str, device: str) -> SweepDetector:
    return SweepDetector(json.loads(config), checkpoint, device)


def forget_detectors() -> None:
    """Has weights read anew: their files may have changed."""
    _built_detector.cache_clear()
