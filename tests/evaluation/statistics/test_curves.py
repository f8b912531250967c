import json

import cv2
import numpy as np

from compressai_hm.evaluation import text_tables as tables
from compressai_hm.evaluation.statistics.curves import measure
from compressai_hm.evaluation.sweep import Sweep, run

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
    jpeg = found["people", "JPEG"]
    assert "psnr" not in jpeg.metrics
    assert jpeg.left_out == {"psnr": ["odd.png", "small.png"], "ms_ssim": ["small.png"]}
    # MS-SSIM and its rate are of the one picture that is large enough for it.
    points = tmp_path.glob("points/JPEG/*/*people*.json")
    rows = [json.loads(path.read_text())["pictures"] for path in points]
    odd = [row for own in rows for row in own if row["name"] == "odd.png"]
    rates = sorted(8 * row["bytes"] / (171 * 165) for row in odd)
    assert jpeg.rate("ms_ssim") == rates == list(jpeg.curve("ms_ssim").rate)
    assert jpeg.rate("psnr") == jpeg.bpp != rates
    stored = tmp_path / "results/people/JPEG_ms_ssim.json"
    stored = json.loads(stored.read_text())
    assert "except small.png" in stored["description"]
    assert stored["results"]["bpp"] == rates
    shared = json.loads((tmp_path / "results/people/JPEG.json").read_text())
    assert "ms-ssim-rgb" not in shared["results"]
    assert "people, MS-SSIM (dB), without small.png" in tables.bd_values(comparisons)
    assert {c.metric for c in comparisons} == {"mAP Faster R-CNN R18", "ms_ssim"}


def test_details_are_of_sizes_places_and_what_was_found_before(cfg, tmp_path):
    cfg.codecs = [
        dict(name="JPEG", type="jpeg", qualities=[5, 60]),
        dict(name="JPEG XL", type="jpegxl", qualities=[100]),
    ]
    cfg.sets = cfg.sets[:1]
    one = Sweep(cfg, tmp_path)
    run(one)
    plain, _ = measure(one, 5)
    curves, _ = measure(one, 5, details=True)
    jpeg, lossless = curves
    name = "Faster R-CNN R18"
    assert lossless.metrics[f"agreement {name}"][0] > 1 - 1e-9
    low, high = jpeg.metrics[f"agreement {name}"]
    assert low < high < 1
    assert len(jpeg.resampled[f"agreement {name}"][0]) == 5
    sizes = {m for m in jpeg.metrics if f" mAP {name}" in m}
    assert sizes and sizes <= {f"{s} mAP {name}" for s in ("small", "medium", "large")}
    for curve, own in zip(plain, curves, strict=True):
        for metric, values in curve.metrics.items():
            assert own.metrics[metric] == values

    result = json.loads(next(tmp_path.glob("points/JPEG/5/*.json")).read_text())
    row = result["pictures"][0]
    path = dict(one.sets[0].pictures)[row["id"]]
    stream = next(tmp_path.glob(f"streams/JPEG/5-*/{path.name}-*"))
    x, decoded = (cv2.imread(str(p)).astype(float) for p in (path, stream))
    inside = np.zeros(x.shape[:2], bool)
    for o in one.sets[0].truth.imgToAnns[row["id"]]:
        left, top, width, height = o["bbox"]
        rows = slice(int(top), int(np.ceil(top + height)))
        inside[rows, int(left) : int(np.ceil(left + width))] = True
    for key, mask in (("object", inside), ("background", ~inside)):
        expected = 20 * np.log10(255) - 10 * np.log10(((x - decoded)[mask] ** 2).mean())
        assert abs(row[f"{key}_psnr_x_hat"] - expected) < 0.01
