"""Plots as PNG and SVG, and one HTML page that needs nothing else."""

import base64
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
from .parts import digest, read
from .results import Measured, describe, in_units, title, transfer
from .sweep import UNCOMPRESSED, Point, Sweep

PUBLISHED = json.loads(
    (Path(__file__).parent / "published.json").read_text(encoding="utf-8")
)
"""The paper's figures; never mixed with measured ones."""

_COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00",
    "#56b4e9", "#8c564b", "#444444", "#7f3fbf", "#b8a900",
)  # fmt: skip
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
            paper's points ("detection", "segmentation", "Kodak PSNR") beside ours, and
            ``ablation``, names of codecs to be plotted by themselves as well, and
            ``dial = True`` for a plot of PSNR against mAP.
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
    charts, curves = [], [c for c in curves if c.is_curve]
    for name, metric in dict.fromkeys((c.set, m) for c in curves for m in c.metrics):
        own = [c for c in curves if c.set == name and metric in c.metrics]
        level = in_units(metric, [reference.get(name, {}).get(metric, np.nan)])[0]
        published = _published(sweep, name, metric)
        chosen = {"": (own, published)}
        ablated = sweep.cfg.get("ablation", ())
        if ablated:
            some = [c for c in own if c.codec in ablated]
            pair = {k: v for k, v in published.items() if k.startswith("method")}
            chosen[" ablation"] = (some, pair)
        for suffix, (lines, points) in chosen.items():
            if lines:
                chart = (f"{name}{suffix}", metric, lines, level, points, colours)
                _plot(Path(sweep.work_dir) / "plots", *chart)
                charts.append(_chart(*chart))
    if sweep.cfg.get("dial"):
        charts += _dials(Path(sweep.work_dir) / "plots", curves, colours)
    body = [
        f"<h1>{html.escape(Path(sweep.work_dir).name)}</h1>",
        "<p>Real bytes of files over original pixels. A set's bpp, PSNR and MS-SSIM "
        "are the means over its pictures; mAP is COCO's, read from the decoded file. "
        "Dashed: x_bar. Hover for numbers.</p>",
        '<div class="charts">' + "".join(charts) + "</div>",
        _table(sweep, rows),
        _transfer(sweep, rows),
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


def _plot(folder: Path, name, metric, own, level, published, colours) -> None:
    figure = matplotlib.figure.Figure(figsize=(7, 5), layout="constrained")
    ax = figure.subplots()
    for c in own:
        style = "o-" if c.view == "x_hat" else "s--"
        curve = c.curve(metric)
        ax.plot(
            curve.rate,
            curve.quality,
            style,
            color=colours[c.codec],
            label=c.label,
            ms=4,
        )
    for label, points in published.items():
        ax.plot(*zip(*points, strict=True), "x:", lw=1, label=f"{label} (published)")
    if np.isfinite(level):
        ax.axhline(level, color="black", lw=1, label=UNCOMPRESSED)
    ax.set(xlabel="bits per original pixel", ylabel=title(metric))
    ax.set_title(f"{name}: {title(metric)}")
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8)
    _save(figure, folder, f"{name} {metric}")


def _save(figure: matplotlib.figure.Figure, folder: Path, name: str) -> bytes:
    """Writes PNG and SVG, and gives the latter."""
    stem = name.replace(" ", "_").replace("/", "_")
    for suffix in ("png", "svg"):
        with io.BytesIO() as f:
            metadata = {"Date": None} if suffix == "svg" else None
            figure.savefig(f, format=suffix, dpi=150, metadata=metadata)
            write_whole(f.getvalue(), folder / f"{stem}.{suffix}")
            data = f.getvalue()
    return data


def _dials(folder: Path, curves: list[Measured], colours: dict) -> list[str]:
    """PSNR of x_hat against mAP, a point for each codec's quality; bpp beside it."""
    out = []
    psnr = {
        (c.set, c.codec): c.metrics.get("psnr") for c in curves if c.view == "x_hat"
    }
    for name, metric in dict.fromkeys(
        (c.set, m) for c in curves for m in c.metrics if "mAP " in m
    ):
        own = [
            c
            for c in curves
            if c.set == name and metric in c.metrics and psnr[c.set, c.codec]
        ]
        figure = matplotlib.figure.Figure(figsize=(7, 5), layout="constrained")
        ax = figure.subplots()
        for c in own:
            points = psnr[c.set, c.codec], in_units(metric, c.metrics[metric])
            marker = "o" if c.view == "x_hat" else "s"
            ax.plot(*points, marker, color=colours[c.codec], label=c.label)
            for x, y, bpp in zip(*points, c.bpp, strict=True):
                ax.annotate(
                    f"{bpp:.3f} bpp",
                    (x, y),
                    (5, 5),
                    textcoords="offset points",
                    fontsize=7,
                )
        ax.set(xlabel="PSNR of x_hat (dB)", ylabel=title(metric))
        ax.set_title(f"{name}: people against machines")
        ax.grid(alpha=0.3)
        ax.legend(fontsize=8)
        svg = _save(figure, folder, f"{name} dial {metric}")
        data = base64.b64encode(svg).decode()
        alt = "PSNR against mAP"
        out.append(
            f'<figure><img alt="{alt}" width="100%" '
            f'src="data:image/svg+xml;base64,{data}"></figure>'
        )
    return out


def _chart(name, metric, own, level, published, colours) -> str:
    """The curves as SVG whose points show their numbers."""
    width, height, left, right, top, bottom = 560, 380, 56, 12, 30, 44
    lines = [
        (c.label, colours[c.codec], "" if c.view == "x_hat" else "6 3",
         list(zip(c.bpp, c.curve(metric).quality, c.qualities, strict=True)))
        for c in own
    ]  # fmt: skip
    lines += [
        (f"{label} (published)", "#999999", "1 4", [(*p, None) for p in points])
        for label, points in published.items()
    ]
    xs = [p[0] for line in lines for p in line[3]]
    ys = [p[1] for line in lines for p in line[3] if np.isfinite(p[1])]
    if np.isfinite(level):
        ys.append(level)
    if not ys:
        return ""
    x_ticks, y_ticks = _ticks(0, max(xs)), _ticks(min(ys), max(ys))

    def at(x, y):
        x = left + (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]) * (
            width - left - right
        )
        share = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return x, height - bottom - share * (height - top - bottom)

    heading = html.escape(f"{name}: {title(metric)}")
    parts = [f'<text x="{left}" y="18" class="title">{heading}</text>']
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
    if np.isfinite(level):
        (low, py), (high, _) = at(x_ticks[0], level), at(x_ticks[-1], 0)
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
    if np.isfinite(level):
        legend += f'<span><i style="background:#000"></i>{UNCOMPRESSED}</span>'
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
        "<p>Bits at equal quality, quality at equal bits; 95 % interval over resampled "
        "pictures; where the curves overlap, and in how much of the anchor's range.</p>"
        f"<table><tr><th></th>{head}</tr>{''.join(lines)}</table>"
    )


def _cell(row: dict) -> str:
    lines = [html.escape(describe(row, name)) for name in ("bd_rate", "bd_quality")]
    value = row["bd_rate"].value
    head = f"<b>{value:+.1f} %</b><br>" if value is not None else ""
    return f"{head}<small>bits: {lines[0]}<br>quality: {lines[1]}</small>"


def _transfer(sweep: Sweep, rows: list[dict]) -> str:
    table = transfer(sweep, rows)
    if not table:
        return ""
    lines = [
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>"
        for line in table
    ]
    return (
        "<h2>Trained for, by read by: BD-rate at equal mAP</h2>"
        f"<table>{''.join(lines)}</table>"
    )


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
    """Table 1 as published, and what its digitised points give."""
    columns = PUBLISHED["table1"]["columns"]
    found = {(kind, codec): figure.value for kind, codec, _, figure in paper_check()}
    lines = []
    for codec, figures in PUBLISHED["table1"]["rows"].items():
        cells = []
        for kind, value in zip(columns, figures, strict=True):
            own = found.get((kind, codec))
            text = f"{value:+.2f} %"
            if own is not None:
                text += f"<br><small>from its points {own:+.1f} %</small>"
            cells.append(f"<td>{text}</td>")
        lines.append(f"<tr><th>{codec}</th>{''.join(cells)}</tr>")
    head = "".join(f"<th>{column}</th>" for column in columns)
    curves = PUBLISHED["curves"]["detection"]
    pair = (Curve(*zip(*curves[c], strict=True)) for c in ("Cheng 2020", "method"))
    return (
        "<h2>Published, not measured here: the paper's Table 1</h2>"
        f"<p>{html.escape(PUBLISHED['source'])}. BD-rate against "
        f"{PUBLISHED['anchor']}, of which only three points can be read, hence the "
        "gaps. The method against "
        f"Cheng 2020, detection, from the points: {bd_rate(*pair).value:+.1f} %.</p>"
        f"<table><tr><th></th>{head}</tr>{''.join(lines)}</table>"
    )


def _strips(sweep: Sweep, curves: list[Measured], count: int = 3) -> str:
    """Pictures beside their decoded versions at about the same bits."""
    points = dict(sweep.finished())
    out = []
    for s, own in enumerate(sweep.sets):
        measured = [c for c in curves if c.set == sweep.cfg.sets[s].name]
        if not measured:
            continue
        target = float(np.median([b for c in measured for b in c.bpp]))
        shown = [Point(-1, 0, s)] if Point(-1, 0, s) in points else []
        for c, codec in enumerate(sweep.cfg.codecs):
            near = next((m for m in measured if m.codec == codec.name), None)
            if near:
                place = int(np.argmin([abs(b - target) for b in near.bpp]))
                shown.append(Point(c, near.qualities[place], s))
        for i, (_, path) in enumerate(own.pictures[:count]):
            panels = [
                panel
                for point in shown
                for panel in _decoded(sweep, point, points[point], i, path)
            ]
            out.append(f'<div class="strip">{"".join(panels)}</div>')
    return (
        "<h2>Pictures, at the points nearest to equal bits</h2>"
        f"<p>Boxes of the set's first detector, from a score of 0.3.</p>{''.join(out)}"
    )


def _decoded(sweep: Sweep, point: Point, result: dict, i: int, path: Path) -> list[str]:
    row, x = result["pictures"][i], read(path)
    if point.codec < 0:
        views, name = {"x_hat": x}, "x"
    else:
        data = sweep.stream_file(point, path).read_bytes()
        views = sweep.coder(point).decode(data, tuple(x.shape[-2:]))
        name = sweep.cfg.codecs[point.codec].name
    panels = []
    for view, picture in views.items():
        found = next(iter(result["detections"].values()), {}).get(view, [])
        boxes = [
            d["bbox"] for d in found if d["image_id"] == row["id"] and d["score"] >= 0.3
        ]
        caption = "x, uncompressed"
        if point.codec >= 0:
            bpp, psnr = 8 * row["bytes"] / (x[0, 0].numel()), row[f"psnr_{view}"]
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
    for seconds in ("encode", "decode"):
        lines.append((f"{seconds}, seconds a picture", _times(sweep, seconds)))
    weights = [p for c in sweep.cfg.codecs for p in c.get("checkpoints", ())]
    weights += [d["checkpoint"] for own in sweep.sets for d in own.detectors]
    for path in dict.fromkeys(weights):
        lines.append((path, f"sha256 {digest(path)}"))
    lines.append(("resampling of pictures", "seed 0"))
    lines.append(("config", sweep.cfg.pretty_text))
    body = "".join(
        f"<tr><th>{html.escape(k)}</th><td><pre>{html.escape(v)}</pre></td></tr>"
        for k, v in lines
    )
    return f"<h2>How this was made</h2><table>{body}</table>"


def _times(sweep: Sweep, which: str) -> str:
    """Of each codec, the median over its points' means."""
    found: dict[str, list[float]] = {}
    for point, _ in sweep.finished():
        file = sweep.result_file(point, "times")
        seconds = (
            json.loads(file.read_text(encoding="utf-8"))[which] if file.exists() else []
        )
        if point.codec >= 0 and seconds:
            name = sweep.cfg.codecs[point.codec].name
            found.setdefault(name, []).append(float(np.mean(seconds)))
    return ", ".join(f"{name} {np.median(v):.3f}" for name, v in found.items())


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
small { color: #666; } pre { margin: 0; white-space: pre-wrap; font-size: 12px; }
th { font-weight: 600; max-width: 16em; }
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
