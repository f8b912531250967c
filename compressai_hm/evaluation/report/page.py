"""One HTML page that needs nothing else: charts, BD values, pictures, environment."""

import html
from pathlib import Path

from ...codecs.files import write_whole
from ..statistics.comparisons import Comparison
from ..statistics.curves import MeasuredCurve
from ..sweep import Sweep
from ..tables import describe_quality, describe_rate, left_out, transfer
from .charts import draw_charts
from .environment import environment
from .pictures import strips


def write(
    sweep: Sweep,
    curves: list[MeasuredCurve],
    comparisons: list[Comparison],
    reference: dict[str, dict[str, float]],
    command: list[str],
) -> Path:
    """Writes ``plots/*.png``, ``plots/*.svg`` and ``report.html``.

    Args:
        sweep: The sweep; its config may say ``ablation``, names of codecs to be plotted
            by themselves as well, and ``dial = True`` for a plot of PSNR against mAP.
        curves: Of ``statistics.measure``.
        comparisons: Of ``statistics.compare``.
        reference: mAP on uncompressed pictures.
        command: What was typed.

    Returns:
        The page.
    """
    charts = draw_charts(sweep.cfg, sweep.work_dir / "plots", curves, reference)
    body = [
        f"<h1>{html.escape(sweep.work_dir.name)}</h1>",
        "<p>Real bytes of files over original pixels. A set's bpp, PSNR and MS-SSIM "
        "are the means over its pictures. Where some lack a metric, its bpp and it are "
        "the means over the others. mAP is COCO's, read from the decoded file. "
        "Hollow markers on thin lines: x_bar. Point at a marker for numbers.</p>",
        '<div class="charts">'
        + "".join(f"<figure>{chart}</figure>" for chart in charts)
        + "</div>",
        _bd_values(sweep.cfg.anchor, comparisons),
        _transfer(sweep, comparisons),
        strips(sweep, [c for c in curves if c.is_curve]),
        _environment(sweep, command),
    ]
    page = sweep.work_dir / "report.html"
    write_whole(_PAGE.replace("BODY", "\n".join(body)).encode(), page)
    return page


def _table(rows: list[str], kind: str = "") -> str:
    return f'<div class="table {kind}"><table>{"".join(rows)}</table></div>'


def _row(heading: str, cells: list[str], tag: str = "td") -> str:
    cells = "".join(f"<{tag}>{cell}</{tag}>" for cell in cells)
    return f"<tr><th>{heading}</th>{cells}</tr>"


def _bd_values(anchor: str, comparisons: list[Comparison]) -> str:
    columns = list(dict.fromkeys((c.set, c.metric) for c in comparisons))
    found = {(c.label, c.set, c.metric): c for c in comparisons}
    without = {(c.set, c.metric): left_out(c.left_out) for c in comparisons}
    heads = [html.escape(f"{s}: {m}{without[s, m]}") for s, m in columns]
    rows = [_row("", heads, "th")]
    for label in dict.fromkeys(c.label for c in comparisons):
        cells = [found.get((label, *column)) for column in columns]
        rows.append(_row(html.escape(label), [_cell(c) if c else "" for c in cells]))
    return (
        f"<h2>BD-rate against {html.escape(anchor)}</h2>"
        "<p>Bits at equal quality, quality at equal bits; 95 % interval over resampled "
        "pictures; where the curves overlap, and in how much of the anchor's range.</p>"
        + _table(rows)
    )


def _cell(comparison: Comparison) -> str:
    value = comparison.bd_rate.value
    head = f"<b>{value:+.1f} %</b><br>" if value is not None else ""
    rate = html.escape(describe_rate(comparison))
    quality = html.escape(describe_quality(comparison))
    return f"{head}<small>bits: {rate}<br>quality: {quality}</small>"


def _transfer(sweep: Sweep, comparisons: list[Comparison]) -> str:
    lines = [[html.escape(c) for c in line] for line in transfer(sweep, comparisons)]
    if not lines:
        return ""
    (first, *columns), *others = lines
    rows = [_row(first, columns, "th"), *(_row(line[0], line[1:]) for line in others)]
    return "<h2>Trained for, by read by: BD-rate at equal mAP</h2>" + _table(rows)


def _environment(sweep: Sweep, command: list[str]) -> str:
    rows = [
        _row(html.escape(k), [f"<pre>{html.escape(v)}</pre>"])
        for k, v in environment(sweep, command)
    ]
    return "<h2>How this was made</h2>" + _table(rows, "environment")


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Rate and accuracy</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 1240px;
  padding: 0 1em; color: #222; }
.charts { display: grid; gap: 1.5em;
  grid-template-columns: repeat(auto-fit, minmax(min(480px, 100%), 1fr)); }
figure { margin: 0; }
.charts figure { min-width: 0; }
h1 { overflow-wrap: anywhere; }
svg { display: block; width: 100%; height: auto; }
use[aria-label]:hover { stroke: #000 !important; stroke-width: 2 !important; }
.table { overflow-x: auto; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { border-bottom: 1px solid #ddd; padding: 4px 10px; text-align: left;
  vertical-align: top; }
tr > :first-child { position: sticky; left: 0; background: #fff; }
td:has(small) { min-width: 13em; }
small { color: #666; }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; font-size: 12px; }
th { font-weight: 600; max-width: 16em; }
.environment th { overflow-wrap: anywhere; min-width: 7em; }
.strip { display: flex; gap: 8px; overflow-x: auto; margin-bottom: 1em; }
.strip figure { flex: none; }
.strip img { max-height: 260px; display: block; }
.strip figcaption { font-size: 12px; max-width: 260px; }
#tip { position: fixed; background: #222; color: #fff; padding: 2px 8px;
  font-size: 13px; border-radius: 4px; pointer-events: none; display: none; }
</style></head><body>
BODY
<div id="tip"></div>
<script>
const tip = document.getElementById("tip");
for (const point of document.querySelectorAll("use[aria-label]")) {
  point.addEventListener("mousemove", (e) => {
    tip.textContent = point.getAttribute("aria-label");
    tip.style.display = "block";
    tip.style.left = Math.min(e.clientX + 12, innerWidth - tip.offsetWidth - 8) + "px";
    tip.style.top = e.clientY + 12 + "px";
  });
  point.addEventListener("mouseleave", () => { tip.style.display = "none"; });
}
</script></body></html>
"""
