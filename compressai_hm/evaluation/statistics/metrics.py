"""Metrics: "bpp", "psnr", "ms_ssim", "mAP <detector>" and "mask mAP <detector>".

Of sets with objects also "object_psnr" and "background_psnr", inside and outside of
their boxes; and, as details, "small mAP <detector>", "medium ..." and "large ..." by
COCO's areas, and "agreement <detector>": the mAP with what the detector finds in the
uncompressed picture, from a score of :data:`SURE`, as what is to be found.
"""

from collections.abc import Sequence

import numpy as np

DISTORTIONS = ("psnr", "ms_ssim", "object_psnr", "background_psnr")

SIZES = ("small", "medium", "large")

SURE = 0.3
"""An object counts for agreement from this score up."""


def is_accuracy(metric: str) -> bool:
    """Whether a detector's accuracy is meant, of boxes or of masks."""
    return "mAP " in metric or metric.startswith("agreement ")


def is_detail(metric: str) -> bool:
    """Whether it is no plot's: a part of another metric, or another view of it."""
    return metric.startswith((*SIZES, "agreement ", "object_", "background_"))


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
    names |= {
        "object_psnr": "PSNR inside boxes (dB)",
        "background_psnr": "PSNR outside boxes (dB)",
    }
    return names.get(metric, f"{metric} (%)")
