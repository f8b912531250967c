import math

import pytest
import torch
from pytorch_msssim import ms_ssim as reference

from compressai_hm.distortion import ms_ssim, mse_to_psnr, psnr


def test_psnr_of_a_known_error():
    a = torch.full((1, 3, 8, 8), 100, dtype=torch.uint8)
    assert psnr(a, a + 5, 255) == pytest.approx(20 * math.log10(255 / 5))
    assert psnr(a / 255, (a + 5) / 255, 1) == pytest.approx(psnr(a, a + 5, 255))
    assert psnr(a, a, 255) == math.inf
    mse = torch.tensor([0.01, 0.0001])
    assert mse_to_psnr(mse, 1).tolist() == pytest.approx([20, 40])


def test_ms_ssim_where_a_picture_is_large_enough():
    a = torch.randint(0, 200, (1, 3, 161, 170), dtype=torch.uint8)
    b = a + torch.randint(0, 50, a.shape, dtype=torch.uint8)
    assert ms_ssim(a, b, 255) == float(reference(a.float(), b.float(), data_range=255))
    assert ms_ssim(a, a, 255) == pytest.approx(1)
    assert ms_ssim(a[..., :160, :], b[..., :160, :], 255) is None
    exact = ms_ssim(a.double(), b, 255)
    assert exact == float(reference(a.double(), b.double(), data_range=255))
