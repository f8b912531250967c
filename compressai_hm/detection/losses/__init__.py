"""D_m, the loss terms for machines. Each is a registered class; see :mod:`.base`."""

from ..reading import Decoded, LatentReading, Reading
from .base import MachineLoss
from .detector_loss import DetectorLoss, PseudoLabelLoss
from .feature_loss import FeatureLoss, ObjectFeatureLoss
from .head_loss import HeadLoss
from .machine_losses import MachineLosses

__all__ = [
    "Decoded",
    "DetectorLoss",
    "FeatureLoss",
    "HeadLoss",
    "LatentReading",
    "MachineLoss",
    "MachineLosses",
    "ObjectFeatureLoss",
    "PseudoLabelLoss",
    "Reading",
]
