"""Rate-quality charts by matplotlib: files for papers, and SVG for the page.

They can be read in black and white: codecs differ by marker and dash, x_hat and x_bar
by filled and hollow markers and by the line's width. Colours differ in lightness, and
for people who do not see red, green or blue. Text stays text: it can be searched and
read aloud.
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

from ...codecs.files import write_whole
from ..statistics.curves import MeasuredCurve
from ..statistics.metrics import in_units, is_accuracy, is_detail, title
from ..sweep import UNCOMPRESSED

# No two of these numbers share a factor: 10 colours, 13 markers, 7 dashes.
_COLOURS = (
    "#3016d5", "#c67807", "#57151c", "#a4ab68", "#086d5b",
    "#bf84b0", "#99250d", "#0275fe", "#51265d", "#bf22b0",
)  # fmt: skip
_MARKERS = "os^DvPX<>*dhp"
_LARGER = {"P": 8, "X": 8, "*": 10, "d": 8}  # thin ones, in points
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
        label: The entry.
        x: Of the points.
        y: Of the points.
        tips: What each point says when it is pointed at.
        style: Of matplotlib's ``plot``.
        notes: Written beside each point.
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
        cfg: The sweep's.
        folder: For the files.
        curves: Of ``statistics.measure``; repetitions are left out.
        reference: mAP on uncompressed pictures.

    Returns:
        SVG elements for a page; their points carry what they say as ``aria-label``.
    """
    styles = {
        codec.name: dict(
            color=_COLOURS[i % len(_COLOURS)],
            marker=_MARKERS[i % len(_MARKERS)],
            linestyle=_DASHES[i % len(_DASHES)],
        )
        for i, codec in enumerate(cfg.codecs)
    }
    curves = [c for c in curves if c.is_curve]
    ablated = cfg.get("ablation", ())
    out = []
    for name, metric in dict.fromkeys(
        (c.set, m) for c in curves for m in c.metrics if not is_detail(m)
    ):
        own = [c for c in curves if c.set == name and metric in c.metrics]
        level = in_units(metric, [reference.get(name, {}).get(metric, np.nan)])[0]
        chosen = {name: own}
        if ablated:
            chosen[f"{name} ablation"] = [c for c in own if c.codec in ablated]
        for heading, some in chosen.items():
            lines = [_measured(c, metric, styles[c.codec]) for c in some]
            if lines:
                chart = _chart(
                    f"{heading}: {title(metric)}",
                    ("bits per original pixel", title(metric)),
                    lines,
                    level,
                )
                out.append(chart.save(folder, f"{heading} {metric}"))
    if cfg.get("dial"):
        out += _dials(folder, curves, styles)
    return out


def _dials(folder: Path, curves: list[MeasuredCurve], styles: dict) -> list[str]:
    """PSNR of x_hat against mAP, a point for each codec's quality; bpp beside it."""
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
                style = {**_style(c, styles[c.codec]), "linestyle": ""}
                notes = [f"{bpp:.3f} bpp" for bpp in c.bpp]
                lines.append(_Line(c.label, x, y, tips, style, notes))
        axes = "PSNR of x_hat (dB)", title(metric)
        chart = _chart(f"{name}: people against machines", axes, lines)
        out.append(chart.save(folder, f"{name} dial {metric}"))
    return out


def _style(curve: MeasuredCurve, of_codec: dict) -> dict:
    size = _LARGER.get(of_codec["marker"], 6)
    if curve.view == "x_hat":
        edge = dict(markeredgecolor="white", markeredgewidth=0.5)
        return {**of_codec, **edge, "markersize": size}
    hollow = dict(markerfacecolor="white", markersize=size + 3, linewidth=0.9)
    return {**of_codec, **hollow, "zorder": 1.9}  # a ring if x_hat is there


def _measured(curve: MeasuredCurve, metric: str, of_codec: dict) -> _Line:
    rate, values = curve.rate(metric), curve.curve(metric).quality
    tips = [
        f"{curve.label}: {x:.4f} bpp, {y:.4g} (quality {quality})"
        for x, y, quality in zip(rate, values, curve.qualities, strict=True)
    ]
    return _Line(curve.label, rate, values, tips, _style(curve, of_codec))


@dataclass
class _Chart:
    """A chart that can be saved.

    Args:
        figure: matplotlib's.
        heading: Its title.
        tips: By the ``id`` of a line's group in the SVG.
    """

    figure: matplotlib.figure.Figure
    heading: str
    tips: dict[str, list[str]]

    def save(self, folder: Path, name: str) -> str:
        """Writes PNG and SVG, and gives the latter as an element of a page."""
        stem = name.replace(" ", "_").replace("/", "_")
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": stem}):
            for suffix in ("png", "svg"):
                with io.BytesIO() as f:
                    metadata = {"Date": None} if suffix == "svg" else None
                    self.figure.savefig(f, format=suffix, dpi=168, metadata=metadata)
                    data = f.getvalue()
                write_whole(data, folder / f"{stem}.{suffix}")
        return self._element(data)

    def _element(self, svg: bytes) -> str:
        root = ElementTree.fromstring(svg)
        root.remove(root.find(f"{{{_SVG}}}metadata"))
        for size in ("width", "height"):  # the page's matter
            del root.attrib[size]
        root.attrib.update({"role": "group", "aria-label": self.heading})
        for group in root.iter(f"{{{_SVG}}}g"):
            tips = self.tips.get(group.attrib.pop("id", ""), ())  # not the page's only
            markers = list(group.iter(f"{{{_SVG}}}use")) if tips else ()
            for marker, tip in zip(markers, tips, strict=True):
                marker.attrib.update({"role": "img", "aria-label": tip})
        return ElementTree.tostring(root, "unicode")


def _chart(
    heading: str, axes: tuple[str, str], lines: list[_Line], level: float = np.nan
) -> _Chart:
    """Lines on axes from 0 bpp, with the level of uncompressed pictures."""
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
