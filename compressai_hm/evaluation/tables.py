"""What was measured, as text for people."""

from collections.abc import Sequence

from .statistics.bd import BDResult
from .statistics.comparisons import Comparison, compare
from .statistics.curves import MeasuredCurve
from .statistics.metrics import in_units, is_accuracy, is_detail, title
from .sweep import Sweep


def points(curves: list[MeasuredCurve]) -> str:
    """The measured points, where there is too little for BD values."""
    lines = []
    for c in curves:
        for i, bpp in enumerate(c.bpp):
            values = (
                f"{title(metric)} {in_units(metric, values)[i]:.2f}"
                + (f" at {c.rates[metric][i]:.4f} bpp" if metric in c.rates else "")
                + left_out(c.left_out.get(metric, ()))
                for metric, values in c.metrics.items()
            )
            lines.append(f"{c.set}  {c.label:20} {bpp:.4f} bpp  {', '.join(values)}")
    return "\n".join(lines)


def bd_values(comparisons: list[Comparison]) -> str:
    """All BD values, set by set and metric by metric."""
    lines = []
    for name, metric in dict.fromkeys((c.set, c.metric) for c in comparisons):
        own = next(c for c in comparisons if (c.set, c.metric) == (name, metric))
        lines.append(f"{name}, {title(metric)}{left_out(own.left_out)}")
        for c in comparisons:
            if (c.set, c.metric) == (name, metric):
                rate, quality = describe_rate(c), describe_quality(c)
                lines.append(f"  {c.label:20} bits at equal quality {rate}")
                lines.append(f"  {'':20} quality at equal bits {quality}")
    return "\n".join(lines)


def left_out(names: Sequence[str]) -> str:
    """Which pictures are in neither rate nor quality; empty where all are."""
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f", without {', '.join(names[:3])}{more}"


def table1(curves: list[MeasuredCurve], anchor: str, columns: list[list[str]]) -> str:
    """BD-rates in the layout of the paper's Table 1, in Markdown.

    Machines read x_bar where there is one, people x_hat.

    Args:
        curves: Of ``statistics.measure``.
        anchor: Name of the codec that all are compared with.
        columns: (set, metric) of each.
    """
    comparisons = compare(curves, anchor)
    lines = [
        f"| BD-rate against {anchor} | "
        + " | ".join(f"{s}: {metric}" for s, metric in columns),
        "|---" * (1 + len(columns)),
    ]
    own = dict.fromkeys(c.codec for c in curves if c.is_curve and c.codec != anchor)
    for codec in own:
        cells = []
        for of_set, metric in columns:
            found = {
                c.view: c.bd_rate
                for c in comparisons
                if (c.set, c.codec, c.metric) == (of_set, codec, metric)
            }
            views = ("x_bar", "x_hat") if is_accuracy(metric) else ("x_hat",)
            result = next((found[view] for view in views if view in found), None)
            if result is None or result.value is None:
                cells.append("–")
                continue
            cells.append(f"{result.value:+.1f} %")
            if result.interval:
                cells[-1] += " [{:+.1f}, {:+.1f}]".format(*result.interval)
        lines.append(f"| {codec} | {' | '.join(cells)}")
    return "\n".join(f"{line} |" for line in lines) + "\n"


def transfer(sweep: Sweep, comparisons: list[Comparison]) -> list[list[str]]:
    """BD-rate at equal mAP, trained for (rows) by read by (columns).

    Returns:
        A table of texts, its first row and column the headings; empty where no codec
        says what it was trained for.
    """
    trained = {c.name: c.trained_for for c in sweep.cfg.codecs if c.get("trained_for")}
    own = [
        c
        for c in comparisons
        if c.codec in trained and is_accuracy(c.metric) and not is_detail(c.metric)
    ]
    columns = list(dict.fromkeys((c.set, c.metric) for c in own))
    if not own:
        return []
    out = [["trained for", *(f"{s}: {m.split('mAP ')[1]}" for s, m in columns)]]
    for codec, view in dict.fromkeys((c.codec, c.view) for c in own):
        found = {
            (c.set, c.metric): describe_rate(c)
            for c in own
            if (c.codec, c.view) == (codec, view)
        }
        cells = [found.get(column, "") for column in columns]
        out.append([f"{trained[codec]} ({codec} {view})", *cells])
    return out


def difference(row: dict) -> str:
    """A row of ``statistics.differences`` in one line."""
    interval = ""
    if row["interval"]:
        interval = " [{:+.3f}, {:+.3f}]".format(*row["interval"])
    return (
        f"{row['set']}, {title(row['metric'])}: {row['of']} less {row['against']} "
        f"{row['value']:+.3f}{interval}"
    )


def describe_rate(comparison: Comparison) -> str:
    """A BD-rate in one line: the value, its interval, the overlap, the notes."""
    return _describe(comparison.bd_rate, "%", 1, title(comparison.metric))


def describe_quality(comparison: Comparison) -> str:
    """A BD-quality in one line: the value, its interval, the overlap, the notes."""
    unit = "%" if is_accuracy(comparison.metric) else "dB"
    return _describe(comparison.bd_quality, unit, 2, "bpp")


def _describe(result: BDResult, unit: str, digits: int, axis: str) -> str:
    notes = "; ".join(result.notes)
    if result.value is None:
        return f"     --   {notes}"
    text = f"{result.value:+8.{digits}f} {unit}"
    if result.interval:
        low, high = result.interval
        text += f" [{low:+.{digits}f}, {high:+.{digits}f}]"
    low, high = result.overlap
    text += f" over {low:.4g} to {high:.4g} {axis}, {100 * result.share:.0f} %"
    return f"{text}  {notes}".rstrip()
