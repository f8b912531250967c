"""Metrics: "bpp", "psnr", "ms_ssim", "mAP <detector>" and "mask mAP <detector>"."""

from collections.abc import Sequence

import numpy as np


def is_accuracy(metric: str) -> bool:
    """Whether a detector's accuracy is meant, of boxes or of masks."""
    return "mAP " in metric


def in_units(metric: str, values: Sequence[float]) -> list[float]:
    """As plotted and compared: mAP in per cent, MS-SSIM in dB."""
    if is_accuracy(metric):
        return [100 * v for v in values]
    if metric == "ms_ssim":
        return [-10 * float(np.log10(max(1 - v, 1e-10))) for v in values]
    return list(values)


def title(metric: str) -> str:
    """A metric's name with its unit."""
    names = {"bpp": "bpp", "psnr": "PSNR (dB)", "ms_ssim": "MS-SSIM (dB)"}
    return names.get(metric, f"{metric} (%)")
