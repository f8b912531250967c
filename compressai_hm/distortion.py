"""PSNR and MS-SSIM of decoded pictures; no other file computes them."""

import math

import numpy as np
import pytorch_msssim
from torch import Tensor

from .entropy.devices import in_float64
from .runtime.precision import without_tf32

MS_SSIM_MIN_SIDE = 161
"""Shortest side in pixels: four halvings must leave more than a window of 11."""


def mse_to_psnr(mse: Tensor, peak: float) -> Tensor:
    """Computes PSNR from mean squared errors.

    Args:
        mse: Mean squared errors, of any shape.
        peak: Largest value of a sample, 1 or 255.

    Returns:
        PSNR in dB, like ``mse``; inf for an error of 0.
    """
    return 20 * math.log10(peak) - 10 * mse.log10()


def psnr(a: Tensor, b: Tensor, peak: float) -> float:
    """Computes the PSNR of two pictures in float64.

    Args:
        a: A picture of any shape, integer or floating point.
        b: The other picture, like ``a``.
        peak: Largest value of a sample, 1 or 255.

    Returns:
        PSNR in dB; inf if the pictures are equal.
    """
    mse = float((in_float64(a) - in_float64(b)).square().mean())
    return 10 * float(np.log10(peak**2 / mse)) if mse else math.inf


def ms_ssim(a: Tensor, b: Tensor, peak: float) -> float | None:
    """Computes the MS-SSIM of pictures.

    Z. Wang, E. Simoncelli and A. Bovik, "Multi-scale structural similarity for image
    quality assessment", Asilomar 2003.

    Args:
        a: Pictures, ``(N, C, H, W)``; integers are converted to float32.
        b: The other pictures, like ``a``.
        peak: Largest value of a sample, 1 or 255.

    Returns:
        MS-SSIM; None if a side is shorter than 161 pixels.
    """
    if min(a.shape[-2:]) < MS_SSIM_MIN_SIDE:
        return None
    if not a.is_floating_point():
        a = a.float()
    with without_tf32():  # MS-SSIM convolves with a window
        return float(pytorch_msssim.ms_ssim(a, b.to(a), data_range=peak))
