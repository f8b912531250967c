"""The detector's own losses, as in the paper."""

from mmdet.registry import MODELS
from torch import Tensor

from .base import MachineLoss, Reading


@MODELS.register_module()
class DetectorLoss(MachineLoss):
    """What the detector itself is trained with, on the decoded view; needs labels."""

    annotations = "labels"
    compares = False

    def forward(self, reading: Reading) -> dict[str, Tensor | list[Tensor]]:
        """The detector's terms, by its names."""
        inputs, samples = reading.inputs, reading.annotations
        return reading.detector.loss(inputs, samples)
