"""Hooks for training and evaluation."""

from .check_data_hook import CheckDataHook
from .check_loss_hook import CheckLossHook
from .decay_hook import DecayHook
from .draw_views_hook import DrawViewsHook
from .export_codec_hook import ExportCodecHook
from .hold_rate_hook import HoldRateHook
from .reseed_hook import ReseedHook
from .save_tables_hook import SaveTablesHook

__all__ = [
    "CheckDataHook",
    "CheckLossHook",
    "DecayHook",
    "DrawViewsHook",
    "ExportCodecHook",
    "HoldRateHook",
    "ReseedHook",
    "SaveTablesHook",
]
