"""Comparisons of curves with an anchor's."""

from dataclasses import dataclass

import numpy as np

from .bd import BDResult, average_results, bd_quality, bd_rate, with_interval
from .curves import MeasuredCurve, label


@dataclass(frozen=True)
class Comparison:
    """A curve compared with the anchor's.

    Args:
        set: The set's name.
        codec: Name of the codec that is compared.
        view: "x_hat" or "x_bar".
        metric: Name of the metric that measures quality.
        bd_rate: Bits at equal quality.
        bd_quality: Quality at equal bits.
        left_out: Names of pictures that lack the metric; their bits do not count.
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
        """Returns the name of the codec and the view."""
        return label(self.codec, self.view)


def compare(curves: list[MeasuredCurve], anchor: str) -> list[Comparison]:
    """Computes the BD values of every curve against the anchor's.

    Args:
        curves: The result of :func:`.curves.measure`.
        anchor: Name of the codec to compare with.

    Returns:
        A comparison for each curve and metric that the anchor's curve has as well.
    """
    out = []
    for test in curves:
        against = _find_curve(curves, test.set, anchor)
        if against is not None:
            out += _compare_pairs(test.codec, [(test, against)])
    return out


def over_seeds(
    curves: list[MeasuredCurve], groups: list[dict], seed: int = 0
) -> list[Comparison]:
    """Computes mean BD values of trainings that differ by their seed.

    Args:
        curves: The result of :func:`.curves.measure`.
        groups: Dicts with ``name``, ``of`` and ``against``. The latter two are equally
            long lists of codecs' names: each training and the codec to compare it with.
        seed: Seed of the resampling. Defaults to 0.

    Returns:
        A comparison for each group, set, view and metric. Intervals are over resampled
        pictures and trainings.
    """
    rng, out = np.random.default_rng(seed), []
    for group in groups:
        for first in (c for c in curves if c.codec == group["of"][0]):
            key = first.set, first.view
            pairs = [
                (
                    next(c for c in curves if (c.codec, c.set, c.view) == (of, *key)),
                    _find_curve(curves, first.set, against),
                )
                for of, against in zip(group["of"], group["against"], strict=True)
            ]
            out += _compare_pairs(group["name"], pairs, rng)
    return out


def _find_curve(
    curves: list[MeasuredCurve], set_name: str, codec: str
) -> MeasuredCurve | None:
    return next((c for c in curves if (c.set, c.codec) == (set_name, codec)), None)


def _compare_pairs(
    name: str,
    pairs: list[tuple[MeasuredCurve, MeasuredCurve]],
    rng: np.random.Generator | None = None,
) -> list[Comparison]:
    """Compares each pair's first curve with its second, and averages over the pairs.

    With a generator of random numbers the pairs are resampled as well.
    """
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
            drawn = []  # every resampling would be the same picture
        results = []
        for bd in (bd_rate, bd_quality):
            resampled = []
            for i, chosen in enumerate(drawn):
                values = [bd(a.curve(metric, i), t.curve(metric, i)) for t, a in pairs]
                resampled.append(average_results([values[k] for k in chosen]))
            whole = average_results(
                [bd(a.curve(metric), t.curve(metric)) for t, a in pairs]
            )
            if not drawn:
                whole.notes.append("of one picture, which has no interval")
            results.append(with_interval(whole, resampled))
        left_out = tuple(first.left_out.get(metric, ()))
        out.append(Comparison(first.set, name, first.view, metric, *results, left_out))
    return out
