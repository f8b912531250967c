"""The few lines that let old and new versions of the dependencies work together."""

from .checkpoint import load_checkpoints_safely, why_unreadable
from .instances import index_instances_anywhere
from .mmcv_ops import install_mmcv_ops
from .quiet import quiet_imports

__all__ = [
    "index_instances_anywhere",
    "install_mmcv_ops",
    "load_checkpoints_safely",
    "quiet_imports",
    "why_unreadable",
]
