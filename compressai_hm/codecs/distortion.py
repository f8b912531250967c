"""Distortion of decoded pictures: the one place where PSNR and MS-SSIM are computed."""

import math

import numpy as np
import pytorch_msssim
from torch import Tensor

from .entropy.devices import in_float64
from .precision import without_tf32

MS_SSIM_MIN_SIDE = 161
"""Pixels: four halvings must leave more than a window of 11."""


def psnr_of(mse: Tensor, peak: float) -> Tensor:
    """PSNR in dB of mean squared errors; inf where there is none.

    Args:
        mse: Of any shape.
        peak: The largest value of a sample: 1 or 255.
    """
    return 20 * math.log10(peak) - 10 * mse.log10()


def psnr(a: Tensor, b: Tensor, peak: float) -> float:
    """PSNR in dB of a picture against another, in float64; inf if they are equal.

    Args:
        a: Of the shape of ``b``, integers or floating point.
        b: The other one.
        peak: The largest value of a sample: 1 or 255.
    """
    mse = float((in_float64(a) - in_float64(b)).square().mean())
    return 10 * float(np.log10(peak**2 / mse)) if mse else math.inf


def ms_ssim(a: Tensor, b: Tensor, peak: float) -> float | None:
    """MS-SSIM of pictures; None where a side is under 161 pixels, its least.

    Z. Wang, E. Simoncelli and A. Bovik, "Multi-scale structural similarity for image
    quality assessment", Asilomar 2003.

    Args:
        a: ``(N, C, H, W)``; integers are compared in float32.
        b: The other one.
        peak: The largest value of a sample: 1 or 255.
    """
    if min(a.shape[-2:]) < MS_SSIM_MIN_SIDE:
        return None
    if not a.is_floating_point():
        a = a.float()
    with without_tf32():  # its window is a convolution
        return float(pytorch_msssim.ms_ssim(a, b.to(a), data_range=peak))
