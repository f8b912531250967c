"""Curves of a sweep's finished points, for the set and for resampled pictures."""

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
from .metric_names import DISTORTIONS, SIZES, SURE, in_units, is_accuracy

RESAMPLINGS = 200


@dataclass
class MeasuredCurve:
    """One codec's points on one set, for one view.

    Args:
        codec: The codec's name.
        set: The set's name.
        view: "x_hat" or "x_bar".
        qualities: The codec's quality at each point.
        bpp: Mean bits per pixel at each point.
        container_bytes: Mean bytes of a file's container at each point.
        metrics: Values at each point, by the names of :mod:`.metric_names`.
        rates: bpp at each point over the pictures that have a metric, for metrics that
            some pictures lack.
        resampled: Resampled values, ``(points, R)``, of "bpp", each metric, and
            "bpp <metric>" for each metric of ``rates``.
        left_out: By metric, names of the pictures that count in none of its values or
            rates, because they lack it at a point.
        pictures: Number of pictures of the set.
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
    pictures: int = field(default=0, compare=False)  # points.csv does not have it

    @property
    def label(self) -> str:
        """Returns the name of the codec and the view."""
        return label(self.codec, self.view)

    def measured(self, metric: str) -> int:
        """Returns how many pictures have a ``metric``."""
        return self.pictures - len(self.left_out.get(metric, ()))

    def rate(self, metric: str) -> list[float]:
        """Returns bpp at each point over the pictures that have a ``metric``."""
        return self.rates.get(metric, self.bpp)

    def curve(self, metric: str, resampling: int | None = None) -> Curve:
        """Returns the curve of bpp and a metric.

        Args:
            metric: The metric's name.
            resampling: Index of the resampling. Defaults to None, the whole set.
        """
        if resampling is None:
            return Curve(self.rate(metric), in_units(metric, self.metrics[metric]))
        key = f"bpp {metric}" if metric in self.rates else "bpp"
        rate = [r[resampling] for r in self.resampled[key]]
        quality = [q[resampling] for q in self.resampled[metric]]
        return Curve(rate, in_units(metric, quality))

    def sort(self) -> None:
        """Sorts the points by their bpp."""
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
    """Returns the name of a curve: the ``codec``, and the ``view`` if it is x_bar."""
    return codec if view == "x_hat" else f"{codec} {view}"


def measure(
    sweep: Sweep,
    resamplings: int = RESAMPLINGS,
    seed: int = 0,
    details: bool = False,
) -> tuple[list[MeasuredCurve], dict[str, dict[str, float]]]:
    """Makes the curves of all finished points.

    Args:
        sweep: The sweep.
        resamplings: How often the pictures of each set are resampled. Defaults to 200.
        seed: Seed of the resampling. Defaults to 0.
        details: Whether to add mAP by the size of the objects, and agreement with the
            detections in the uncompressed pictures. Defaults to False.

    Returns:
        The curves, and by set each mAP on uncompressed pictures.
    """
    curves: dict[tuple, MeasuredCurve] = {}
    reference: dict[str, dict[str, float]] = {}
    points = list(sweep.finished())
    shared = [_collect_shared(s, points) for s in range(len(sweep.sets))]
    for point, result in points if details else ():
        if point.codec < 0:
            shared[point.set].reference = {
                detector: _to_annotations(sweep.sets[point.set].truth, views["x_hat"])
                for detector, views in result["detections"].items()
            }
    for point, result in tqdm(points, unit="point", desc="mAP, resampled", leave=False):
        name, pictures = sweep.cfg.sets[point.set].name, sweep.sets[point.set]
        weights = _resample(len(pictures.pictures), resamplings, seed)
        of_set = shared[point.set]
        names = np.array([row["name"] for row in result["pictures"]])
        for view, metrics, rates, resampled in _measure_views(
            pictures, result, weights, of_set
        ):
            if point.codec < 0:
                reference[name] = {k: v for k, v in metrics.items() if is_accuracy(k)}
                continue
            codec = sweep.name(point)
            curve = curves.setdefault(
                (name, codec, view),
                MeasuredCurve(codec, name, view, pictures=len(pictures.pictures)),
            )
            for metric, known in of_set.known.items():
                if not known.all():
                    curve.left_out[metric] = names[~known].tolist()
            curve.qualities.append(point.quality)
            curve.bpp.append(metrics.pop("bpp"))
            curve.container_bytes.append(metrics.pop("container_bytes"))
            for columns, values in (
                (curve.metrics, metrics),
                (curve.rates, rates),
                (curve.resampled, resampled),
            ):
                for metric, value in values.items():
                    columns.setdefault(metric, []).append(value)
    for curve in curves.values():
        curve.sort()
    return list(curves.values()), reference


@dataclass
class _Shared:
    """Properties that all points of a set share, so that their means are comparable.

    Args:
        known: By distortion, whether each picture has it at every point. (A picture
            that a codec returned unchanged has no PSNR.)
        masks: Detectors that return masks.
        reference: By detector, its detections in the uncompressed pictures as
            annotations; empty without details.
    """

    known: dict[str, np.ndarray]
    masks: set[str]
    reference: dict[str, COCO] = field(default_factory=dict)


def _to_annotations(truth: COCO, detections: list[dict]) -> COCO:
    """Returns detections from a score of SURE as annotations."""
    out = COCO()
    out.dataset = {
        **{key: truth.dataset[key] for key in ("images", "categories")},
        "annotations": [
            {**d, "id": i, "area": d["bbox"][2] * d["bbox"][3], "iscrowd": 0}
            for i, d in enumerate(detections, 1)
            if d["score"] >= SURE
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        out.createIndex()
    return out


def _collect_shared(set_index: int, points: list[tuple[Point, dict]]) -> _Shared:
    shared = _Shared({}, set())
    for point, result in points:
        if point.set != set_index:
            continue
        for detector, views in result["detections"].items():
            if any("segmentation" in d for rows in views.values() for d in rows):
                shared.masks.add(detector)
        for name in DISTORTIONS if point.codec >= 0 else ():
            for key in result["pictures"][0]:
                if key.startswith(f"{name}_x"):
                    known = [row[key] is not None for row in result["pictures"]]
                    before = shared.known.get(name, np.ones(len(known), bool))
                    shared.known[name] = before & known
    return shared


def _resample(count: int, resamplings: int, seed: int) -> np.ndarray:
    """Draws how often each picture counts in each resampling, ``(R, N)``."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(count, np.full(count, 1 / count), resamplings).astype(float)


def _measure_views(
    pictures: PictureSet, result: dict, weights: np.ndarray, shared: _Shared
) -> Iterator[tuple[str, dict, dict, dict]]:
    """Yields each view of a point with its metrics, rates and resampled values.

    The rates are of metrics that some pictures lack.
    """
    rows = result["pictures"]
    bpp = np.array([8 * r["bytes"] / (r["size"][0] * r["size"][1]) for r in rows])
    before, accuracy = None, {}
    for view in [key[5:] for key in rows[0] if key.startswith("psnr_")]:
        metrics = {
            "bpp": float(bpp.mean()),
            "container_bytes": float(np.mean([r["container_bytes"] for r in rows])),
        }
        resampled, rates = {"bpp": weights @ bpp / weights.sum(1)}, {}
        for name, known in shared.known.items():
            if known.any() and f"{name}_{view}" in rows[0]:
                values = np.array([row[f"{name}_{view}"] or 0.0 for row in rows])
                metrics[name] = float(values[known].mean())
                with np.errstate(invalid="ignore"):
                    counts = weights @ known
                    resampled[name] = weights @ (values * known) / counts
                    if not known.all():
                        rates[name] = float(bpp[known].mean())
                        resampled[f"bpp {name}"] = weights @ (bpp * known) / counts
        detections = {
            detector: views.get(view, [])
            for detector, views in result["detections"].items()
        }
        if detections != before:  # without g_t both views are the same picture
            before = detections
            accuracy = _measure_accuracy(pictures, rows, detections, weights, shared)
        metrics |= {name: value for name, (value, _) in accuracy.items()}
        resampled |= {name: values for name, (_, values) in accuracy.items()}
        yield view, metrics, rates, resampled


def _measure_accuracy(
    pictures: PictureSet,
    rows: list[dict],
    detections: dict[str, list[dict]],
    weights: np.ndarray,
    shared: _Shared,
) -> dict[str, tuple[float, np.ndarray]]:
    """Returns the metrics of all detectors, for the set and for each weighting."""
    out = {}
    ids = [row["id"] for row in rows]
    for detector, results in detections.items():
        metrics = [("mAP", pictures.truth, "bbox", "all")]
        if detector in shared.masks:
            metrics.append(("mask mAP", pictures.truth, "segm", "all"))
        if detector in shared.reference:
            metrics += [(f"{s} mAP", pictures.truth, "bbox", s) for s in SIZES]
            metrics.append(("agreement", shared.reference[detector], "bbox", "all"))
        for name, truth, kind, sizes in metrics:
            matches = Matches(truth, results, ids, pictures.categories, kind, sizes)
            value = float(matches.average_precision()[0])
            if not math.isnan(value):  # nan if there is no object of the size
                resampled = matches.average_precision(weights)
                out[f"{name} {detector}"] = value, resampled
    return out
