"""Curves of a sweep's finished points, of the set and of resampled pictures."""

import contextlib
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from pycocotools.coco import COCO
from tqdm import tqdm

from ..sweep import PictureSet, Point, Sweep
from .average_precision import Matches
from .bd import Curve
from .metrics import DISTORTIONS, SIZES, SURE, in_units, is_accuracy

RESAMPLINGS = 200


@dataclass
class MeasuredCurve:
    """One codec's points on one set, by one view.

    Args:
        codec: Its name.
        set: The set's name.
        view: "x_hat" or "x_bar".
        qualities: The codec's knob at each point.
        bpp: At each point.
        container_bytes: Of a file, at each point.
        metrics: Name to value at each point, see :mod:`.metrics`.
        rates: bpp at each point over the pictures that a metric is of, for metrics that
            some pictures lack.
        resampled: "bpp", each metric and, where it has rates of its own, "bpp" and its
            name, ``(points, R)``.
        left_out: By metric, names of pictures that are in none of its means, nor in its
            rates, because a point lacks it.
        is_curve: Whether the points are a curve; else repetitions.
        pictures: How many the set has.
    """

    codec: str
    set: str
    view: str
    qualities: list[int] = field(default_factory=list)
    bpp: list[float] = field(default_factory=list)
    container_bytes: list[float] = field(default_factory=list)
    metrics: dict[str, list[float]] = field(default_factory=dict)
    rates: dict[str, list[float]] = field(default_factory=dict)
    resampled: dict[str, list[np.ndarray]] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    is_curve: bool = True
    pictures: int = field(default=0, compare=False)  # points.csv has it not

    @property
    def label(self) -> str:
        """Of the codec and the view."""
        return label(self.codec, self.view)

    def measured(self, metric: str) -> int:
        """How many pictures a metric is of."""
        return self.pictures - len(self.left_out.get(metric, ()))

    def rate(self, metric: str) -> list[float]:
        """bpp at each point, of the very pictures that the metric is of."""
        return self.rates.get(metric, self.bpp)

    def curve(self, metric: str, resampling: int | None = None) -> Curve:
        """Its rate-quality curve, of the set or of one resampling."""
        if resampling is None:
            return Curve(self.rate(metric), in_units(metric, self.metrics[metric]))
        own = f"bpp {metric}" if metric in self.rates else "bpp"
        rate = [r[resampling] for r in self.resampled[own]]
        quality = [q[resampling] for q in self.resampled[metric]]
        return Curve(rate, in_units(metric, quality))

    def sort(self) -> None:
        """Puts the points in the order of their bpp."""
        order = np.argsort(self.bpp)
        for values in (
            self.qualities,
            self.bpp,
            self.container_bytes,
            *self.metrics.values(),
            *self.rates.values(),
            *self.resampled.values(),
        ):
            values[:] = [values[i] for i in order]


def label(codec: str, view: str) -> str:
    """What a codec's curve by a view is called."""
    return codec if view == "x_hat" else f"{codec} {view}"


def measure(
    sweep: Sweep,
    resamplings: int = RESAMPLINGS,
    seed: int = 0,
    details: bool = False,
) -> tuple[list[MeasuredCurve], dict[str, dict[str, float]]]:
    """Curves of all finished points.

    Args:
        sweep: The sweep.
        resamplings: How often the pictures of each set are resampled.
        seed: Of the resampling.
        details: Also mAP by the size of the objects, and agreement with what detectors
            find in the uncompressed pictures.

    Returns:
        The curves, and per set each mAP on uncompressed pictures.
    """
    curves: dict[tuple, MeasuredCurve] = {}
    reference: dict[str, dict[str, float]] = {}
    points = list(sweep.finished())
    comparable = [_comparable(s, points) for s in range(len(sweep.sets))]
    if details:
        for point, result in points:
            if point.codec < 0:
                own, of_set = sweep.sets[point.set], comparable[point.set]
                of_set.sure = {
                    name: _found(own.truth, views["x_hat"])
                    for name, views in result["detections"].items()
                }
    for point, result in tqdm(points, unit="point", desc="mAP, resampled", leave=False):
        name, own = sweep.cfg.sets[point.set].name, sweep.sets[point.set]
        weights = _resample(len(own.pictures), resamplings, seed)
        of_set = comparable[point.set]
        names = np.array([row["name"] for row in result["pictures"]])
        for view, metrics, rates, resampled in _views(own, result, weights, of_set):
            if point.codec < 0:
                reference[name] = {k: v for k, v in metrics.items() if is_accuracy(k)}
                continue
            codec = sweep.cfg.codecs[point.codec]
            curve = curves.setdefault(
                (name, codec.name, view),
                MeasuredCurve(
                    codec.name,
                    name,
                    view,
                    is_curve=codec.get("curve", True),
                    pictures=len(own.pictures),
                ),
            )
            for metric, known in of_set.known.items():
                if not known.all():
                    curve.left_out[metric] = names[~known].tolist()
            curve.qualities.append(point.quality)
            curve.bpp.append(metrics.pop("bpp"))
            curve.container_bytes.append(metrics.pop("container_bytes"))
            for metric, value in metrics.items():
                curve.metrics.setdefault(metric, []).append(value)
            for metric, value in rates.items():
                curve.rates.setdefault(metric, []).append(value)
            for metric, values in resampled.items():
                curve.resampled.setdefault(metric, []).append(values)
    for curve in curves.values():
        curve.sort()
    return list(curves.values()), reference


@dataclass
class _Comparable:
    """What all points of a set have: the same pictures enter every mean.

    Args:
        known: Per distortion, which pictures have it at every point. (There is no PSNR
            where a codec happened to be lossless.)
        masks: Detectors that give masks.
        sure: What each detector finds in the uncompressed pictures, as annotations;
            where details are asked for.
    """

    known: dict[str, np.ndarray]
    masks: set[str]
    sure: dict[str, COCO] = field(default_factory=dict)


def _found(truth: COCO, detections: list[dict]) -> COCO:
    """Detections from a score of SURE as annotations."""
    out = COCO()
    out.dataset = {
        **{key: truth.dataset[key] for key in ("images", "categories")},
        "annotations": [
            {**own, "id": i, "area": own["bbox"][2] * own["bbox"][3], "iscrowd": 0}
            for i, own in enumerate(detections, 1)
            if own["score"] >= SURE
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        out.createIndex()
    return out


def _comparable(of_set: int, points: list[tuple[Point, dict]]) -> _Comparable:
    out = _Comparable({}, set())
    for point, result in points:
        if point.set != of_set:
            continue
        for detector, views in result["detections"].items():
            if any("segmentation" in d for found in views.values() for d in found):
                out.masks.add(detector)
        for name in DISTORTIONS if point.codec >= 0 else ():
            for key in result["pictures"][0]:
                if key.startswith(f"{name}_x"):
                    known = [row[key] is not None for row in result["pictures"]]
                    before = out.known.get(name, np.ones(len(known), bool))
                    out.known[name] = before & known
    return out


def _resample(count: int, resamplings: int, seed: int) -> np.ndarray:
    """How often each picture counts in each resampling, ``(R, N)``."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(count, np.full(count, 1 / count), resamplings).astype(float)


def _views(
    own: PictureSet, result: dict, weights: np.ndarray, comparable: _Comparable
) -> Iterator[tuple[str, dict, dict, dict]]:
    """Per view the values of a point, rates of metrics that some pictures lack, and the
    same of both for each weighting."""
    rows = result["pictures"]
    bpp = np.array([8 * r["bytes"] / (r["size"][0] * r["size"][1]) for r in rows])
    before, accuracy = None, {}
    for view in [key[5:] for key in rows[0] if key.startswith("psnr_")]:
        metrics = {
            "bpp": float(bpp.mean()),
            "container_bytes": float(np.mean([r["container_bytes"] for r in rows])),
        }
        resampled, rates = {"bpp": weights @ bpp / weights.sum(1)}, {}
        for name, known in comparable.known.items():
            if known.any() and f"{name}_{view}" in rows[0]:
                values = np.array([row[f"{name}_{view}"] or 0.0 for row in rows])
                metrics[name] = float(values[known].mean())
                with np.errstate(invalid="ignore"):
                    resampled[name] = weights @ (values * known) / (weights @ known)
                    if not known.all():
                        rates[name] = float(bpp[known].mean())
                        own_rate = weights @ (bpp * known) / (weights @ known)
                        resampled[f"bpp {name}"] = own_rate
        found = {name: own.get(view, []) for name, own in result["detections"].items()}
        if found != before:  # without g_t the views are one
            before, accuracy = found, _accuracy(own, rows, found, weights, comparable)
        metrics |= {name: value for name, (value, _) in accuracy.items()}
        resampled |= {name: values for name, (_, values) in accuracy.items()}
        yield view, metrics, rates, resampled


def _accuracy(
    own: PictureSet,
    rows: list[dict],
    found: dict[str, list[dict]],
    weights: np.ndarray,
    comparable: _Comparable,
) -> dict[str, tuple[float, np.ndarray]]:
    """What detectors are worth on a view: of the set, and for each weighting."""
    out = {}
    ids = [row["id"] for row in rows]
    for detector, detections in found.items():
        kinds = {"mAP": "bbox"}
        if detector in comparable.masks:
            kinds["mask mAP"] = "segm"
        asked = [(name, own.truth, kind, "all") for name, kind in kinds.items()]
        if detector in comparable.sure:
            asked += [(f"{size} mAP", own.truth, "bbox", size) for size in SIZES]
            asked.append(("agreement", comparable.sure[detector], "bbox", "all"))
        for name, truth, kind, sizes in asked:
            matches = Matches(truth, detections, ids, own.categories, kind, sizes)
            value = float(matches.average_precision()[0])
            if not math.isnan(value):  # no object of the size
                resampled = matches.average_precision(weights)
                out[f"{name} {detector}"] = value, resampled
    return out
