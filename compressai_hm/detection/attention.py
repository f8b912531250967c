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
from ..codecs.regions import check_gain, importance_of_mask, map_of_importance
from .build import classes_named_by
from .frozen_detector import FrozenDetector

_KEYS = {"config", "checkpoint", "classes", "resize"}


class Attention:
    """Finds where bits matter.

    Args:
        detectors: Of MMDetection, each ``dict(config=..., checkpoint=...)``: a model
            config, a whole config or the name of one ("mmdet::yolox/..."), and weights;
            with ``resize`` as ``model.resize`` for a model config, and with ``classes``
            (names, or "coco") where neither weights nor config say them. What any of
            them finds counts.
        gain: The step elsewhere over that at objects, in quarter octaves: 1.19, 1.41,
            1.68, 2 and so on. Defaults to 1.41, which costs people little.
        margin: Pixels around an object that belong to it. Defaults to 8.
        score_thr: Objects from this score up. Defaults to 0.3.
        only: Names of the classes that count. Defaults to None, all.

    Raises:
        ValueError: If an entry lacks something, or names what is no detector.
    """

    def __init__(
        self,
        detectors: Sequence[dict],
        gain: float = 1.41,
        margin: float = 8.0,
        score_thr: float = 0.3,
        only: Sequence[str] | None = None,
    ):
        if isinstance(detectors, dict) or not detectors:
            raise ValueError(
                "attention.detectors must be a list of dict(config=..., "
                f"checkpoint=...), got {detectors!r}"
            )
        if not 0 <= margin < float("inf"):
            raise ValueError(f"attention.margin must be 0 or more, got {margin}")
        if only is not None and (isinstance(only, str) or not only):
            raise ValueError(f"attention.only must be a list of names, got {only!r}")
        try:
            check_gain(gain)
        except ValueError as e:
            raise ValueError(f"attention.{e}") from None
        self.gain, self.margin = float(gain), float(margin)
        self.score_thr, self.only = float(score_thr), only
        self.detectors = [_built(entry) for entry in detectors]
        self._entries = list(detectors)
        self._wanted: list[set[int] | None] | None = None

    def identity(self) -> dict:
        """Plain values that differ where another map may be found.

        Weights are meant by their names; who compares content adds it.
        """
        detectors = [
            [own.cfg, own.resize, own.checkpoint, entry.get("classes")]
            for own, entry in zip(self.detectors, self._entries, strict=True)
        ]
        rules = self.gain, self.margin, self.score_thr, self.only
        return {"rules": rules, "detectors": detectors}

    def load(self) -> None:
        """Reads the detectors' weights, once.

        Raises:
            FileNotFoundError: If there are none.
            RuntimeError: If they are of another model.
            ValueError: If a class that counts is none of the detectors'.
        """
        if self._wanted is not None:
            return
        for own in self.detectors:
            own.load()
            own.module.eval()
        self._wanted = [None] * len(self.detectors)
        if self.only is None:
            return
        names = self.classes()
        unknown = sorted(set(self.only).difference(*names))
        if unknown:
            raise ValueError(
                f"attention.only: no detector knows {unknown}, but "
                + " and ".join(str(list(own)) for own in names)
            )
        self._wanted = [
            {label for label, name in enumerate(own) if name in self.only}
            for own in names
        ]

    def classes(self) -> list[Sequence[str]]:
        """The names of each detector's labels.

        Raises:
            ValueError: If neither its weights nor its config say them.
        """
        both = zip(self.detectors, self._entries, strict=True)
        return [_classes(own, entry) for own, entry in both]

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
        size = tuple(x.shape[-2:])
        out = torch.zeros(tuple(-(-side // Y_STRIDE) for side in size))
        for found in self.found(x):
            out = torch.maximum(out, importance_of(found, size, self.margin))
        return out

    @torch.no_grad()
    def found(self, x: Tensor) -> list[InstanceData]:
        """The objects that count, of each detector.

        Args:
            x: One picture, RGB in [0, 1], ``(1, 3, H, W)``.

        Returns:
            With ``bboxes``, ``scores``, ``labels`` and perhaps ``masks``, on the CPU.
        """
        self.load()
        out = []
        for detector, wanted in zip(self.detectors, self._wanted, strict=True):
            with torch.autocast(x.device.type, enabled=False):
                found = detector.view.detect(detector.on(x.device), x[0])
            found = found[found.scores >= self.score_thr]
            if wanted is not None:
                keep = [int(label) in wanted for label in found.labels]
                found = found[torch.tensor(keep, dtype=torch.bool)]
            out.append(found)
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
        return importance_of_mask(_grown(mask.float(), int(margin)))
    left, top, right, bottom = found.bboxes.double().T[..., None]
    inside = [
        (first - margin < start + Y_STRIDE) & (last + margin > start)
        for first, last, start in ((top, bottom, rows), (left, right, cols))
    ]
    return (inside[0][:, :, None] & inside[1][:, None]).any(0).float()


def _grown(mask: Tensor, margin: int) -> Tensor:
    """The largest value within a margin, on one axis after the other."""
    out = mask[None, None]
    for window in ((2 * margin + 1, 1), (1, 2 * margin + 1)):
        out = F.max_pool2d(out, window, 1, tuple(side // 2 for side in window))
    return out[0, 0]


def _built(entry: dict) -> FrozenDetector:
    needed = {"config", "checkpoint"}
    if (
        not isinstance(entry, dict)
        or set(entry) - _KEYS
        or not all(entry.get(key) for key in needed)
    ):
        raise ValueError(
            "attention.detectors takes dict(config=..., checkpoint=..., classes=..., "
            f"resize=...), got {entry!r}"
        )
    init_default_scope("mmdet")
    own = FrozenDetector(entry["config"], entry["checkpoint"], entry.get("resize"))
    if "codec" in own.cfg:
        raise ValueError(
            f"attention: {entry['config']} is a codec with a detector: give the "
            "detector's own config"
        )
    own.build()
    return own


def _classes(own: FrozenDetector, entry: dict) -> Sequence[str]:
    """The names of a detector's labels."""
    count = max(getattr(part, "num_classes", 0) for part in own.module.modules())
    names = entry.get("classes") or own.classes
    if names == "coco":
        names = CocoDataset.METAINFO["classes"]
    if names is None:
        names = classes_named_by(entry["config"], count)
    if names is None:
        raise ValueError(
            f"attention.only: {own.checkpoint} does not name its classes, nor does its "
            "config; say classes=... (names, or 'coco') beside them"
        )
    if isinstance(names, str) or len(names) != count:
        raise ValueError(
            f"attention: the classes of {own.checkpoint} are {names}, and it has "
            f"{count} labels: give as many names"
        )
    return names
