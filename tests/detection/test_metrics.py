import pytest
import torch

from compressai_hm.detection import RateDistortionMetric


def evaluate(sizes, error, bits):
    metric = RateDistortionMetric()
    for (h, w), e, b in zip(sizes, error, bits, strict=True):
        bgr = torch.randint(0, 200, (3, h, w), dtype=torch.uint8)
        rgb = bgr.flip(0)
        sample = {"x_hat": rgb + e, "x_bar": rgb, "bits": b}
        metric.process({"inputs": [bgr]}, [sample])
    return metric.evaluate(len(sizes))


def test_figures_are_means_over_pictures_of_original_pixels():
    got = evaluate([(10, 13), (40, 50)], error=(1, 2), bits=(130, 4000))
    assert got["codec/bpp"] == pytest.approx((1 + 2) / 2)
    expected = [10 * torch.log10(torch.tensor(255.0**2 / e**2)) for e in (1, 2)]
    assert got["codec/psnr_x_hat"] == pytest.approx(float(sum(expected)) / 2, rel=1e-5)
    assert got["codec/psnr_x_bar"] > 100
    assert not any("ms_ssim" in key for key in got)  # too small for it


def test_ms_ssim_where_pictures_are_large_enough():
    got = evaluate([(161, 170), (20, 20)], error=(3, 3), bits=(1, 1))
    assert 0.9 < got["codec/ms_ssim_x_hat"] < got["codec/ms_ssim_x_bar"] == 1
