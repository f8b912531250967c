"""Distortion of decoded pictures."""

import numpy as np
from pytorch_msssim import ms_ssim
from torch import Tensor

_MS_SSIM_MIN_SIDE = 161


def distortion(
    x: Tensor, picture: Tensor, with_ms_ssim: bool
) -> dict[str, float | None]:
    """PSNR (dB) and MS-SSIM of 8-bit pictures; None where there is none."""
    mse = float((x.double() - picture.double()).square().mean())
    out: dict[str, float | None] = {
        "psnr": 10 * float(np.log10(255**2 / mse)) if mse else None
    }
    if with_ms_ssim:
        large = min(x.shape[-2:]) >= _MS_SSIM_MIN_SIDE
        views = x.float(), picture.float()
        out["ms_ssim"] = float(ms_ssim(*views, data_range=255)) if large else None
    return out
