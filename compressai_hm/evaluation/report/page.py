"""A self-contained HTML page: charts, BD values, pictures, environment."""

import html
from pathlib import Path

from ...io.files import write_whole
from ..statistics.comparisons import Comparison
from ..statistics.curves import MeasuredCurve
from ..sweep import Sweep
from ..text_tables import describe_quality, describe_rate, left_out
from .charts import draw_charts
from .environment import environment
from .picture_strips import strips


def write(
    sweep: Sweep,
    curves: list[MeasuredCurve],
    comparisons: list[Comparison],
    reference: dict[str, dict[str, float]],
    command: list[str],
) -> Path:
    """Writes ``plots/*.png``, ``plots/*.svg`` and ``report.html``.

    Args:
        sweep: The sweep. With ``dial = True`` in its config, PSNR is plotted against
            mAP as well.
        curves: The result of ``curves.measure``.
        comparisons: The result of ``comparisons.compare``.
        reference: mAP on uncompressed pictures, by set and metric.
        command: The command line.

    Returns:
        The path of the page.
    """
    charts = draw_charts(sweep.cfg, sweep.work_dir / "plots", curves, reference)
    body = [
        f"<h1>{html.escape(sweep.work_dir.name)}</h1>",
        "<p>bpp counts the bytes of files over original pixels. A set's bpp, PSNR and "
        "MS-SSIM are the means over its pictures. If some pictures lack a metric, it "
        "and its bpp are the means over the others. mAP is COCO's, on the decoded "
        "pictures. Hollow markers on thin lines are x_bar. Point at a marker to see "
        "its numbers.</p>",
        '<div class="charts">'
        + "".join(f"<figure>{chart}</figure>" for chart in charts)
        + "</div>",
        _make_bd_values(sweep.cfg.anchor, comparisons),
        strips(sweep, curves),
        _make_environment(sweep, command),
    ]
    page = sweep.work_dir / "report.html"
    write_whole(_PAGE.replace("BODY", "\n".join(body)).encode(), page)
    return page


def _make_table(rows: list[str], kind: str = "") -> str:
    return f'<div class="table {kind}"><table>{"".join(rows)}</table></div>'


def _make_row(heading: str, cells: list[str], tag: str = "td") -> str:
    cells = "".join(f"<{tag}>{cell}</{tag}>" for cell in cells)
    return f"<tr><th>{heading}</th>{cells}</tr>"


def _make_bd_values(anchor: str, comparisons: list[Comparison]) -> str:
    columns = {(c.set, c.metric): left_out(c.left_out) for c in comparisons}
    cells = {(c.label, c.set, c.metric): _make_cell(c) for c in comparisons}
    heads = [html.escape(f"{s}: {m}{without}") for (s, m), without in columns.items()]
    rows = [_make_row("", heads, "th")]
    for label in dict.fromkeys(c.label for c in comparisons):
        row = [cells.get((label, *column), "") for column in columns]
        rows.append(_make_row(html.escape(label), row))
    return (
        f"<h2>BD-rate against {html.escape(anchor)}</h2>"
        "<p>Bits at equal quality and quality at equal bits, with the 95 % interval "
        "over resampled pictures, the range in which the curves overlap, and its share "
        "of the anchor's range.</p>" + _make_table(rows)
    )


def _make_cell(comparison: Comparison) -> str:
    value = comparison.bd_rate.value
    head = f"<b>{value:+.1f} %</b><br>" if value is not None else ""
    rate = html.escape(describe_rate(comparison))
    quality = html.escape(describe_quality(comparison))
    return f"{head}<small>bits: {rate}<br>quality: {quality}</small>"


def _make_environment(sweep: Sweep, command: list[str]) -> str:
    rows = [
        _make_row(html.escape(k), [f"<pre>{html.escape(v)}</pre>"])
        for k, v in environment(sweep, command)
    ]
    return "<h2>How this was made</h2>" + _make_table(rows, "environment")


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
