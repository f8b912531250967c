import numpy as np
import pytest

from compressai_hm.evaluation.statistics.bd import (
    BDResult,
    Curve,
    bd_quality,
    bd_rate,
    with_interval,
)

CURVE = Curve([0.1, 0.2, 0.4, 0.8], [20.0, 26.0, 31.0, 34.0])


def test_a_curve_against_itself_is_zero():
    for result in (bd_rate(CURVE, CURVE), bd_quality(CURVE, CURVE)):
        assert result.value == pytest.approx(0, abs=1e-9)
        assert result.share == 1 and not result.notes


def test_half_the_rate_is_minus_fifty_per_cent():
    half = Curve([r / 2 for r in CURVE.rate], CURVE.quality)
    assert bd_rate(CURVE, half).value == pytest.approx(-50)
    assert bd_rate(half, CURVE).value == pytest.approx(100)


def test_two_units_of_quality_are_two_units():
    better = Curve(CURVE.rate, [q + 2 for q in CURVE.quality])
    assert bd_quality(CURVE, better).value == pytest.approx(2)


def test_a_line_through_two_points_is_said():
    line = Curve(CURVE.rate[1:3], CURVE.quality[1:3])
    assert bd_rate(CURVE, line).notes == ["the test curve is a line through two points"]
    assert "the anchor curve is" in bd_quality(line, CURVE).notes[0]


def test_the_overlap_is_named():
    result = bd_rate(CURVE, Curve([0.3, 0.5, 1.0], [28.0, 32.0, 36.0]))
    assert result.overlap == (28, 34)
    assert result.share == pytest.approx(6 / 14)


def test_too_little_overlap_is_refused():
    result = bd_rate(CURVE, Curve([0.9, 1.0, 1.2], [33.0, 35.0, 36.0]))
    assert result.value is None and "only 7 %" in result.notes[0]
    assert result.overlap == (33, 34)
    result = bd_rate(CURVE, Curve([1.0, 2.0], [40.0, 41.0]))
    assert result.value is None and "do not overlap" in result.notes[0]


def test_points_under_the_envelope_are_left_out_and_said():
    bent = Curve([0.1, 0.2, 0.3, 0.4, 0.8], [20.0, 26.0, 25.0, 31.0, 34.0])
    result = bd_rate(CURVE, bent)
    assert result.value == pytest.approx(0, abs=1e-9)
    assert "1 of 5 points" in result.notes[0]


@pytest.mark.parametrize(
    ("curve", "why"),
    [
        (Curve([0.1], [20.0]), "fewer than two"),
        (Curve([0.1, 0.2], [20.0, float("nan")]), "points without value"),
        (Curve([0.0, 0.2], [20.0, 21.0]), "no positive rates"),
    ],
)
def test_what_is_no_curve_is_refused(curve, why):
    assert bd_rate(CURVE, curve).value is None
    assert why in bd_rate(CURVE, curve).notes[-1]


def test_the_interval_covers_what_resampling_gives():
    values = [BDResult(float(v), (0, 1), 1) for v in np.arange(-10, 11)]
    result = with_interval(BDResult(0.5, (0, 1), 1), values)
    assert result.interval == pytest.approx((-9.5, 9.5))
    bent = [BDResult(1.0, (0, 1), 1, ["the test curve is not monotone: ..."])]
    assert "in 1 of 22 resamplings" in with_interval(result, values + bent).notes[0]
    assert with_interval(result, []) is result
    refused = [BDResult(None, None, 0)] * 5
    result = with_interval(BDResult(0.5, (0, 1), 1), values + refused)
    assert result.interval is None and "5 of 26" in result.notes[0]
