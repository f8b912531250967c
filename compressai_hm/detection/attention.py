"""Attention: what detectors find in a picture gets more of its bits, at the encoder.

The stream says by itself where its steps are finer; no weights change, and whoever
reads it, another detector or people, needs nothing of this.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmdet.datasets import CocoDataset
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor

from ..codecs.human_machine import Y_STRIDE
from ..codecs.regions import importance_of_mask, map_of_importance
from .build import classes_named_by
from .frozen_detector import FrozenDetector

_KEYS = {"config", "checkpoint", "classes"}


class Attention:
    """Finds where bits matter.

    Args:
        detectors: Of MMDetection, each ``dict(config=..., checkpoint=...)``: a model
            config, a whole config or the name of one ("mmdet::yolox/..."), and weights;
            with ``classes`` (names, or "coco") where neither weights nor config say
            them. What any of them finds counts.
        gain: The step elsewhere over that at objects. Defaults to 2.0.
        margin: Pixels around an object that belong to it. Defaults to 8.
        score_thr: Objects from this score up. Defaults to 0.3.
        only: Names of the classes that count. Defaults to None, all.

    Raises:
        ValueError: If an entry lacks something, or names what is no detector.
    """

    def __init__(
        self,
        detectors: Sequence[dict],
        gain: float = 2.0,
        margin: float = 8.0,
        score_thr: float = 0.3,
        only: Sequence[str] | None = None,
    ):
        if isinstance(detectors, dict) or not detectors:
            raise ValueError(
                "attention.detectors must be a list of dict(config=..., "
                f"checkpoint=...), got {detectors!r}"
            )
        if not 1 <= gain < float("inf"):
            raise ValueError(f"attention.gain must be 1 or more, got {gain}")
        if not 0 <= margin < float("inf"):
            raise ValueError(f"attention.margin must be 0 or more, got {margin}")
        if isinstance(only, str):
            raise ValueError(f"attention.only must be a list of names, got {only!r}")
        self.gain, self.margin = float(gain), float(margin)
        self.score_thr, self.only = score_thr, only
        self.detectors = [_built(entry) for entry in detectors]
        self._entries = list(detectors)
        self._wanted: list[set[int] | None] | None = None

    def load(self) -> None:
        """Reads the detectors' weights, once.

        Raises:
            FileNotFoundError: If there are none.
            RuntimeError: If they are of another model.
            ValueError: If a class that counts is none of a detector's.
        """
        if self._wanted is None:
            for own in self.detectors:
                own.load()
                own.module.eval()
            self._wanted = [
                _labels(own, entry, self.only)
                for own, entry in zip(self.detectors, self._entries, strict=True)
            ]

    def steps(self, x: Tensor, step: float = 1.0) -> Tensor:
        """A map of steps for ``compress`` and ``encode``.

        Args:
            x: One picture, RGB in [0, 1], ``(1, 3, H, W)``.
            step: Where nothing is found.

        Returns:
            ``(ceil(H / 16), ceil(W / 16))``.
        """
        return map_of_importance(self.importance(x), self.gain, step)

    @torch.no_grad()
    def importance(self, x: Tensor) -> Tensor:
        """1 where something is found and 0 elsewhere.

        Args:
            x: One picture, RGB in [0, 1], ``(1, 3, H, W)``.

        Returns:
            ``(ceil(H / 16), ceil(W / 16))``, on the CPU.
        """
        self.load()
        size = tuple(x.shape[-2:])
        out = torch.zeros(tuple(-(-side // Y_STRIDE) for side in size))
        for own, wanted in zip(self.detectors, self._wanted, strict=True):
            found = own.view.detect(own.on(x.device), x[0])
            found = found[found.scores >= self.score_thr]
            if wanted is not None:
                keep = [int(label) in wanted for label in found.labels]
                found = found[torch.tensor(keep, dtype=torch.bool)]
            out = torch.maximum(out, importance_of(found, size, self.margin))
        return out


def importance_of(
    found: InstanceData, size: tuple[int, int], margin: float = 0.0
) -> Tensor:
    """1 in each block of 16x16 pixels that an object, with its margin, touches.

    Args:
        found: With ``bboxes``, ``(n, 4)`` in pixels, or also ``masks``, ``(n, H, W)``,
            which count in their place.
        size: (H, W) of the picture.
        margin: Pixels around each object.

    Returns:
        ``(ceil(H / 16), ceil(W / 16))``, float32.
    """
    rows, cols = (Y_STRIDE * torch.arange(-(-side // Y_STRIDE)) for side in size)
    if "masks" in found:
        mask = torch.as_tensor(found.masks).any(0) if len(found) else torch.zeros(size)
        reach = int(margin)
        grown = F.max_pool2d(mask[None, None].float(), 2 * reach + 1, 1, reach)
        return importance_of_mask(grown[0, 0])
    left, top, right, bottom = found.bboxes.double().T[..., None]
    inside = [
        (first - margin < start + Y_STRIDE) & (last + margin > start)
        for first, last, start in ((top, bottom, rows), (left, right, cols))
    ]
    return (inside[0][:, :, None] & inside[1][:, None]).any(0).float()


def _built(entry: dict) -> FrozenDetector:
    if set(entry) - _KEYS or not {"config", "checkpoint"} <= set(entry):
        raise ValueError(
            "attention.detectors takes dict(config=..., checkpoint=..., classes=...), "
            f"got {dict(entry)}"
        )
    init_default_scope("mmdet")
    own = FrozenDetector(entry["config"], entry["checkpoint"], None)
    if "codec" in own.cfg:
        raise ValueError(
            f"attention: {entry['config']} is a codec with a detector: give the "
            "detector's own config"
        )
    own.build()
    return own


def _labels(
    own: FrozenDetector, entry: dict, only: Sequence[str] | None
) -> set[int] | None:
    """The labels that count; None for all."""
    if only is None:
        return None
    names = entry.get("classes") or own.classes
    if names is None:
        counts = {getattr(part, "num_classes", 0) for part in own.module.modules()}
        names = classes_named_by(entry["config"], max(counts))
    elif names == "coco":
        names = CocoDataset.METAINFO["classes"]
    if names is None:
        raise ValueError(
            f"attention.only={list(only)}: {own.checkpoint} does not name its classes, "
            "nor does its config; say classes=... (names, or 'coco') beside them"
        )
    unknown = sorted(set(only) - set(names))
    if unknown:
        raise ValueError(
            f"attention.only: {own.checkpoint} knows no {unknown}, but {list(names)}"
        )
    return {label for label, name in enumerate(names) if name in only}
