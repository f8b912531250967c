"""Results as text."""

from collections.abc import Sequence

from .statistics.bd import BDResult
from .statistics.comparisons import Comparison, compare
from .statistics.curves import MeasuredCurve
from .statistics.metric_names import in_units, is_accuracy, title


def points(curves: list[MeasuredCurve]) -> str:
    """Returns a line for each measured point, for curves that are too short for BD.

    Args:
        curves: The result of ``curves.measure``.
    """
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
    """Returns all BD values, grouped by set and metric.

    Args:
        comparisons: The result of ``comparisons.compare`` or ``over_seeds``.
    """
    groups: dict[tuple[str, str], list[Comparison]] = {}
    for c in comparisons:
        groups.setdefault((c.set, c.metric), []).append(c)
    lines = []
    for (name, metric), group in groups.items():
        lines.append(f"{name}, {title(metric)}{left_out(group[0].left_out)}")
        for c in group:
            lines.append(f"  {c.label:20} bits at equal quality {describe_rate(c)}")
            lines.append(f"  {'':20} quality at equal bits {describe_quality(c)}")
    return "\n".join(lines)


def left_out(names: Sequence[str]) -> str:
    """Says which pictures count in neither rate nor quality; empty if all count.

    Args:
        names: The pictures' names.
    """
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f", without {', '.join(names[:3])}{more}"


def table1(curves: list[MeasuredCurve], anchor: str, columns: list[list[str]]) -> str:
    """Returns BD-rates in the layout of the paper's Table 1, in Markdown.

    mAP is measured on x_bar where a codec has one, and all other metrics on x_hat.

    Args:
        curves: The result of ``curves.measure``.
        anchor: Name of the codec that all others are compared with.
        columns: (set, metric) of each column.
    """
    comparisons = compare(curves, anchor)
    lines = [
        f"| BD-rate against {anchor} | "
        + " | ".join(f"{s}: {metric}" for s, metric in columns),
        "|---" * (1 + len(columns)),
    ]
    rates = {(c.set, c.codec, c.metric, c.view): c.bd_rate for c in comparisons}
    for codec in dict.fromkeys(c.codec for c in curves if c.codec != anchor):
        cells = []
        for set_name, metric in columns:
            result = rates.get((set_name, codec, metric, "x_hat"))
            if is_accuracy(metric):
                result = rates.get((set_name, codec, metric, "x_bar"), result)
            if result is None or result.value is None:
                cells.append("–")
                continue
            cells.append(f"{result.value:+.1f} %")
            if result.interval:
                cells[-1] += " [{:+.1f}, {:+.1f}]".format(*result.interval)
        lines.append(f"| {codec} | {' | '.join(cells)}")
    return "\n".join(f"{line} |" for line in lines) + "\n"


def describe_rate(comparison: Comparison) -> str:
    """Returns a BD-rate in one line: the value, its interval, the overlap, the notes.

    Args:
        comparison: A curve against the anchor's.
    """
    return _describe(comparison.bd_rate, "%", 1, title(comparison.metric))


def describe_quality(comparison: Comparison) -> str:
    """Returns a BD-quality in one line: the value, interval, overlap and notes.

    Args:
        comparison: A curve against the anchor's.
    """
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
