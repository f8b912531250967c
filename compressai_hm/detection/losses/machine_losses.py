"""Building the losses of ``model.machine_losses`` and computing the terms of D_m."""

from itertools import chain, count
from typing import Any, Protocol

import torch
from mmdet.registry import MODELS
from torch import nn

from ..frozen_detector import FrozenDetector, freeze_statistics
from ..reading import Decoded, Reading
from .base import MachineLoss
from .detector_loss import DetectorLoss
from .feature_loss import FeatureLoss, ObjectFeatureLoss

SHORT = {"features": FeatureLoss, "objects": ObjectFeatureLoss, "labels": DetectorLoss}
"""Losses of the short form, ``dict(labels=1.0, features=0.5)``, in the terms' order."""

Terms = dict[str, Any]
"""Terms are tensors, or lists of tensors, by name."""

_MODEL_TERMS = {"loss_rate", "loss_human", "loss_aux", "psnr"}


class _Model(Protocol):
    def read(self, decoded: Decoded, compares: bool) -> Reading: ...


class MachineLosses:
    """The losses that a config names, and the detectors that they use.

    It is not a module of the model, because nothing in it trains.

    Args:
        cfg: Configs of :class:`MachineLoss`; or weights by ``labels``, ``features`` and
            ``objects``, which are ignored if the model has no detector. A loss of
            weight 0 is left out. Defaults to ``dict(labels=1.0)``.
        with_detector: Whether the model has a detector. Defaults to True.

    Raises:
        TypeError: For a registered class that is not a MachineLoss.
        ValueError: For an unknown name, or a negative weight.
    """

    def __init__(
        self, cfg: dict | list[dict] | None = None, with_detector: bool = True
    ):
        if cfg is None:
            cfg = dict(labels=1.0)
        if isinstance(cfg, dict) and "type" not in cfg:
            losses = _build_from_weights(cfg) if with_detector else []
        else:
            losses = [_build(c) for c in ([cfg] if isinstance(cfg, dict) else cfg)]
        self.losses = [loss for loss in losses if loss.weight]
        self.detectors: list[FrozenDetector] = []
        """The different detectors of the losses."""
        for loss in self.losses:
            loss.requires_grad_(False)
            if loss.detector is not None:
                loss.detector = self._share(loss.detector)
        names: set[str] = set()
        for detector in self.detectors:
            name = type(detector.module).__name__
            numbered = (f"{name}_{i}" if i > 1 else name for i in count(1))
            detector.name = next(n for n in numbered if n not in names)
            names.add(detector.name)

    def _share(self, detector: FrozenDetector) -> FrozenDetector:
        """Returns an equal detector if there is one, else builds this one."""
        for known in self.detectors:
            if known.same_as(detector):
                return known
        detector.build()
        self.detectors.append(detector)
        return detector

    def __bool__(self) -> bool:
        return bool(self.losses)

    def find_losses(self, detector: FrozenDetector | None) -> list[MachineLoss]:
        """Returns the losses that use one detector.

        Args:
            detector: The detector; None is the model's.
        """
        return [loss for loss in self.losses if loss.detector is detector]

    def load(self) -> None:
        """Reads the weights of the losses' own detectors."""
        for detector in self.detectors:
            detector.load()

    def train(self, mode: bool = True) -> None:
        """Sets the mode of losses and detectors, except for statistics and dropout.

        Args:
            mode: The model's mode. Defaults to True.
        """
        for detector in self.detectors:
            detector.train(mode)
        for loss in self.losses:
            loss.train(mode)
            freeze_statistics(loss)

    def terms(self, decoded: Decoded, model: _Model) -> Terms:
        """Computes all terms of D_m, weighted, and prefixed where a loss has a prefix.

        Args:
            decoded: The batch.
            model: Reads the batch for losses that have no detector of their own.

        Returns:
            The terms by name.

        Raises:
            ValueError: If two losses give a term of the same name.
        """
        readings: dict[FrozenDetector | None, Reading] = {}
        terms: Terms = {}
        for loss in self.losses:
            _move_to(decoded.x.device, loss)
            detector = loss.detector
            if detector not in readings:
                compares = any(other.compares for other in self.find_losses(detector))
                readings[detector] = (detector or model).read(decoded, compares)
            prefix = loss.prefix or (detector.name if detector else None)
            for key, value in loss(readings[detector]).items():
                name = f"{prefix}.{key}" if prefix else key
                if name in terms or name in _MODEL_TERMS:
                    raise ValueError(
                        f"model.machine_losses: {type(loss).__name__} gives {name!r}, "
                        "which another loss has given already: give it a prefix"
                    )
                terms[name] = scale_term(loss.weight, key, value)
        return terms

    def without_annotations(self) -> "MachineLosses":
        """Returns the losses for pictures without annotations.

        A FeatureLoss replaces the losses that need labels or boxes. Its weight is 1,
        unless the detector has a FeatureLoss already, which then stays as it is.
        """
        result = MachineLosses([])
        result.detectors = self.detectors
        result.losses = [loss for loss in self.losses if loss.annotations is None]
        for detector in (None, *self.detectors):
            replaces = any(loss.annotations for loss in self.find_losses(detector))
            present = any(
                isinstance(x, FeatureLoss) for x in result.find_losses(detector)
            )
            if replaces and not present:
                loss = FeatureLoss()
                loss.detector = detector
                result.losses.append(loss)
        return result


def scale_term(factor: float, key: str, value: Any) -> Any:
    """Returns a term times a factor; a term that is only logged is returned unchanged.

    Args:
        factor: The factor.
        key: The term's name. Names with "loss" are minimized.
        value: A tensor, or a list of tensors.
    """
    if "loss" not in key:
        return value
    if isinstance(value, (list, tuple)):
        return [factor * v for v in value]
    return factor * value


def _build_from_weights(weights: dict[str, float]) -> list[MachineLoss]:
    unknown = sorted(set(weights) - set(SHORT))
    if unknown:
        raise ValueError(
            f"model.machine_losses knows {sorted(SHORT)}, got {unknown}; other losses "
            "are given as [dict(type=..., weight=...)]"
        )
    return [loss(weights[name]) for name, loss in SHORT.items() if name in weights]


def _build(cfg: dict) -> MachineLoss:
    if not isinstance(cfg, dict) or "type" not in cfg:
        raise ValueError(
            f"model.machine_losses takes [dict(type=..., weight=...)], got {cfg!r}"
        )
    loss = MODELS.build(cfg)
    if not isinstance(loss, MachineLoss):
        raise TypeError(
            f"model.machine_losses: {type(loss).__name__} is no MachineLoss: it must "
            "take what one takes, see compressai_hm.detection.MachineLoss"
        )
    return loss


def _move_to(device: torch.device, module: nn.Module) -> None:
    tensor = next(chain(module.parameters(), module.buffers()), None)
    if tensor is not None and tensor.device != device:
        module.to(device)
