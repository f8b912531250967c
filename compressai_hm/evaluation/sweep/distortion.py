"""Distortion of decoded pictures."""

import numpy as np
import pytorch_msssim
from torch import Tensor

_MS_SSIM_MIN_SIDE = 161


def psnr(a: Tensor, b: Tensor, peak: float) -> float:
    """PSNR in dB of a picture against another, in float64; inf if they are equal.

    Args:
        a: Of the shape of ``b``, integers or floating point.
        b: The other one.
        peak: The largest value of a sample: 1 or 255.
    """
    mse = float((a.double() - b.double()).square().mean())
    return 10 * float(np.log10(peak**2 / mse)) if mse else float("inf")


def ms_ssim(a: Tensor, b: Tensor, peak: float) -> float | None:
    """MS-SSIM of pictures; None where a side is under 161 pixels, its least.

    Args:
        a: ``(N, C, H, W)``; compared in float32.
        b: The other one.
        peak: The largest value of a sample: 1 or 255.
    """
    if min(a.shape[-2:]) < _MS_SSIM_MIN_SIDE:
        return None
    return float(pytorch_msssim.ms_ssim(a.float(), b.float(), data_range=peak))
