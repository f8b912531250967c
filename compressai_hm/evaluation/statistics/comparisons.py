"""Curves against an anchor, and codecs against each other point by point."""

from dataclasses import dataclass

import numpy as np

from .bd import BDResult, bd_quality, bd_rate, mean_of, with_interval
from .curves import MeasuredCurve, label
from .metrics import in_units


@dataclass(frozen=True)
class Comparison:
    """A curve against the anchor's.

    Args:
        set: The set's name.
        codec: Name of the codec that is compared.
        view: "x_hat" or "x_bar".
        metric: What quality is.
        bd_rate: Bits at equal quality.
        bd_quality: Quality at equal bits.
        left_out: Names of pictures that the metric is not of; their bits do not count.
    """

    set: str
    codec: str
    view: str
    metric: str
    bd_rate: BDResult
    bd_quality: BDResult
    left_out: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Of the codec and the view."""
        return label(self.codec, self.view)


def compare(curves: list[MeasuredCurve], anchor: str) -> list[Comparison]:
    """BD values of every curve against the anchor's.

    Args:
        curves: Of :func:`measure`.
        anchor: Name of the codec to compare with.

    Returns:
        One of each curve and metric that the anchor's curve has as well.
    """
    out = []
    for test in filter(lambda c: c.is_curve, curves):
        against = _first(curves, test.set, anchor)
        if against is not None:
            out += _compared(test.codec, [(test, against)])
    return out


def over_seeds(
    curves: list[MeasuredCurve], groups: list[dict], seed: int = 0
) -> list[Comparison]:
    """Mean BD values of trainings that differ by their seed, each against its own.

    Args:
        curves: Of :func:`measure`.
        groups: Dicts of ``name``, ``of`` and ``against``, as many names of codecs.
        seed: Of the resampling.

    Returns:
        As of :func:`compare`; intervals are over resampled pictures and trainings.
    """
    rng, out = np.random.default_rng(seed), []
    for group in groups:
        for first in (c for c in curves if c.codec == group["of"][0]):
            key = first.set, first.view
            pairs = [
                (
                    next(c for c in curves if (c.codec, c.set, c.view) == (of, *key)),
                    _first(curves, first.set, against),
                )
                for of, against in zip(group["of"], group["against"], strict=True)
            ]
            out += _compared(group["name"], pairs, rng)
    return out


def _first(curves: list[MeasuredCurve], of_set: str, codec: str) -> MeasuredCurve:
    return next((c for c in curves if (c.set, c.codec) == (of_set, codec)), None)


def _compared(
    name: str,
    pairs: list[tuple[MeasuredCurve, MeasuredCurve]],
    rng: np.random.Generator | None = None,
) -> list[Comparison]:
    """Curves, each against another; with a generator the pairs are resampled, too."""
    first, count = pairs[0][0], len(pairs)
    out = []
    for metric in first.metrics:
        if not all(metric in c.metrics for pair in pairs for c in pair):
            continue
        drawn = [
            range(count) if rng is None else rng.integers(count, size=count)
            for _ in first.resampled[metric][0]
        ]
        if first.measured(metric) == 1:
            drawn = []  # it would be resampled to itself
        results = []
        for bd in (bd_rate, bd_quality):
            of_each = [
                [bd(a.curve(metric, i), t.curve(metric, i)) for t, a in pairs]
                for i in range(len(drawn))
            ]
            resampled = [
                mean_of([own[k] for k in which])
                for own, which in zip(of_each, drawn, strict=True)
            ]
            whole = mean_of([bd(a.curve(metric), t.curve(metric)) for t, a in pairs])
            if not drawn:
                whole.notes.append("of one picture, which has no interval")
            results.append(with_interval(whole, resampled))
        left_out = tuple(first.left_out.get(metric, ()))
        out.append(Comparison(first.set, name, first.view, metric, *results, left_out))
    return out


def differences(curves: list[MeasuredCurve], pairs: list[dict]) -> list[dict]:
    """Means over one codec's points less those over another's, by x_bar.

    For codecs with the same points but one thing, such as a part that was left out; the
    points may be rates and seeds.

    Args:
        curves: Of :func:`measure`.
        pairs: Dicts of ``of`` and ``against``, names of codecs.

    Returns:
        Rows of ``set``, ``of``, ``against``, ``metric`` ("bpp" too), ``value`` and
        ``interval`` (95 %, the same resampled pictures for both; None of one picture),
        in :func:`in_units`.
    """
    by_name = {(c.set, c.codec): c for c in curves if c.view == "x_bar"}
    rows = []
    for pair in pairs:
        for of_set in dict.fromkeys(c.set for c in curves):
            of, against = (by_name[of_set, pair[key]] for key in ("of", "against"))
            for metric in ("bpp", *of.metrics):
                mean = [
                    np.mean(in_units(metric, c.metrics.get(metric, c.bpp)))
                    for c in (of, against)
                ]
                resampled = [
                    np.mean([in_units(metric, r) for r in c.resampled[metric]], axis=0)
                    for c in (of, against)
                ]
                interval = None
                if of.measured(metric) != 1:
                    bounds = np.nanpercentile(resampled[0] - resampled[1], [2.5, 97.5])
                    interval = bounds.tolist()
                rows.append(
                    {
                        "set": of_set,
                        **pair,
                        "metric": metric,
                        "value": float(mean[0] - mean[1]),
                        "interval": interval,
                    }
                )
    return rows
