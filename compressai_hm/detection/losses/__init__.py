"""D_m, the terms for machines: registered parts, see :mod:`.base`."""

from .base import Decoded, LatentReading, MachineLoss, Reading
from .detector_loss import DetectorLoss, PseudoLabelLoss
from .feature_loss import FeatureLoss, ObjectFeatureLoss
from .machine_losses import MachineLosses

__all__ = [
    "Decoded",
    "DetectorLoss",
    "FeatureLoss",
    "LatentReading",
    "MachineLoss",
    "MachineLosses",
    "ObjectFeatureLoss",
    "PseudoLabelLoss",
    "Reading",
]
