"""Draws docs/photo.jpg: a photograph, where its bits go, and what a detector finds.

python docs/photo.py     in the repository
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import app  # noqa: E402
import matplotlib.pyplot as plt  # noqa: E402
from _shared import load_detector_regions  # noqa: E402

from compressai_hm import DEFAULT_QUALITY, Bitstream, decode  # noqa: E402
from compressai_hm.encoder.rate_control import encode_to_size  # noqa: E402
from compressai_hm.encoder.regions import base_step, choose_steps  # noqa: E402
from compressai_hm.geometry import latent_size  # noqa: E402
from compressai_hm.io.pictures import read_picture  # noqa: E402

PICTURE = ROOT / "tools/pictures/kodim14.png"
BYTES = 4000
GAIN = 2.0
"""The right picture is coded by `hm-codec encode PICTURE --bytes BYTES --roi-detector
people --roi-detector-gain GAIN`."""

SCORE = 0.3


def main() -> None:
    x = read_picture(PICTURE)
    size, net = tuple(x.shape[-2:]), app.weights()
    regions = load_detector_regions(("people",), GAIN, ())
    even = choose_steps(size, None)
    finer = choose_steps(size, None, maps=[regions.step_map(x, base_step(None))])
    panels = [("original", x, None)]
    for name, steps in (("even", even), ("finer at people", finer)):
        data = encode_to_size(net, x, BYTES, steps, DEFAULT_QUALITY)
        view = decode(net, data)["x_hat"]
        panels.append((f"{name}, {len(data)} bytes", view, Bitstream.read(data)))
    figure, axes = plt.subplots(2, 3, figsize=(12, 5.7), layout="constrained")
    for column, (name, view, stream) in zip(axes.T, panels, strict=True):
        (found,) = regions.detect(view)
        boxes = found.bboxes[found.scores >= SCORE].tolist()
        _show(column[0], view, f"{name}: {len(boxes)} boxes", boxes)
        if stream is not None:
            bits = app.bits_by_place(net, stream)
            _show(column[1], app.over_picture(bits, (255 * x).byte()) / 255, "its bits")
    rows, cols = latent_size(x.shape[-2:])
    fine = (finer.offsets < 0)[:rows, :cols]
    seen = app.over_picture(fine.astype(float), (255 * x).byte()) / 255
    _show(axes[1, 0], seen, "where it looks")
    figure.savefig(ROOT / "docs/photo.jpg", dpi=110, pil_kwargs={"quality": 88})


def _show(axis: plt.Axes, picture, title: str, boxes: list = ()) -> None:
    axis.imshow(picture[0].permute(1, 2, 0).clamp(0, 1).numpy())
    axis.set_title(title, fontsize=11)
    axis.axis("off")
    for left, top, right, bottom in boxes:
        own = dict(fill=False, edgecolor="white", linewidth=1.5)
        corner = (left, top), right - left, bottom - top
        axis.add_patch(plt.Rectangle(*corner, **own))


if __name__ == "__main__":
    main()
