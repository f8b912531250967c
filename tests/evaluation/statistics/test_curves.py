import json

from ..conftest import finish


def test_a_lossless_codec_is_the_uncompressed_picture(cfg, tmp_path):
    """Through real files; where there is no PSNR, no curve is compared."""
    cfg.codecs = [
        dict(name="JPEG", type="jpeg", qualities=[30, 60]),
        dict(name="JPEG XL", type="jpegxl", qualities=[60, 100]),
    ]
    _, curves, comparisons, reference = finish(cfg, tmp_path)
    found = {(c.set, c.codec): c for c in curves}
    lossless = found["drawn", "JPEG XL"].metrics["mAP Faster R-CNN R18"][-1]
    assert lossless == reference["drawn"]["mAP Faster R-CNN R18"]
    assert "psnr" not in found["people", "JPEG"].metrics
    assert found["people", "JPEG"].left_out == {"psnr": 2, "ms_ssim": 1}
    stored = json.loads((tmp_path / "results/people/JPEG.json").read_text())
    assert "psnr without 2" in stored["description"]
    assert {c.metric for c in comparisons} == {"mAP Faster R-CNN R18", "ms_ssim"}
