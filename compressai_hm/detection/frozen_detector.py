"""A detector that measures beside the model and is no part of it."""

import copy

import torch
from mmcv.cnn.bricks import DropPath
from mmdet.registry import MODELS
from mmengine.model import revert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from .configs import detector_config
from .load import load_detector
from .reading import Decoded, Reading
from .view import DetectorView


def freeze_statistics(module: nn.Module) -> None:
    """Switches normalization statistics and dropout of a network to eval mode.

    The other modules keep their mode, because DETR-like losses depend on ``training``.

    Args:
        module: The network.
    """
    for part in module.modules():
        if isinstance(part, (_BatchNorm, _DropoutNd, DropPath)):
            part.eval()
        elif isinstance(part, nn.MultiheadAttention):
            part.training = False  # its dropout is a function


class FrozenDetector:
    """A detector whose weights never change.

    It is no submodule of the model, so no optimizer, checkpoint or DDP sees it. EMAHook
    copies it, but averages none of its weights. A resumed run reads its weights from
    its own checkpoint again, so they are not written with every epoch.

    Args:
        detector: As ``model.detector``: an MMDetection model config, a whole config, or
            the name of one.
        checkpoint: The detector's weights.
        resize: As ``model.resize``.
    """

    def __init__(self, detector: dict | str, checkpoint: str, resize: dict | None):
        self.cfg, self.resize = detector_config(detector, resize)
        self.checkpoint = checkpoint
        self.view = DetectorView(**self.resize)
        self.module: nn.Module | None = None
        self.classes: tuple[str, ...] | None = None
        """The classes that its checkpoint names; set by load()."""
        self.name = ""
        """Prefix of its losses' terms, unique among the losses' detectors."""
        self._loaded = False

    def same_as(self, other: "FrozenDetector") -> bool:
        """Checks whether another detector has the same config, weights and resize.

        Args:
            other: The other detector.
        """
        first, second = ((d.cfg, d.checkpoint, d.resize) for d in (self, other))
        return first == second

    def build(self) -> None:
        """Makes the network, without its weights."""
        module = revert_sync_batchnorm(MODELS.build(copy.deepcopy(self.cfg)))
        if hasattr(module.data_preprocessor, "batch_augments"):
            # An example is YOLOX's random size. Here resize alone sets the size.
            module.data_preprocessor.batch_augments = None
        self.module = module.requires_grad_(False)
        self.train()

    def load(self) -> None:
        """Reads the weights. Later calls do nothing.

        Raises:
            RuntimeError: If the weights are of another model.
        """
        if not self._loaded:
            self.classes = load_detector(self.module, self.checkpoint)
            self._loaded = True

    def train(self, mode: bool = True) -> None:
        """Sets the mode; statistics and dropout stay in eval mode.

        Args:
            mode: The mode, on which DETR-like losses depend. Defaults to True.
        """
        self.module.train(mode)
        freeze_statistics(self.module)

    def read(self, decoded: Decoded, compares: bool) -> Reading:
        """Reads a batch in training.

        Args:
            decoded: The batch.
            compares: Whether the uncompressed pictures are read as well.

        Returns:
            The batch as this detector reads it.
        """
        return Reading(
            **vars(decoded),
            detector=self.on(decoded.x.device),
            resize=self.view,
            compares=compares,
        )

    def on(self, device: torch.device) -> nn.Module:
        """Returns the network with its weights, moved to a device.

        Args:
            device: The device of the pictures.
        """
        self.load()
        if next(self.module.parameters()).device != device:
            self.module.to(device)
        return self.module
