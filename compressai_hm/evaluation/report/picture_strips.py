"""Pictures beside their decoded versions, as HTML."""

import base64
import html
import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from ..statistics.curves import MeasuredCurve
from ..sweep import Point, Sweep, read_picture

_MIN_SCORE = 0.3


def strips(sweep: Sweep, curves: list[MeasuredCurve], count: int = 3) -> str:
    """Returns the first pictures of each set as HTML, at about the same bits.

    Args:
        sweep: The sweep.
        curves: The result of ``curves.measure``.
        count: Number of pictures of each set. Defaults to 3.
    """
    points = dict(sweep.finished())
    out = []
    for s, pictures in enumerate(sweep.sets):
        set_curves = [c for c in curves if c.set == sweep.cfg.sets[s].name]
        if not set_curves:
            continue
        target = float(np.median([b for c in set_curves for b in c.bpp]))
        chosen = [Point(-1, 0, s)] if Point(-1, 0, s) in points else []
        for c, codec in enumerate(sweep.cfg.codecs):
            curve = next((m for m in set_curves if m.codec == codec.name), None)
            if curve:
                nearest = int(np.argmin([abs(b - target) for b in curve.bpp]))
                chosen.append(Point(c, curve.qualities[nearest], s))
        for i, (_, path) in enumerate(pictures.pictures[:count]):
            panels = [
                panel
                for point in chosen
                for panel in _make_panels(sweep, point, points[point], i, path)
            ]
            out.append(f'<div class="strip">{"".join(panels)}</div>')
    return (
        "<h2>Pictures, at the points nearest to equal bits</h2>"
        "<p>The boxes are the set's first detector's, from a score of "
        f"{_MIN_SCORE}.</p>" + "".join(out)
    )


def _make_panels(
    sweep: Sweep, point: Point, result: dict, i: int, path: Path
) -> list[str]:
    row, x = result["pictures"][i], read_picture(path)
    if point.codec < 0:
        views = {"x_hat": x}
    else:
        data = sweep.stream_file(point, path).read_bytes()
        views = sweep.coder(point).decode(data, tuple(x.shape[-2:]))
    panels = []
    for view, picture in views.items():
        detections = next(iter(result["detections"].values()), {}).get(view, [])
        boxes = [
            d["bbox"]
            for d in detections
            if d["image_id"] == row["id"] and d["score"] >= _MIN_SCORE
        ]
        caption = "x, uncompressed"
        if point.codec >= 0:
            bpp, psnr = 8 * row["bytes"] / (x[0, 0].numel()), row[f"psnr_{view}"]
            caption = f"{sweep.name(point)} {view}, {bpp:.3f} bpp"
            caption += f", {psnr:.2f} dB" if psnr is not None else ""
        panels.append(_draw_panel(picture, boxes, caption))
    return panels


def _draw_panel(picture: torch.Tensor, boxes: list, caption: str) -> str:
    image = Image.fromarray(picture[0].permute(1, 2, 0).contiguous().numpy())
    draw = ImageDraw.Draw(image)
    for left, top, width, height in boxes:
        draw.rectangle((left, top, left + width, top + height), outline="lime", width=3)
    image.thumbnail((420, 420))
    with io.BytesIO() as f:
        image.save(f, "JPEG", quality=88)
        data = base64.b64encode(f.getvalue()).decode()
    caption = html.escape(caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/jpeg;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )
