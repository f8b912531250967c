"""Plots as PNG and SVG, and one HTML page that needs nothing else."""

import base64
import hashlib
import html
import importlib.metadata
import io
import json
import platform
import shlex
from pathlib import Path

import matplotlib.figure
import numpy as np
import torch
from PIL import Image, ImageDraw

from ..codecs.files import write_whole
from .bd import Curve, Figure, bd_rate
from .results import Measured
from .sweep import Point, Sweep, _coder, finished, read

PUBLISHED = json.loads((Path(__file__).parent / "published.json").read_text())
"""The paper's figures; never mixed with measured ones."""

_COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00",
    "#56b4e9", "#8c564b", "#444444", "#7f3fbf", "#b8a900",
)  # fmt: skip
_NAMES = {"psnr": "PSNR (dB)", "ms_ssim": "MS-SSIM"}
_PACKAGES = (
    "compressai-hm", "torch", "torchvision", "compressai", "bjontegaard", "Pillow",
    "imageio-ffmpeg", "onedl-mmdetection", "mmdet", "pycocotools", "numpy",
)  # fmt: skip


def write(
    sweep: Sweep,
    curves: list[Measured],
    rows: list[dict],
    reference: dict,
    command: list[str],
) -> Path:
    """Writes ``plots/*.png``, ``plots/*.svg`` and ``report.html``.

    Args:
        sweep: The sweep; its config may say ``published = {set: curve}`` to lay the
            paper's points ("detection", "segmentation", "Kodak PSNR") beside ours.
        curves: Of ``results.measure``.
        rows: Of ``results.compare``.
        reference: mAP on uncompressed pictures.
        command: What was typed.

    Returns:
        The page.
    """
    colours = {
        codec.name: _COLOURS[i % len(_COLOURS)]
        for i, codec in enumerate(sweep.cfg.codecs)
    }
    charts = []
    for name, metric in dict.fromkeys((c.set, m) for c in curves for m in c.metrics):
        own = [c for c in curves if c.set == name and metric in c.metrics]
        level = reference.get(name, {}).get(metric)
        published = _published(sweep, name, metric)
        _plot(sweep, name, metric, own, level, published, colours)
        charts.append(_chart(name, metric, own, level, published, colours))
    body = [
        f"<h1>{html.escape(Path(sweep.work_dir).name)}</h1>",
        "<p>Real bytes of files over original pixels. A set's bpp, PSNR and MS-SSIM "
        "are the means over its pictures; mAP is COCO's, read from the decoded file. "
        "Dashed: x_bar. Hover for numbers.</p>",
        '<div class="charts">' + "".join(charts) + "</div>",
        _table(sweep, rows),
        _paper_table(),
        _strips(sweep, curves),
        _environment(sweep, command),
    ]
    page = Path(sweep.work_dir) / "report.html"
    write_whole(_PAGE.replace("BODY", "\n".join(body)).encode(), page)
    return page


def _published(sweep: Sweep, name: str, metric: str) -> dict[str, list]:
    kind = sweep.cfg.get("published", {}).get(name)
    of = {"detection": "mAP ", "segmentation": "mask mAP ", "Kodak PSNR": "psnr"}
    fits = kind and metric.startswith(of[kind])
    return PUBLISHED["curves"][kind] if fits else {}


def _scaled(metric: str, values):
    return [100 * v for v in values] if "mAP " in metric else list(values)


def _plot(sweep, name, metric, own, level, published, colours) -> None:
    figure = matplotlib.figure.Figure(figsize=(7, 5), layout="constrained")
    ax = figure.subplots()
    for c in own:
        style = "o-" if c.view == "x_hat" else "s--"
        values = _scaled(metric, c.metrics[metric])
        ax.plot(c.bpp, values, style, color=colours[c.codec], label=c.label, ms=4)
    for label, points in published.items():
        ax.plot(*zip(*points, strict=True), "x:", lw=1, label=f"{label} (published)")
    if level is not None:
        ax.axhline(100 * level, color="black", lw=1, label="uncompressed")
    ax.set(xlabel="bits per original pixel", ylabel=_NAMES.get(metric, metric))
    ax.set_title(f"{name}: {_NAMES.get(metric, metric)}")
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8)
    stem = f"{name} {metric}".replace(" ", "_").replace("/", "_")
    for suffix in ("png", "svg"):
        with io.BytesIO() as f:
            metadata = {"Date": None} if suffix == "svg" else None
            figure.savefig(f, format=suffix, dpi=150, metadata=metadata)
            target = Path(sweep.work_dir) / "plots" / f"{stem}.{suffix}"
            write_whole(f.getvalue(), target)


def _chart(name, metric, own, level, published, colours) -> str:
    """The curves as SVG whose points show their numbers."""
    width, height, left, right, top, bottom = 560, 380, 56, 12, 30, 44
    lines = [
        (c.label, colours[c.codec], "" if c.view == "x_hat" else "6 3",
         list(zip(c.bpp, _scaled(metric, c.metrics[metric]), c.qualities, strict=True)))
        for c in own
    ]  # fmt: skip
    lines += [
        (f"{label} (published)", "#999999", "1 4", [(*p, None) for p in points])
        for label, points in published.items()
    ]
    xs = [p[0] for line in lines for p in line[3]]
    ys = [p[1] for line in lines for p in line[3] if np.isfinite(p[1])]
    if level is not None:
        ys.append(100 * level)
    if not ys:
        return ""
    x_ticks, y_ticks = _ticks(0, max(xs)), _ticks(min(ys), max(ys))

    def at(x, y):
        x = left + (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]) * (
            width - left - right
        )
        share = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return x, height - bottom - share * (height - top - bottom)

    title = html.escape(f"{name}: {_NAMES.get(metric, metric)}")
    parts = [f'<text x="{left}" y="18" class="title">{title}</text>']
    for x in x_ticks:
        (px, low), (_, high) = at(x, y_ticks[0]), at(x, y_ticks[-1])
        parts.append(f'<line x1="{px}" y1="{low}" x2="{px}" y2="{high}" class="grid"/>')
        parts.append(f'<text x="{px}" y="{low + 16}" class="x">{x:g}</text>')
    for y in y_ticks:
        (low, py), (high, _) = at(x_ticks[0], y), at(x_ticks[-1], y)
        parts.append(f'<line x1="{low}" y1="{py}" x2="{high}" y2="{py}" class="grid"/>')
        parts.append(f'<text x="{low - 6}" y="{py + 4}" class="y">{y:g}</text>')
    middle = (left + width - right) / 2
    parts.append(f'<text x="{middle}" y="{height - 8}" class="x">bpp</text>')
    if level is not None:
        (low, py), (high, _) = at(x_ticks[0], 100 * level), at(x_ticks[-1], 0)
        parts.append(
            f'<line x1="{low}" y1="{py}" x2="{high}" y2="{py}" class="level"/>'
        )
    for label, colour, dash, points in lines:
        points = [p for p in points if np.isfinite(p[1])]
        path = " ".join("{:.1f},{:.1f}".format(*at(x, y)) for x, y, _ in points)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" '
            f'stroke-dasharray="{dash}" stroke-width="1.8"/>'
        )
        for x, y, quality in points:
            tip = f"{label}: {x:.4f} bpp, {y:.4g}"
            tip += f" (quality {quality})" if quality is not None else ""
            px, py = at(x, y)
            parts.append(
                f'<circle cx="{px:.1f}" cy="{py:.1f}" r="4" fill="{colour}" '
                f'data-tip="{html.escape(tip)}"/>'
            )
    legend = "".join(
        f'<span><i style="background:{colour}"></i>{html.escape(label)}</span>'
        for label, colour, *_ in lines
    )
    svg = f'<svg viewBox="0 0 {width} {height}">{"".join(parts)}</svg>'
    return f'<figure>{svg}<figcaption class="legend">{legend}</figcaption></figure>'


def _ticks(low: float, high: float) -> list[float]:
    span = high - low or abs(high) or 1.0
    step = 10 ** np.floor(np.log10(span))
    step = next(step * k for k in (0.1, 0.2, 0.5, 1, 2) if span / (step * k) <= 7)
    first = np.floor(low / step)
    last = max(np.ceil(high / step), first + 1)
    return [float(round(i * step, 10)) for i in np.arange(first, last + 1)]


def _table(sweep: Sweep, rows: list[dict]) -> str:
    columns = list(dict.fromkeys((r["set"], r["metric"]) for r in rows))
    labels = list(dict.fromkeys((r["codec"], r["view"]) for r in rows))
    found = {(r["codec"], r["view"], r["set"], r["metric"]): r for r in rows}
    head = "".join(f"<th>{html.escape(f'{s}: {m}')}</th>" for s, m in columns)
    lines = []
    for codec, view in labels:
        cells = []
        for column in columns:
            row = found.get((codec, view, *column))
            cells.append(f"<td>{_cell(row) if row else ''}</td>")
        name = html.escape(codec + ("" if view == "x_hat" else f" {view}"))
        lines.append(f"<tr><th>{name}</th>{''.join(cells)}</tr>")
    return (
        f"<h2>BD-rate against {html.escape(sweep.cfg.anchor)}</h2>"
        "<p>Bits at equal quality; 95 % interval over resampled pictures; then where "
        "the curves overlap, and BD-quality at equal rate.</p>"
        f"<table><tr><th></th>{head}</tr>{''.join(lines)}</table>"
    )


def _cell(row: dict) -> str:
    rate, quality = row["bd_rate"], row["bd_quality"]
    if rate.value is None:
        return f'<span class="none">{html.escape("; ".join(rate.notes))}</span>'
    low, high = rate.overlap
    text = f"<b>{rate.value:+.1f} %</b>"
    if rate.interval:
        text += f"<br>[{rate.interval[0]:+.1f}, {rate.interval[1]:+.1f}]"
    text += f"<br><small>over {low:.4g}–{high:.4g} ({100 * rate.share:.0f} %)"
    if quality.value is not None:
        text += f"<br>BD-quality {quality.value:+.4f}"
    if rate.notes:
        text += f"<br>{html.escape('; '.join(rate.notes))}"
    return f"{text}</small>"


def paper_check() -> list[tuple[str, str, float, Figure]]:
    """BD-rates of the paper's digitised points beside its Table 1.

    Returns:
        (curve, codec, Table 1's figure in per cent, ours) of each.
    """
    out = []
    columns = PUBLISHED["table1"]["columns"]
    for kind, curves in PUBLISHED["curves"].items():
        anchor = curves.get(PUBLISHED["anchor"])
        for codec, figures in PUBLISHED["table1"]["rows"].items():
            if anchor and codec in curves:
                pair = [
                    Curve(*zip(*points, strict=True))
                    for points in (anchor, curves[codec])
                ]
                out.append((kind, codec, figures[columns.index(kind)], bd_rate(*pair)))
    return out


def _paper_table() -> str:
    lines = [
        f"<tr><td>{kind}</td><th>{codec}</th><td>{table:+.1f} %</td>"
        f"<td>{figure.value:+.1f} %</td><td>{figure.value - table:+.1f}</td></tr>"
        for kind, codec, table, figure in paper_check()
    ]
    return (
        "<h2>Published, not measured here</h2>"
        f"<p>{html.escape(PUBLISHED['source'])}. Anchor {PUBLISHED['anchor']}, of "
        "which only three points are published; hence the gaps.</p><table><tr><th></th>"
        "<th>codec</th><th>Table 1</th><th>from its points</th><th>gap</th></tr>"
        f"{''.join(lines)}</table>"
    )


def _strips(sweep: Sweep, curves: list[Measured], count: int = 3) -> str:
    """Pictures beside their decoded versions at about the same bits."""
    points = {point: result for point, result in finished(sweep) if point.codec >= 0}
    out = []
    for s, entry in enumerate(sweep.cfg.sets):
        own = [c for c in curves if c.set == entry.name]
        if not own:
            continue
        target = float(np.median([b for c in own for b in c.bpp]))
        files = sweep.sets[s].pictures[:count]
        for i, (_, path) in enumerate(files):
            x = read(path)
            panels = [_panel(x, [], "x")]
            for c, codec in enumerate(sweep.cfg.codecs):
                near = [m for m in own if m.codec == codec.name and m.view == "x_hat"]
                if not near:
                    continue
                place = int(np.argmin([abs(b - target) for b in near[0].bpp]))
                point = Point(c, near[0].qualities[place], s)
                panels += _decoded(sweep, point, points[point], i, path, x)
            out.append(f'<div class="strip">{"".join(panels)}</div>')
    return f"<h2>Pictures, at about equal bits</h2>{''.join(out)}"


def _decoded(sweep, point, result, i, path, x) -> list[str]:
    coder = _coder(sweep.cfg, point)
    data = sweep.stream_file(point, path, coder.suffix).read_bytes()
    row = result["pictures"][i]
    panels = []
    for view, picture in coder.decode(data, tuple(x.shape[-2:])).items():
        found = next(iter(result["detections"].values()), {}).get(view, [])
        boxes = [
            d["bbox"] for d in found if d["image_id"] == row["id"] and d["score"] >= 0.3
        ]
        name = sweep.cfg.codecs[point.codec].name
        bpp = 8 * row["bytes"] / (row["size"][0] * row["size"][1])
        psnr = row[f"psnr_{view}"]
        caption = f"{name} {view}, {bpp:.3f} bpp"
        caption += f", {psnr:.2f} dB" if psnr is not None else ""
        panels.append(_panel(picture, boxes, caption))
    return panels


def _panel(picture: torch.Tensor, boxes: list, caption: str) -> str:
    image = Image.fromarray(picture[0].permute(1, 2, 0).contiguous().numpy())
    draw = ImageDraw.Draw(image)
    for left, top, width, height in boxes:
        draw.rectangle((left, top, left + width, top + height), outline="lime", width=3)
    image.thumbnail((420, 420))
    with io.BytesIO() as f:
        image.save(f, "JPEG", quality=88)
        data = base64.b64encode(f.getvalue()).decode()
    return (
        f'<figure><img alt="" src="data:image/jpeg;base64,{data}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _environment(sweep: Sweep, command: list[str]) -> str:
    lines = [
        ("command", shlex.join(["python", *command])),
        ("machine", f"{platform.platform()}, Python {platform.python_version()}"),
        ("CUDA", str(torch.cuda.is_available())),
    ]
    for package in _PACKAGES:
        try:
            lines.append((package, importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            continue
    weights = [p for c in sweep.cfg.codecs for p in c.get("checkpoints", ())]
    weights += [d["checkpoint"] for s in sweep.cfg.sets for d in s.get("detectors", ())]
    for path in dict.fromkeys(weights):
        if Path(path).is_file():
            digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
            lines.append((Path(path).name, f"sha256 {digest}"))
    lines.append(("resampling of pictures", "seed 0"))
    body = "".join(
        f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in lines
    )
    return f"<h2>How this was made</h2><table>{body}</table>"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Rate and accuracy</title>
<link rel="icon" href="data:,">
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 1240px;
  padding: 0 1em; color: #222; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(480px, 1fr));
  gap: 1.5em; }
figure { margin: 0; }
svg { width: 100%; }
.title { font-weight: 600; } .grid { stroke: #e4e4e4; } .level { stroke: #000; }
.x { text-anchor: middle; fill: #555; font-size: 12px; }
.y { text-anchor: end; fill: #555; font-size: 12px; }
circle:hover { stroke: #000; stroke-width: 2; }
.legend span { margin-right: 1em; white-space: nowrap; font-size: 13px; }
.legend i { display: inline-block; width: 12px; height: 12px; margin-right: 4px;
  border-radius: 6px; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { border-bottom: 1px solid #ddd; padding: 4px 10px; text-align: left;
  vertical-align: top; }
small, .none { color: #666; }
.strip { display: flex; gap: 8px; overflow-x: auto; margin-bottom: 1em; }
.strip img { max-height: 260px; display: block; }
.strip figcaption { font-size: 12px; max-width: 260px; }
#tip { position: fixed; background: #222; color: #fff; padding: 2px 8px;
  font-size: 13px; border-radius: 4px; pointer-events: none; display: none; }
</style></head><body>
BODY
<div id="tip"></div>
<script>
const tip = document.getElementById("tip");
for (const point of document.querySelectorAll("circle")) {
  point.addEventListener("mousemove", (e) => {
    tip.textContent = point.dataset.tip;
    tip.style.display = "block";
    tip.style.left = Math.min(e.clientX + 12, innerWidth - tip.offsetWidth - 8) + "px";
    tip.style.top = e.clientY + 12 + "px";
  });
  point.addEventListener("mouseleave", () => { tip.style.display = "none"; });
}
</script></body></html>
"""
