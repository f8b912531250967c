"""From the points of a sweep to curves, BD figures and files.

Every figure of a set is the mean over its pictures; mAP is COCO's of the whole set.
Intervals come from resampling the pictures: one draw serves all codecs, so that they
are compared on the same pictures.
"""

import csv
import io
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..codecs.files import write_whole
from .average_precision import Matches
from .bd import Curve, Figure, bd_quality, bd_rate, with_interval
from .sweep import UNCOMPRESSED, PictureSet, Sweep, finished

RESAMPLINGS = 200


@dataclass
class Measured:
    """One codec's curve on one set, by one view.

    Args:
        codec: Its name.
        set: The set's name.
        view: "x_hat" or "x_bar".
        qualities: The codec's knob at each point.
        bpp: At each point.
        metrics: Name to value at each point: "psnr", "ms_ssim", "mAP <detector>",
            "mask mAP <detector>".
        resampled: "bpp" and each metric, ``(points, R)``.
    """

    codec: str
    set: str
    view: str
    qualities: list[int] = field(default_factory=list)
    bpp: list[float] = field(default_factory=list)
    metrics: dict[str, list[float]] = field(default_factory=dict)
    resampled: dict[str, list[np.ndarray]] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return self.codec if self.view == "x_hat" else f"{self.codec} {self.view}"

    def curve(self, metric: str, draw: int | None = None) -> Curve:
        """Its rate-quality curve, of the set or of one resampling."""
        if draw is None:
            return Curve(self.bpp, self.metrics[metric])
        rate, quality = self.resampled["bpp"], self.resampled[metric]
        return Curve([r[draw] for r in rate], [q[draw] for q in quality])


def measure(sweep: Sweep, resamplings: int = RESAMPLINGS, seed: int = 0):
    """Curves of all finished points.

    Args:
        sweep: The sweep.
        resamplings: Bootstrap draws over the pictures of each set.
        seed: Of the draws.

    Returns:
        A list of :class:`Measured`, and per set each mAP on uncompressed pictures.
    """
    curves: dict[tuple, Measured] = {}
    reference: dict[str, dict[str, float]] = {}
    points = list(finished(sweep))
    for point, result in tqdm(points, unit="point", desc="mAP, resampled", leave=False):
        entry, own = sweep.cfg.sets[point.set], sweep.sets[point.set]
        weights = _draws(len(own.pictures), resamplings, seed)
        for view, metrics, drawn in _views(own, result, weights):
            if point.codec < 0:
                reference[entry.name] = {
                    name: value for name, value in metrics.items() if "mAP " in name
                }
                continue
            codec = sweep.cfg.codecs[point.codec].name
            key = (entry.name, codec, view)
            measured = curves.setdefault(key, Measured(codec, entry.name, view))
            measured.qualities.append(point.quality)
            measured.bpp.append(metrics.pop("bpp"))
            for name, value in metrics.items():
                measured.metrics.setdefault(name, []).append(value)
            for name, value in drawn.items():
                measured.resampled.setdefault(name, []).append(value)
    for measured in curves.values():
        _sort(measured)
    return list(curves.values()), reference


def _draws(count: int, resamplings: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.multinomial(count, np.full(count, 1 / count), resamplings).astype(float)


def _views(own: PictureSet, result: dict, weights: np.ndarray):
    """Per view the figures of a point, and the same for each weighting."""
    rows = result["pictures"]
    bpp = np.array([8 * r["bytes"] / (r["size"][0] * r["size"][1]) for r in rows])
    views = [key[5:] for key in rows[0] if key.startswith("psnr_")]
    for view in views:
        metrics = {"bpp": float(bpp.mean())}
        drawn = {"bpp": weights @ bpp / weights.sum(1)}
        for name in ("psnr", "ms_ssim"):
            values = [row.get(f"{name}_{view}") for row in rows]
            known = np.array([v is not None for v in values])
            if not known.any():
                continue
            values = np.array([v or 0.0 for v in values])
            metrics[name] = float(values[known].mean())
            with np.errstate(invalid="ignore"):
                drawn[name] = weights @ (values * known) / (weights @ known)
        for detector, found in result["detections"].items():
            found = found.get(view, [])
            kinds = {"mAP": "bbox"}
            if any("segmentation" in d for d in found):
                kinds["mask mAP"] = "segm"
            for name, kind in kinds.items():
                ids = [row["id"] for row in rows]
                matches = Matches(own.truth, found, ids, own.categories, kind)
                metrics[f"{name} {detector}"] = float(matches.average_precision()[0])
                drawn[f"{name} {detector}"] = matches.average_precision(weights)
        yield view, metrics, drawn


def _sort(measured: Measured) -> None:
    order = np.argsort(measured.bpp)
    for values in (
        measured.qualities,
        measured.bpp,
        *measured.metrics.values(),
        *measured.resampled.values(),
    ):
        values[:] = [values[i] for i in order]


def compare(curves: list[Measured], anchor: str) -> list[dict]:
    """BD figures of every curve against the anchor's.

    Args:
        curves: Of :func:`measure`.
        anchor: Name of the codec to compare with.

    Returns:
        Rows of ``set``, ``codec``, ``view``, ``metric``, ``bd_rate`` and ``bd_quality``
        (:class:`Figure`).
    """
    rows = []
    for measured in curves:
        against = next(
            (c for c in curves if (c.set, c.codec) == (measured.set, anchor)), None
        )
        for metric in measured.metrics if against else ():
            figures = {}
            for name, figure in (("bd_rate", bd_rate), ("bd_quality", bd_quality)):
                draws = len(measured.resampled[metric][0])
                figures[name] = with_interval(
                    figure(against.curve(metric), measured.curve(metric)),
                    [
                        figure(against.curve(metric, i), measured.curve(metric, i))
                        for i in range(draws)
                    ],
                )
            rows.append(
                {
                    "set": measured.set,
                    "codec": measured.codec,
                    "view": measured.view,
                    "metric": metric,
                    **figures,
                }
            )
    return rows


def write(sweep: Sweep, curves: list[Measured], rows: list[dict], reference) -> Path:
    """Writes the figures as JSON in CompressAI's schema, CSV and one table of BD.

    Returns:
        The folder.
    """
    folder = sweep.work_dir / "results"
    for measured in curves:
        label = measured.label.replace(" ", "_")
        result = {
            "name": measured.label,
            "description": f"{measured.set}: real bytes over original pixels, mean "
            "over the pictures",
            "results": {
                "bpp": measured.bpp,
                "quality": measured.qualities,
                **{_compressai(k): v for k, v in measured.metrics.items()},
            },
        }
        text = json.dumps(result, indent=1)
        write_whole(text.encode(), folder / measured.set / f"{label}.json")
    with io.StringIO() as f:
        table = csv.writer(f)
        table.writerow(["set", "codec", "view", "quality", "bpp", "metric", "value"])
        for c in curves:
            for metric, values in c.metrics.items():
                for point in zip(c.qualities, c.bpp, values, strict=True):
                    table.writerow(
                        [c.set, c.codec, c.view, *point[:2], metric, point[2]]
                    )
        for name, metrics in reference.items():
            for metric, value in metrics.items():
                table.writerow([name, UNCOMPRESSED, "", "", "", metric, value])
        write_whole(f.getvalue().encode(), folder / "points.csv")
    figures = [
        {k: asdict(v) if isinstance(v, Figure) else v for k, v in row.items()}
        for row in rows
    ]
    bd = {"anchor": sweep.cfg.anchor, "uncompressed": reference, "figures": figures}
    write_whole(json.dumps(bd, indent=1).encode(), folder / "bd.json")
    return folder


def _compressai(metric: str) -> str:
    return {"psnr": "psnr-rgb", "ms_ssim": "ms-ssim-rgb"}.get(metric, metric)


def table(rows: list[dict]) -> str:
    """The BD figures for people."""
    lines = []
    for name, metric in dict.fromkeys((r["set"], r["metric"]) for r in rows):
        lines.append(f"{name}, at equal {metric}")
        for row in rows:
            if (row["set"], row["metric"]) != (name, metric):
                continue
            label = row["codec"] + ("" if row["view"] == "x_hat" else f" {row['view']}")
            lines.append(f"  {label:24} {describe(row['bd_rate'])}")
    return "\n".join(lines)


def describe(figure: Figure) -> str:
    """One line: the value, its interval, the overlap, the notes."""
    notes = "; ".join(figure.notes)
    if figure.value is None:
        return f"     --   {notes}"
    text = f"{figure.value:+7.1f} %"
    if figure.interval:
        text += f" [{figure.interval[0]:+.1f}, {figure.interval[1]:+.1f}]"
    low, high = figure.overlap
    text += f"  over {low:.4g} to {high:.4g} ({100 * figure.share:.0f} %)"
    return f"{text}  {notes}"


def transfer(sweep: Sweep, rows: list[dict]) -> str:
    """Trained for x read by: BD-rate of the codecs that name a detector."""
    trained = {c.name: c.trained_for for c in sweep.cfg.codecs if c.get("trained_for")}
    if not trained:
        return ""
    lines = ["trained for x read by (BD-rate at equal mAP)"]
    for row in rows:
        if row["codec"] in trained and "mAP " in row["metric"]:
            detector = row["metric"].split("mAP ")[1]
            own = " (its own)" if detector == trained[row["codec"]] else ""
            lines.append(
                f"  {row['codec']} {row['view']}, for {trained[row['codec']]}, read by "
                f"{detector}{own} on {row['set']}: {describe(row['bd_rate'])}"
            )
    return "\n".join(lines)
