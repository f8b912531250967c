"""The few lines that let old and new versions of the dependencies work together."""

from .cpu import has_bfloat16
from .instances import index_instances_anywhere
from .mmcv_ops import install_mmcv_ops
from .quiet import quiet_imports
from .safe_loading import load_checkpoints_safely, why_unreadable

__all__ = [
    "has_bfloat16",
    "index_instances_anywhere",
    "install_mmcv_ops",
    "load_checkpoints_safely",
    "quiet_imports",
    "why_unreadable",
]
