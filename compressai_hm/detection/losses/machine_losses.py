"""From ``model.machine_losses`` to the terms of D_m."""

from collections.abc import Callable
from itertools import chain, count
from typing import Any

import torch
from mmdet.registry import MODELS
from torch import nn

from ..frozen_detector import FrozenDetector
from ..trainable import rest
from .base import Decoded, MachineLoss, Reading
from .detector_loss import DetectorLoss
from .feature_loss import FeatureLoss, ObjectFeatureLoss

SHORT = {"features": FeatureLoss, "objects": ObjectFeatureLoss, "labels": DetectorLoss}
"""Of the short form, ``dict(labels=1.0, features=0.5)``; in the order of the terms."""

Terms = dict[str, Any]
"""A tensor, or a list of them, by name."""

_TAKEN = {"loss_rate", "loss_human", "loss_aux", "psnr"}


class MachineLosses:
    """The losses that a config names, and the detectors that they bring along.

    All of it measures and nothing of it trains: it is no module of the model.

    Args:
        cfg: Configs of :class:`MachineLoss`; or weights by ``labels``, ``features`` and
            ``objects``, which ask for nothing where there is no detector. A weight of 0
            leaves a loss out. Defaults to ``dict(labels=1.0)``.
        with_detector: Whether the model has one. Defaults to True.

    Raises:
        TypeError: For a registered part that is no MachineLoss.
        ValueError: For an unknown name, or a negative weight.
    """

    def __init__(
        self, cfg: dict | list[dict] | None = None, with_detector: bool = True
    ):
        if cfg is None:
            cfg = dict(labels=1.0)
        if isinstance(cfg, dict) and "type" not in cfg:
            losses = _from_weights(cfg) if with_detector else []
        else:
            losses = [_build(c) for c in ([cfg] if isinstance(cfg, dict) else cfg)]
        self.losses = [loss for loss in losses if loss.weight]
        self.detectors: list[FrozenDetector] = []
        """Of the losses, each once."""
        for loss in self.losses:
            loss.requires_grad_(False)
            if loss.own is not None:
                loss.own = self._shared(loss.own)
        names: set[str] = set()
        for detector in self.detectors:
            name = type(detector.module).__name__
            numbered = (f"{name}_{i}" if i > 1 else name for i in count(1))
            detector.name = next(n for n in numbered if n not in names)
            names.add(detector.name)

    def _shared(self, own: FrozenDetector) -> FrozenDetector:
        for known in self.detectors:
            if known.same_as(own):
                return known
        own.build()
        self.detectors.append(own)
        return own

    def __bool__(self) -> bool:
        return bool(self.losses)

    def of(self, detector: FrozenDetector | None) -> list[MachineLoss]:
        """The losses of one detector; of the model's, None."""
        return [loss for loss in self.losses if loss.own is detector]

    def load(self) -> None:
        """Reads the weights of the losses' own detectors."""
        for detector in self.detectors:
            detector.load()

    def train(self, mode: bool = True) -> None:
        """What follows the model's mode."""
        for detector in self.detectors:
            detector.train(mode)
        for loss in self.losses:
            loss.train(mode)
            rest(loss)

    def terms(
        self, decoded: Decoded, read: Callable[[Decoded, bool], Reading]
    ) -> Terms:
        """All terms of D_m, weighted, prefixed where a loss says so.

        Args:
            decoded: The batch.
            read: How the model's detector reads it; the flag is ``compares``.

        Raises:
            ValueError: If two losses give a term of the same name.
        """
        readings: dict[FrozenDetector | None, Reading] = {}
        terms: Terms = {}
        for loss in self.losses:
            _follow(loss, decoded.x.device)
            if loss.own not in readings:
                compares = any(other.compares for other in self.of(loss.own))
                readings[loss.own] = (
                    read(decoded, compares)
                    if loss.own is None
                    else _read(loss.own, decoded, compares)
                )
            prefix = loss.prefix or (loss.own.name if loss.own else None)
            for key, value in loss(readings[loss.own]).items():
                name = f"{prefix}.{key}" if prefix else key
                if name in terms or name in _TAKEN:
                    raise ValueError(
                        f"model.machine_losses: {type(loss).__name__} gives {name!r}, "
                        "which another loss has given already: give it a prefix"
                    )
                terms[name] = times(loss.weight, key, value)
        return terms

    def without_annotations(self) -> "MachineLosses":
        """The same for pictures that have none: features in place of labels and boxes.

        Where a detector has no FeatureLoss, its weight is 1.
        """
        kept = [loss for loss in self.losses if loss.annotations is None]
        for own in (None, *self.detectors):
            instead = any(loss.annotations for loss in self.of(own))
            if instead and not any(
                isinstance(loss, FeatureLoss) and loss.own is own for loss in kept
            ):
                loss = FeatureLoss()
                loss.own = own
                kept.append(loss)
        losses = MachineLosses([])
        losses.losses, losses.detectors = kept, self.detectors
        return losses


def times(factor: float, key: str, value: Any) -> Any:
    """A term weighed; what is only logged stays as it is."""
    if "loss" not in key:
        return value
    if isinstance(value, (list, tuple)):
        return [factor * v for v in value]
    return factor * value


def _from_weights(weights: dict[str, float]) -> list[MachineLoss]:
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


def _read(own: FrozenDetector, decoded: Decoded, compares: bool) -> Reading:
    return Reading(
        **vars(decoded),
        detector=own.on(decoded.x.device),
        resize=own.view,
        compares=compares,
    )


def _follow(module: nn.Module, device: torch.device) -> None:
    held = next(chain(module.parameters(), module.buffers()), None)
    if held is not None and held.device != device:
        module.to(device)
