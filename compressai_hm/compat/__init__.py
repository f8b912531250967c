"""The few lines that let old and new versions of the dependencies work together."""

from .checkpoint import allow_mmengine_checkpoints
from .mmcv_ops import install_mmcv_ops

__all__ = ["allow_mmengine_checkpoints", "install_mmcv_ops"]
