"""Bjøntegaard differences with the overlap of the curves that they rest on.

BD-rate is the mean difference in rate at equal quality, BD-quality the mean difference
in quality at equal rate, both by piecewise cubic (pchip) curves through the measured
points, by the package ``bjontegaard`` [Bjontegaard2001]_.

.. [Bjontegaard2001] G. Bjøntegaard, "Calculation of average PSNR differences between
   RD-curves", VCEG-M33, 2001.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import bjontegaard
import numpy as np

MIN_OVERLAP = 0.2
"""A value needs the curves to overlap in this share of the anchor's range."""


@dataclass(frozen=True)
class Curve:
    """A rate-quality curve.

    Args:
        rate: bpp of each point.
        quality: Value of a metric at each point.
    """

    rate: Sequence[float]
    quality: Sequence[float]

    def monotone(self) -> tuple["Curve", int]:
        """Returns its upper envelope, and how many points that leaves out.

        A point is left out if another has no more rate and no less quality.
        """
        points = sorted(
            zip(self.rate, self.quality, strict=True), key=lambda p: (p[0], -p[1])
        )
        envelope: list[tuple[float, float]] = []
        for rate, quality in points:
            if not envelope or quality > envelope[-1][1]:
                envelope.append((rate, quality))
        rates, qualities = zip(*envelope, strict=True)
        return Curve(rates, qualities), len(points) - len(envelope)


@dataclass(frozen=True)
class BDResult:
    """A BD-rate or BD-quality, or the reason why there is none.

    Args:
        value: BD-rate in per cent or BD-quality in units of the quality; None if it
            was refused.
        overlap: Range in which both curves have points, of quality for BD-rate and of
            bpp for BD-quality; None if there is none.
        share: Share of the anchor's range that the overlap is, in [0, 1].
        notes: What was done to the curves, or why there is no value.
        interval: 95 % bootstrap interval over pictures; None without resamplings.
    """

    value: float | None
    overlap: tuple[float, float] | None
    share: float
    notes: list[str] = field(default_factory=list)
    interval: tuple[float, float] | None = None


def bd_rate(anchor: Curve, test: Curve, min_overlap: float = MIN_OVERLAP) -> BDResult:
    """Computes the mean difference in rate at equal quality, in per cent.

    Args:
        anchor: The curve that the other is compared with.
        test: The curve that is compared; a negative value means that it needs less.
        min_overlap: Smallest overlap, as a share of the anchor's range of quality.
            Defaults to ``MIN_OVERLAP``.

    Returns:
        The value, or the reason why there is none.
    """
    return _compare(anchor, test, min_overlap, bjontegaard.bd_rate, "quality")


def bd_quality(
    anchor: Curve, test: Curve, min_overlap: float = MIN_OVERLAP
) -> BDResult:
    """Computes the mean difference in quality at equal rate, in units of the quality.

    Args:
        anchor: The curve that the other is compared with.
        test: The curve that is compared; a positive value means that it is better.
        min_overlap: Smallest overlap, as a share of the anchor's range of log rate.
            Defaults to ``MIN_OVERLAP``.

    Returns:
        The value, or the reason why there is none.
    """
    return _compare(anchor, test, min_overlap, bjontegaard.bd_psnr, "rate")


def _compare(
    anchor: Curve, test: Curve, min_overlap: float, compute: Callable, axis: str
) -> BDResult:
    curves, notes = [], []
    for name, curve in (("anchor", anchor), ("test", test)):
        if not np.isfinite([*curve.rate, *curve.quality]).all():
            return BDResult(
                None, None, 0, [f"the {name} curve has points without value"]
            )
        if len(curve.rate) == 0 or min(curve.rate) <= 0:
            return BDResult(None, None, 0, [f"the {name} curve has no positive rates"])
        envelope, dropped = curve.monotone()
        if dropped:
            notes.append(
                f"the {name} curve is not monotone: {dropped} of {len(curve.rate)} "
                "points lie under its envelope and were left out"
            )
        if len(envelope.rate) < 2:
            notes.append(f"the {name} curve has fewer than two points")
            return BDResult(None, None, 0, notes)
        curves.append(envelope)
    scale = np.log if axis == "rate" else np.asarray
    (a_low, a_high), (t_low, t_high) = (
        (min(getattr(c, axis)), max(getattr(c, axis))) for c in curves
    )
    low, high = max(a_low, t_low), min(a_high, t_high)
    if high <= low:
        notes.append(
            f"the curves do not overlap in {axis}: {a_low:.4g} to {a_high:.4g} and "
            f"{t_low:.4g} to {t_high:.4g}"
        )
        return BDResult(None, None, 0, notes)
    share = float((scale(high) - scale(low)) / (scale(a_high) - scale(a_low)))
    if share < min_overlap:
        notes.append(
            f"the curves overlap in only {100 * share:.0f} % of the anchor's range "
            f"({low:.4g} to {high:.4g} in {axis})"
        )
        return BDResult(None, (low, high), share, notes)
    for name, curve in zip(("anchor", "test"), curves, strict=True):
        if len(curve.rate) == 2:
            notes.append(f"the {name} curve is a line through two points")
    value = compute(
        curves[0].rate, curves[0].quality, curves[1].rate, curves[1].quality,
        method="pchip", require_matching_points=False, min_overlap=0,
    )  # fmt: skip
    return BDResult(float(value), (low, high), share, notes)


def average_results(results: Sequence[BDResult]) -> BDResult:
    """Returns the mean of several results, or the first that has no value.

    Args:
        results: BD-rates, or BD-qualities, with at least one element.
    """
    for result in results:
        if result.value is None:
            return result
    notes = list(dict.fromkeys(note for result in results for note in result.notes))
    value = float(np.mean([result.value for result in results]))
    return replace(results[0], value=value, notes=notes)


def with_interval(result: BDResult, resampled: Sequence[BDResult]) -> BDResult:
    """Returns a result with its 95 % percentile interval.

    Args:
        result: The result of all pictures.
        resampled: The results of resampled pictures.
    """
    if result.value is None or not resampled:
        return result
    values = [r.value for r in resampled if r.value is not None]
    notes, total = list(result.notes), len(resampled)
    if len(values) < total:
        notes.append(f"{total - len(values)} of {total} resamplings gave no value")
    bent = sum(any("not monotone" in note for note in r.notes) for r in resampled)
    if bent:
        notes.append(f"the envelope was used in {bent} of {total} resamplings")
    if len(values) < 0.9 * total:
        notes.append("too many for an interval")
        return replace(result, notes=notes)
    low, high = np.percentile(values, [2.5, 97.5])
    return replace(result, notes=notes, interval=(float(low), float(high)))
