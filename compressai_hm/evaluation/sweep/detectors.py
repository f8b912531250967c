"""Detectors of a sweep's sets, which take decoded pictures."""

import json
from functools import lru_cache

from mmdet.registry import MODELS
from mmdet.structures.mask import encode_mask_results
from mmengine.registry import init_default_scope
from torch import Tensor

from ...detection import DetectorView
from ...detection.configs import detector_config
from ...detection.load import load_detector


class SweepDetector:
    """A detector with its test pipeline.

    Args:
        config: MMDetection config: a file, a name such as "mmdet::yolox/...", or a dict
            with ``model`` and ``test_pipeline``.
        checkpoint: File of its weights.
        device: Device of the detector. Defaults to "cpu".
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
        """Detects objects in an 8-bit picture.

        Args:
            picture: RGB, uint8, ``(1, 3, H, W)``.
            number: Id of the picture.
            categories: Category id of each label; None drops the label.

        Returns:
            Detections in COCO's results format.

        Raises:
            ValueError: If the detector has more labels than ``categories``.
        """
        instances = self.view.detect(self.model, picture[0].float() / 255, number)
        out = []
        for i in range(len(instances)):
            label = int(instances.labels[i])
            if label >= len(categories):
                raise ValueError(
                    f"the detector found label {label}, but its classes are "
                    f"{len(categories)}: say classes=... (names, or 'coco') beside its "
                    "config"
                )
            if categories[label] is None:
                continue
            left, top, right, bottom = instances.bboxes[i].tolist()
            record = {
                "image_id": number,
                "category_id": categories[label],
                "bbox": [left, top, right - left, bottom - top],
                "score": float(instances.scores[i]),
            }
            if "masks" in instances:
                (mask,) = encode_mask_results([instances.masks[i].numpy()])
                record["segmentation"] = {**mask, "counts": mask["counts"].decode()}
            out.append(record)
        return out


def build_detector(entry: dict, device: str = "cpu") -> SweepDetector:
    """Returns the detector of a set's entry, which is built once in a process.

    Args:
        entry: Dict with ``config`` and ``checkpoint``.
        device: Device of the detector. Defaults to "cpu".
    """
    return _build_detector(json.dumps(entry["config"]), entry["checkpoint"], device)


@lru_cache
def _build_detector(config: str, checkpoint: str, device: str) -> SweepDetector:
    return SweepDetector(json.loads(config), checkpoint, device)


def forget_detectors() -> None:
    """Clears the cache, so that weights are read again if their files have changed."""
    _build_detector.cache_clear()
