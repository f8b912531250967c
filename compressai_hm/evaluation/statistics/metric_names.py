"""Metrics: "bpp", "psnr", "ms_ssim", "mAP <detector>" and "mask mAP <detector>".

Sets with objects also have "object_psnr" and "background_psnr", inside and outside of
the objects' boxes. Details are "small mAP <detector>", "medium ..." and "large ..." by
COCO's areas, and "agreement <detector>": the mAP with the detections in the
uncompressed picture, from a score of :data:`SURE`, as the annotations.
"""

from collections.abc import Sequence

import numpy as np

DISTORTIONS = ("psnr", "ms_ssim", "object_psnr", "background_psnr")

SIZES = ("small", "medium", "large")

SURE = 0.3
"""An object counts for agreement from this score up."""


def is_accuracy(metric: str) -> bool:
    """Says whether a ``metric`` is a detector's accuracy, of boxes or of masks."""
    return "mAP " in metric or metric.startswith("agreement ")


def is_detail(metric: str) -> bool:
    """Says whether a ``metric`` has no plot, because it details another metric."""
    return metric.startswith((*SIZES, "agreement ", "object_", "background_"))


def in_units(metric: str, values: Sequence[float]) -> list[float]:
    """Converts a metric's values to the units of plots and comparisons.

    Args:
        metric: The metric's name.
        values: Values as measured.

    Returns:
        mAP in per cent, MS-SSIM in dB, and other values unchanged.
    """
    if is_accuracy(metric):
        return [100 * v for v in values]
    if metric == "ms_ssim":
        return [-10 * float(np.log10(max(1 - v, 1e-10))) for v in values]
    return list(values)


def title(metric: str) -> str:
    """Returns the name of a ``metric`` with its unit."""
    names = {"bpp": "bpp", "psnr": "PSNR (dB)", "ms_ssim": "MS-SSIM (dB)"}
    names |= {
        "object_psnr": "PSNR inside boxes (dB)",
        "background_psnr": "PSNR outside boxes (dB)",
    }
    return names.get(metric, f"{metric} (%)")
