"""Rate-quality charts by matplotlib: files for papers, and SVG for the page.

The charts can be read in black and white: codecs differ by marker and dash, and the
views by filled and hollow markers and by the line's width. Colors differ in lightness,
also for color-blind people. Text remains text, which can be searched and read aloud.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import matplotlib.figure
import numpy as np
from mmengine.config import Config

from ...io.files import write_whole
from ..statistics.curves import MeasuredCurve
from ..statistics.metric_names import in_units, is_accuracy, is_detail, title
from ..sweep import UNCOMPRESSED

# No two of these numbers share a factor: 10 colors, 13 markers, 7 dashes.
_COLORS = (
    "#3016d5", "#c67807", "#57151c", "#a4ab68", "#086d5b",
    "#bf84b0", "#99250d", "#0275fe", "#51265d", "#bf22b0",
)  # fmt: skip
_MARKERS = "os^DvPX<>*dhp"
_LARGER = {"P": 8, "X": 8, "*": 10, "d": 8}  # sizes of thin markers, in points
_DASHES = (
    "-", (0, (5, 2)), (0, (2, 1.2)), (0, (6, 1.5, 1, 1.5)), (0, (9, 2)),
    (0, (4, 1.2, 1, 1.2, 1, 1.2)), (0, (4, 1.2, 4, 1.2, 1, 1.2)),
)  # fmt: skip
_INCHES = 5.0  # 360 points: about a phone's width in CSS pixels
_SVG = "http://www.w3.org/2000/svg"
ElementTree.register_namespace("", _SVG)
ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")


@dataclass
class _Line:
    """Points of one legend entry.

    Args:
        label: Text of the entry.
        x: Coordinates of the points.
        y: Coordinates of the points.
        tips: Tooltip of each point.
        style: Arguments of matplotlib's ``plot``.
        notes: Text beside each point.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    tips: list[str]
    style: dict
    notes: Sequence[str] = ()


def draw_charts(
    cfg: Config,
    folder: Path,
    curves: list[MeasuredCurve],
    reference: dict[str, dict[str, float]],
) -> list[str]:
    """Writes every chart as PNG and SVG.

    Args:
        cfg: The sweep's config.
        folder: Folder for the files.
        curves: The result of ``curves.measure``.
        reference: mAP on uncompressed pictures, by set and metric.

    Returns:
        SVG elements for a page. Their points have their values as ``aria-label``.
    """
    styles = {
        codec.name: dict(
            color=_COLORS[i % len(_COLORS)],
            marker=_MARKERS[i % len(_MARKERS)],
            linestyle=_DASHES[i % len(_DASHES)],
        )
        for i, codec in enumerate(cfg.codecs)
    }
    out = []
    for name, metric in dict.fromkeys(
        (c.set, m) for c in curves for m in c.metrics if not is_detail(m)
    ):
        level = in_units(metric, [reference.get(name, {}).get(metric, np.nan)])[0]
        lines = [
            _make_line(c, metric, styles[c.codec])
            for c in curves
            if c.set == name and metric in c.metrics
        ]
        axes = "bits per original pixel", title(metric)
        chart = _draw_chart(f"{name}: {title(metric)}", axes, lines, level)
        out.append(chart.save(folder, f"{name} {metric}"))
    if cfg.get("dial"):
        out += _draw_dials(folder, curves, styles)
    return out


def _draw_dials(folder: Path, curves: list[MeasuredCurve], styles: dict) -> list[str]:
    """Draws PSNR of x_hat against mAP, a point with its bpp for each quality."""
    out = []
    psnr = {
        (c.set, c.codec): c.metrics.get("psnr") for c in curves if c.view == "x_hat"
    }
    for name, metric in dict.fromkeys(
        (c.set, m)
        for c in curves
        for m in c.metrics
        if is_accuracy(m) and not is_detail(m)
    ):
        lines = []
        for c in curves:
            x = psnr[c.set, c.codec]
            if c.set == name and metric in c.metrics and x:
                y = in_units(metric, c.metrics[metric])
                tips = [
                    f"{c.label}: {a:.2f} dB, {b:.4g}, {bpp:.4f} bpp"
                    for a, b, bpp in zip(x, y, c.bpp, strict=True)
                ]
                style = {**_make_style(c, styles[c.codec]), "linestyle": ""}
                notes = [f"{bpp:.3f} bpp" for bpp in c.bpp]
                lines.append(_Line(c.label, x, y, tips, style, notes))
        axes = "PSNR of x_hat (dB)", title(metric)
        chart = _draw_chart(f"{name}: people against machines", axes, lines)
        out.append(chart.save(folder, f"{name} dial {metric}"))
    return out


def _make_style(curve: MeasuredCurve, style: dict) -> dict:
    """Returns a codec's style for the view of a curve."""
    size = _LARGER.get(style["marker"], 6)
    if curve.view == "x_hat":
        edge = dict(markeredgecolor="white", markeredgewidth=0.5)
        return {**style, **edge, "markersize": size}
    hollow = dict(markerfacecolor="white", markersize=size + 3, linewidth=0.9)
    return {**style, **hollow, "zorder": 1.9}  # a ring around x_hat's marker


def _make_line(curve: MeasuredCurve, metric: str, style: dict) -> _Line:
    rate, values = curve.rate(metric), curve.curve(metric).quality
    tips = [
        f"{curve.label}: {x:.4f} bpp, {y:.4g} (quality {quality})"
        for x, y, quality in zip(rate, values, curve.qualities, strict=True)
    ]
    return _Line(curve.label, rate, values, tips, _make_style(curve, style))


@dataclass
class _Chart:
    """A chart that can be saved.

    Args:
        figure: matplotlib's figure.
        heading: Title of the chart.
        tips: Tooltips of points, by the ``id`` of their line's group in the SVG.
    """

    figure: matplotlib.figure.Figure
    heading: str
    tips: dict[str, list[str]]

    def save(self, folder: Path, name: str) -> str:
        """Writes PNG and SVG, and returns the SVG as an element of a page."""
        stem = name.replace(" ", "_").replace("/", "_")
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": stem}):
            for suffix in ("png", "svg"):
                with io.BytesIO() as f:
                    metadata = {"Date": None} if suffix == "svg" else None
                    self.figure.savefig(f, format=suffix, dpi=168, metadata=metadata)
                    data = f.getvalue()
                write_whole(data, folder / f"{stem}.{suffix}")
        return self._make_element(data)

    def _make_element(self, svg: bytes) -> str:
        root = ElementTree.fromstring(svg)
        root.remove(root.find(f"{{{_SVG}}}metadata"))
        for size in ("width", "height"):  # the page's style sheet sets them
            del root.attrib[size]
        root.attrib.update({"role": "group", "aria-label": self.heading})
        for group in root.iter(f"{{{_SVG}}}g"):
            # Several charts of a page have groups with the same id.
            tips = self.tips.get(group.attrib.pop("id", ""), ())
            markers = list(group.iter(f"{{{_SVG}}}use")) if tips else ()
            for marker, tip in zip(markers, tips, strict=True):
                marker.attrib.update({"role": "img", "aria-label": tip})
        return ElementTree.tostring(root, "unicode")


def _draw_chart(
    heading: str, axes: tuple[str, str], lines: list[_Line], level: float = np.nan
) -> _Chart:
    """Draws lines, and the level of uncompressed pictures."""
    entries = len(lines) + bool(np.isfinite(level))
    half = -(-entries // 2)
    letters = [len(line.label) for line in lines]
    columns = 2 if max(letters[:half]) + max(letters[half:], default=0) < 46 else 1
    height = 3.5 + 0.2 * -(-entries // columns)
    figure = matplotlib.figure.Figure(figsize=(_INCHES, height), layout="constrained")
    ax = figure.subplots()
    tips = {}
    for i, line in enumerate(lines):
        known = np.isfinite(line.y)
        x, y = np.asarray(line.x)[known], np.asarray(line.y)[known]
        tips[f"points-{i}"] = [t for t, k in zip(line.tips, known, strict=True) if k]
        style = {"markersize": 6, "linewidth": 1.7, **line.style}
        ax.plot(x, y, gid=f"points-{i}", label=line.label, **style)
        for place, note in zip(zip(x, y, strict=True), line.notes, strict=False):
            ax.annotate(note, place, (5, 5), textcoords="offset points", fontsize=9)
    if np.isfinite(level):
        ax.axhline(level, color="black", linewidth=1, label=UNCOMPRESSED)
    if not any(line.notes for line in lines):
        ax.set_xlim(left=0)
    ax.set(xlabel=axes[0], ylabel=axes[1])
    ax.set_title(heading, fontsize=11)
    ax.grid(alpha=0.3)
    figure.legend(
        loc="outside lower center",
        ncols=columns,
        fontsize=9.5,
        frameon=False,
        handlelength=3.5,  # shows the dashes
        columnspacing=1.2,
    )
    return _Chart(figure, heading, tips)
