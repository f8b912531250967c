"""Regions of interest: objects that detectors find get more of a picture's bits.

The stream itself says where its quantization steps are finer. No weights change, and
neither the decoder nor any other detector needs extra information.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.datasets import CocoDataset
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor

from ..bitstream.reader import StreamReader, load_reader
from ..encoder.regions import check_gain, importance_to_steps, mask_to_importance
from ..geometry import Y_STRIDE, latent_size
from ..models.human_machine import HumanMachineMixin
from ..zoo.released import local_path
from .configs import find_classes, raise_threshold
from .frozen_detector import FrozenDetector
from .stream_detector import StreamDetector

_LATENT_RATIO = 9 / 14
"""Factor of a detector's size on latents. It halves the time, and a map is coarse."""

_KEYS = {"config", "checkpoint", "classes", "resize", "reader", "score_thr"}


class DetectorRegions:
    """Finds the places of a picture that get more bits.

    Args:
        detectors: Detectors of MMDetection, each ``dict(config=..., checkpoint=...)``:
            a model config, a whole config or the name of one ("mmdet::yolox/..."), and
            weights. A model config may add ``resize``, as ``model.resize``. If neither
            weights nor config name the classes, add ``classes`` (names, or "coco").
            With ``reader``, a :class:`StreamReader` or its file, the detector reads the
            latent that the encoder has already. ``score_thr`` replaces that below. An
            object counts if any detector finds it.
        gain: The quantization step elsewhere divided by the step at objects, in quarter
            octaves: 1.19, 1.41, 1.68, 2 and so on. Defaults to 1.41, which lowers the
            quality for people only a little.
        margin: Pixels around an object that belong to it. Defaults to 8.
        score_thr: The lowest score of objects that count. If it is a list, an object
            gets the share of the gain (in octaves) that is the share of the thresholds
            that its score reaches. Defaults to 0.3.
        only: Names of the classes that count. Defaults to None, which counts all.

    Raises:
        ValueError: If an entry is incomplete, or its config is not a detector's.
    """

    def __init__(
        self,
        detectors: Sequence[dict],
        gain: float = 1.41,
        margin: float = 8.0,
        score_thr: float | Sequence[float] = 0.3,
        only: Sequence[str] | None = None,
    ):
        if isinstance(detectors, dict) or not detectors:
            raise ValueError(
                "detector_regions.detectors must be a list of dict(config=..., "
                f"checkpoint=...), got {detectors!r}"
            )
        if not 0 <= margin < float("inf"):
            raise ValueError(f"detector_regions.margin must be 0 or more, got {margin}")
        if only is not None and (isinstance(only, str) or not only):
            raise ValueError(
                f"detector_regions.only must be a list of names, got {only!r}"
            )
        try:
            check_gain(gain)
        except ValueError as e:
            raise ValueError(f"detector_regions.{e}") from None
        self.gain, self.margin = float(gain), float(margin)
        self.only = only
        self.detectors = [_build_detector(entry) for entry in detectors]
        self._entries = list(detectors)
        thresholds = _list_thresholds(score_thr)
        self.score_thr = thresholds[0] if len(thresholds) == 1 else thresholds
        self._thresholds = [
            _list_thresholds(entry.get("score_thr", score_thr)) for entry in detectors
        ]
        self._labels: list[set[int] | None] | None = None

    def identity(self) -> dict:
        """Returns plain values that are equal only for settings that give equal maps.

        Weights are represented by their names; a caller that compares their content
        must add it.

        Returns:
            ``rules``, the numbers and classes; and ``detectors``, a list for each
            detector.
        """
        detectors = []
        for det, entry in zip(self.detectors, self._entries, strict=True):
            plain = [det.cfg, det.resize, det.checkpoint, entry.get("classes")]
            if isinstance(det, StreamDetector):
                plain.append(det.reader.digest())
            if "score_thr" in entry:
                plain.append(_list_thresholds(entry["score_thr"]))
            detectors.append(plain)
        rules = self.gain, self.margin, self.score_thr, self.only
        return {"rules": rules, "detectors": detectors}

    def load(self) -> None:
        """Reads the detectors' weights. Later calls do nothing.

        Raises:
            FileNotFoundError: If there are no such weights.
            RuntimeError: If the weights are of another model.
            ValueError: If no detector knows one of the classes in ``only``.
        """
        if self._labels is not None:
            return
        for detector, thresholds in zip(self.detectors, self._thresholds, strict=True):
            detector.load()
            detector.module.eval()
            raise_threshold(detector.module, thresholds[0])
        self._labels = [None] * len(self.detectors)
        if self.only is None:
            return
        classes = self.classes()
        unknown = sorted(set(self.only).difference(*classes))
        if unknown:
            raise ValueError(
                f"detector_regions.only: no detector knows {unknown}, but "
                + " and ".join(str(list(names)) for names in classes)
            )
        self._labels = [
            {label for label, name in enumerate(names) if name in self.only}
            for names in classes
        ]

    def classes(self) -> list[Sequence[str]]:
        """Returns the names of each detector's labels.

        Raises:
            ValueError: If neither a detector's weights nor its config name them.
        """
        pairs = zip(self.detectors, self._entries, strict=True)
        return [_find_names(detector, entry) for detector, entry in pairs]

    @property
    def read_latents(self) -> bool:
        """Returns whether a detector reads the latent."""
        return any(isinstance(d, StreamDetector) for d in self.detectors)

    def step_map(
        self,
        x: Tensor,
        step: float = 1.0,
        codec: HumanMachineMixin | None = None,
        y: Tensor | None = None,
    ) -> Tensor:
        """Returns a map of quantization steps for ``compress`` and ``encode``.

        Args:
            x: One picture, RGB in [0, 1], ``(1, 3, H, W)``.
            step: The step outside of objects. Defaults to 1.
            codec: The codec, if detectors read latents. Defaults to None.
            y: The picture's latent, if it is computed already. Defaults to None.

        Returns:
            ``(ceil(H / 16), ceil(W / 16))``.
        """
        importance = self.importance(x, codec, y)
        return importance_to_steps(importance, self.gain, step)

    @torch.no_grad()
    def importance(
        self,
        x: Tensor,
        codec: HumanMachineMixin | None = None,
        y: Tensor | None = None,
    ) -> Tensor:
        """Returns a map that is 1 where an object is found and 0 elsewhere.

        Where a detector has several thresholds, it is the share of them that are
        reached.

        Args:
            x: One picture, RGB in [0, 1], ``(1, 3, H, W)``.
            codec: The codec, if detectors read latents. Defaults to None.
            y: The picture's latent, if it is computed already. Defaults to None.

        Returns:
            ``(ceil(H / 16), ceil(W / 16))``, on the CPU.
        """
        size = tuple(x.shape[-2:])
        out = torch.zeros(latent_size(size))
        found = self.detect(x, codec, y)
        for objects, thresholds in zip(found, self._thresholds, strict=True):
            maps = [
                detections_to_importance(
                    objects[objects.scores >= t], size, self.margin
                )
                for t in thresholds
            ]
            out = torch.maximum(out, torch.stack(maps).mean(0))
        return out

    @torch.no_grad()
    def detect(
        self,
        x: Tensor,
        codec: HumanMachineMixin | None = None,
        y: Tensor | None = None,
    ) -> list[InstanceData]:
        """Returns the objects that count, for each detector.

        Args:
            x: One picture, RGB in [0, 1], ``(1, 3, H, W)``.
            codec: The codec, if detectors read latents. Defaults to None.
            y: The picture's latent, if it is computed already. Defaults to None.

        Returns:
            Instances with ``bboxes``, ``(n, 4)`` in pixels, ``scores``, ``labels`` and
            perhaps ``masks``, on the CPU.

        Raises:
            ValueError: If a reader was trained on latents of another codec.
        """
        self.load()
        out = []
        for detector, labels, (lowest, *_) in zip(
            self.detectors, self._labels, self._thresholds, strict=True
        ):
            with torch.autocast(x.device.type, enabled=False):
                if isinstance(detector, StreamDetector):
                    if codec is None:
                        raise ValueError(
                            f"reader {detector.reader.name!r} reads latents: "
                            "detector_regions needs the codec that makes them"
                        )
                    detector.reader.check(codec)
                    y = codec.analyze(x) if y is None else y
                    objects = detector.detect(y, tuple(x.shape[-2:]))
                else:
                    objects = detector.view.detect(detector.on(x.device), x[0])
            objects = objects[objects.scores >= lowest]
            if labels is not None:
                counts = [int(label) in labels for label in objects.labels]
                objects = objects[torch.tensor(counts, dtype=torch.bool)]
            out.append(objects)
        return out


def detections_to_importance(
    objects: InstanceData, size: tuple[int, int], margin: float = 0.0
) -> Tensor:
    """Returns a map that is 1 in each block of 16x16 pixels that an object touches.

    Args:
        objects: Instances with ``bboxes``, ``(n, 4)`` in pixels. If they have
            ``masks``, ``(n, H, W)``, these are used in place of the boxes.
        size: (H, W) of the picture.
        margin: Pixels around each object that belong to it. Defaults to 0.

    Returns:
        ``(ceil(H / 16), ceil(W / 16))``, float32.
    """
    rows, cols = (Y_STRIDE * torch.arange(count) for count in latent_size(size))
    if "masks" in objects:
        masks = objects.masks if len(objects) else torch.zeros(1, *size)
        mask = torch.as_tensor(masks).any(0)
        return mask_to_importance(_dilate(mask.float(), int(margin)))
    left, top, right, bottom = objects.bboxes.double().T[..., None]
    inside = [
        (first - margin < start + Y_STRIDE) & (last + margin > start)
        for first, last, start in ((top, bottom, rows), (left, right, cols))
    ]
    return (inside[0][:, :, None] & inside[1][:, None]).any(0).float()


def _dilate(mask: Tensor, margin: int) -> Tensor:
    """Replaces each value by the largest one within a margin, axis by axis."""
    out = mask[None, None]
    for window in ((2 * margin + 1, 1), (1, 2 * margin + 1)):
        out = F.max_pool2d(out, window, 1, tuple(side // 2 for side in window))
    return out[0, 0]


def _build_detector(entry: dict) -> FrozenDetector | StreamDetector:
    if (
        not isinstance(entry, dict)
        or set(entry) - _KEYS
        or not all(entry.get(key) for key in ("config", "checkpoint"))
    ):
        raise ValueError(
            "detector_regions.detectors takes dict(config=..., checkpoint=..., "
            f"classes=..., resize=..., reader=..., score_thr=...), got {entry!r}"
        )
    if reader := entry.get("reader"):
        if not isinstance(reader, StreamReader):
            reader = load_reader(local_path(reader))
        return StreamDetector(
            reader, entry["config"], entry["checkpoint"], _LATENT_RATIO
        )
    init_default_scope("mmdet")
    detector = FrozenDetector(entry["config"], entry["checkpoint"], entry.get("resize"))
    if "codec" in detector.cfg:
        raise ValueError(
            f"detector_regions: {entry['config']} is a codec with a detector: give the "
            "detector's own config"
        )
    detector.build()
    return detector


def _list_thresholds(score_thr: float | Sequence[float]) -> list[float]:
    """Returns the thresholds of scores, the lowest first."""
    try:
        values = [float(v) for v in np.ravel(score_thr)]
    except (TypeError, ValueError):
        values = []
    if not values or not all(v >= 0 for v in values):
        raise ValueError(
            "detector_regions: score_thr must be a number from 0 on, or a list of "
            f"such, got {score_thr!r}"
        )
    return sorted(values)


def _find_names(
    detector: FrozenDetector | StreamDetector, entry: dict
) -> Sequence[str]:
    """Returns the names of a detector's labels."""
    count = max(getattr(part, "num_classes", 0) for part in detector.module.modules())
    names = entry.get("classes") or detector.classes
    if names == "coco":
        names = CocoDataset.METAINFO["classes"]
    if names is None:
        names = find_classes(entry["config"], count)
    if names is None:
        raise ValueError(
            f"detector_regions.only: {detector.checkpoint} does not name its classes, "
            "nor does its config; say classes=... (names, or 'coco') beside them"
        )
    if isinstance(names, str) or len(names) != count:
        raise ValueError(
            f"detector_regions: the classes of {detector.checkpoint} are {names}, and "
            f"it has {count} labels: give as many names"
        )
    return names
