"""A detector beside the model: an instrument, no part of it."""

import copy

import torch
from mmdet.registry import MODELS
from mmengine.model import revert_sync_batchnorm

from .build import detector_config, load_detector
from .trainable import rest
from .view import DetectorView


class FrozenDetector:
    """A detector whose weights never change.

    It is kept out of the model's modules, so that no optimizer, no checkpoint
    and no DDP sees it. EMAHook averages none of it, but copies it.
    Its own checkpoint says all that a resumed run needs, and is not written again with
    every epoch.

    Args:
        detector: As ``model.detector``.
        checkpoint: Its weights.
        resize: As ``model.resize``.
    """

    def __init__(self, detector: dict | str, checkpoint: str, resize: dict | None):
        self.cfg, self.resize = detector_config(detector, resize)
        self.checkpoint = checkpoint
        self.view = DetectorView(**self.resize)
        self.module: torch.nn.Module | None = None
        self.classes: tuple[str, ...] | None = None
        """That its checkpoint names."""
        self.name = ""
        """Among the losses', for their terms."""
        self._loaded = False

    def same_as(self, other: "FrozenDetector") -> bool:
        """Whether one of the two is enough."""
        mine, theirs = ((d.cfg, d.checkpoint, d.resize) for d in (self, other))
        return mine == theirs

    def build(self) -> None:
        """Makes the network, without its weights."""
        module = revert_sync_batchnorm(MODELS.build(copy.deepcopy(self.cfg)))
        if hasattr(module.data_preprocessor, "batch_augments"):
            # Such as YOLOX's of the size, which is for resize to say.
            module.data_preprocessor.batch_augments = None
        self.module = module.requires_grad_(False)
        self.train()

    def load(self) -> None:
        """Reads its weights, once.

        Raises:
            RuntimeError: If they are of another model.
        """
        if not self._loaded:
            self.classes = load_detector(self.module, self.checkpoint)
            self._loaded = True

    def train(self, mode: bool = True) -> None:
        """DETR-like losses look at ``training``; statistics and dropout rest."""
        self.module.train(mode)
        rest(self.module)

    def on(self, device: torch.device) -> torch.nn.Module:
        """The network with its weights, on the pictures' device."""
        self.load()
        if next(self.module.parameters()).device != device:
            self.module.to(device)
        return self.module
