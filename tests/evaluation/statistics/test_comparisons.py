import json
from dataclasses import asdict

import numpy as np
import pytest

from compressai_hm.evaluation import result_files as export
from compressai_hm.evaluation.statistics.comparisons import compare, over_seeds
from compressai_hm.evaluation.statistics.curves import MeasuredCurve
from compressai_hm.evaluation.sweep import Sweep

from ..conftest import ROOT


def test_trainings_are_resampled_as_pictures_are(cfg, tmp_path):
    """Bits at equal quality are those of a rate scaled by a factor."""

    def curve(codec, factor):
        rate, resampled = np.array([0.1, 0.2, 0.4]), np.ones((3, 50))
        resampled *= rate[:, None]
        own = MeasuredCurve(codec, "set", "x_hat", [1, 2, 3], list(factor * rate))
        own.metrics = {"psnr": [30.0, 32.0, 34.0]}
        own.resampled = {
            "bpp": list(factor * resampled),
            "psnr": [np.full(50, p) for p in own.metrics["psnr"]],
        }
        return own

    curves = [
        *(curve(f"control {i}", factor) for i, factor in enumerate((1, 1.2, 1.5))),
        *(curve(f"own {i}", factor) for i, factor in enumerate((0.9, 0.96, 1.05))),
    ]
    names = [f"{{}} {i}" for i in range(3)]
    group = dict(
        name="own",
        of=[name.format("own") for name in names],
        against=[name.format("control") for name in names],
    )
    (found,) = over_seeds(curves, [group])
    assert (found.codec, found.metric) == ("own", "psnr")
    assert found.bd_rate.value == pytest.approx(-20)  # of -10, -20 and -30
    low, high = found.bd_rate.interval
    assert -30 - 1e-6 <= low < -25 and -15 < high <= -10 + 1e-6
    alone = {key: group[key][:1] for key in ("of", "against")}
    (one,) = over_seeds(curves, [dict(name="one", **alone)])
    assert one.bd_rate == compare([curves[3], curves[0]], "control 0")[0].bd_rate
    for own in curves:
        own.pictures = 1
    (one,) = over_seeds(curves, [dict(name="one", **alone)])
    assert one.bd_rate.interval is None and "of one picture" in one.bd_rate.notes[0]

    cfg.seeds = [dict(name="own", of=["demo codec"], against=["JPEG", "WebP"])]
    with pytest.raises(ValueError, match="'own' needs as many names"):
        Sweep(cfg, tmp_path)


RECORDED = [path.parent for path in (ROOT / "results").glob("*/bd.json")]


@pytest.mark.parametrize("folder", RECORDED, ids=lambda folder: folder.name)
def test_the_recorded_bd_values_follow_from_the_recorded_points(folder):
    """bd.json from points.csv: all of it but the intervals."""
    recorded = json.loads((folder / "bd.json").read_text(encoding="utf-8"))
    curves, _ = export.read_points(folder / "points.csv")
    for curve in curves:
        curve.resampled = {metric: [np.zeros(0)] for metric in curve.metrics}
    found = {
        (c.set, c.codec, c.view, c.metric): c
        for c in compare(curves, recorded["anchor"])
    }
    assert len(found) == len(recorded["figures"]) > 5
    for row in recorded["figures"]:
        own = found[row["set"], row["codec"], row["view"], row["metric"]]
        for name in ("bd_rate", "bd_quality"):
            ours, theirs = asdict(getattr(own, name)), row[name]
            assert ours["share"] == pytest.approx(theirs["share"])
            for key in ("value", "overlap"):
                if theirs[key] is None:
                    assert ours[key] is None
                else:
                    assert ours[key] == pytest.approx(theirs[key], rel=1e-9, abs=1e-9)
