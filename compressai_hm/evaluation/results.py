"""From the points of a sweep to curves, BD figures and files.

Every figure of a set is the mean over its pictures; mAP is COCO's of the whole set.
Intervals come from resampling the pictures: one draw serves all codecs, so that they
are compared on the same pictures.
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..codecs.files import write_whole
from .average_precision import Matches
from .bd import Curve, Figure, bd_quality, bd_rate, with_interval
from .parts import PictureSet
from .sweep import UNCOMPRESSED, Sweep

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
        container_bytes: Of a file, at each point.
        metrics: Name to value at each point: "psnr", "ms_ssim", "mAP <detector>",
            "mask mAP <detector>".
        resampled: "bpp" and each metric, ``(points, R)``.
        left_out: Pictures that are in no mean of a metric, as a point lacks it.
        is_curve: Whether the points are a curve; else repetitions.
    """

    codec: str
    set: str
    view: str
    qualities: list[int] = field(default_factory=list)
    bpp: list[float] = field(default_factory=list)
    container_bytes: list[float] = field(default_factory=list)
    metrics: dict[str, list[float]] = field(default_factory=dict)
    resampled: dict[str, list[np.ndarray]] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    is_curve: bool = True

    @property
    def label(self) -> str:
        return self.codec if self.view == "x_hat" else f"{self.codec} {self.view}"

    def curve(self, metric: str, draw: int | None = None) -> Curve:
        """Its rate-quality curve, of the set or of one resampling."""
        if draw is None:
            return Curve(self.bpp, in_units(metric, self.metrics[metric]))
        rate = [r[draw] for r in self.resampled["bpp"]]
        quality = [q[draw] for q in self.resampled[metric]]
        return Curve(rate, in_units(metric, quality))


def in_units(metric: str, values: Sequence[float]) -> list[float]:
    """As plotted and compared: mAP in per cent, MS-SSIM in dB."""
    if "mAP " in metric:
        return [100 * v for v in values]
    if metric == "ms_ssim":
        return [-10 * float(np.log10(max(1 - v, 1e-10))) for v in values]
    return list(values)


def title(metric: str) -> str:
    """A metric's name with its unit."""
    names = {"bpp": "bpp", "psnr": "PSNR (dB)", "ms_ssim": "MS-SSIM (dB)"}
    return names.get(metric, f"{metric} (%)")


def measure(
    sweep: Sweep, resamplings: int = RESAMPLINGS, seed: int = 0
) -> tuple[list[Measured], dict[str, dict[str, float]]]:
    """Curves of all finished points.

    Args:
        sweep: The sweep.
        resamplings: Bootstrap draws over the pictures of each set.
        seed: Of the draws.

    Returns:
        The curves, and per set each mAP on uncompressed pictures.
    """
    curves: dict[tuple, Measured] = {}
    reference: dict[str, dict[str, float]] = {}
    points = list(sweep.finished())
    comparable = [_comparable(s, points) for s in range(len(sweep.sets))]
    for point, result in tqdm(points, unit="point", desc="mAP, resampled", leave=False):
        name, own = sweep.cfg.sets[point.set].name, sweep.sets[point.set]
        weights = _draws(len(own.pictures), resamplings, seed)
        for view, metrics, drawn in _views(own, result, weights, comparable[point.set]):
            if point.codec < 0:
                reference[name] = {k: v for k, v in metrics.items() if "mAP " in k}
                continue
            codec = sweep.cfg.codecs[point.codec]
            measured = curves.setdefault(
                (name, codec.name, view),
                Measured(codec.name, name, view, is_curve=codec.get("curve", True)),
            )
            for metric, known in comparable[point.set].known.items():
                if not known.all():
                    measured.left_out[metric] = int((~known).sum())
            measured.qualities.append(point.quality)
            measured.bpp.append(metrics.pop("bpp"))
            measured.container_bytes.append(metrics.pop("container_bytes"))
            for metric, value in metrics.items():
                measured.metrics.setdefault(metric, []).append(value)
            for metric, value in drawn.items():
                measured.resampled.setdefault(metric, []).append(value)
    for measured in curves.values():
        _sort(measured)
    return list(curves.values()), reference


@dataclass
class _Comparable:
    """What all points of a set have: the same pictures enter every mean.

    Args:
        known: Per distortion, which pictures have it at every point. (There is no PSNR
            where a codec happened to be lossless.)
        masks: Detectors that give masks.
    """

    known: dict[str, np.ndarray]
    masks: set[str]


def _comparable(of_set: int, points: list) -> _Comparable:
    out = _Comparable({}, set())
    for point, result in points:
        if point.set != of_set:
            continue
        for detector, views in result["detections"].items():
            if any("segmentation" in d for found in views.values() for d in found):
                out.masks.add(detector)
        for name in ("psnr", "ms_ssim") if point.codec >= 0 else ():
            for key in result["pictures"][0]:
                if key.startswith(f"{name}_x"):
                    known = [row[key] is not None for row in result["pictures"]]
                    before = out.known.get(name, np.ones(len(known), bool))
                    out.known[name] = before & known
    return out


def _draws(count: int, resamplings: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.multinomial(count, np.full(count, 1 / count), resamplings).astype(float)


def _views(
    own: PictureSet, result: dict, weights: np.ndarray, comparable: _Comparable
) -> Iterator[tuple[str, dict, dict]]:
    """Per view the figures of a point, and the same for each weighting."""
    rows = result["pictures"]
    bpp = np.array([8 * r["bytes"] / (r["size"][0] * r["size"][1]) for r in rows])
    for view in [key[5:] for key in rows[0] if key.startswith("psnr_")]:
        metrics = {
            "bpp": float(bpp.mean()),
            "container_bytes": float(np.mean([r["container_bytes"] for r in rows])),
        }
        drawn = {"bpp": weights @ bpp / weights.sum(1)}
        for name, known in comparable.known.items():
            if known.any() and f"{name}_{view}" in rows[0]:
                values = np.array([row[f"{name}_{view}"] or 0.0 for row in rows])
                metrics[name] = float(values[known].mean())
                with np.errstate(invalid="ignore"):
                    drawn[name] = weights @ (values * known) / (weights @ known)
        for detector, found in result["detections"].items():
            kinds = {"mAP": "bbox"}
            if detector in comparable.masks:
                kinds["mask mAP"] = "segm"
            for name, kind in kinds.items():
                ids = [row["id"] for row in rows]
                matches = Matches(
                    own.truth, found.get(view, []), ids, own.categories, kind
                )
                metrics[f"{name} {detector}"] = float(matches.average_precision()[0])
                drawn[f"{name} {detector}"] = matches.average_precision(weights)
        yield view, metrics, drawn


def _sort(measured: Measured) -> None:
    order = np.argsort(measured.bpp)
    for values in (
        measured.qualities,
        measured.bpp,
        measured.container_bytes,
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
    for measured in filter(lambda c: c.is_curve, curves):
        against = next(
            (c for c in curves if (c.set, c.codec) == (measured.set, anchor)), None
        )
        for metric in measured.metrics if against else ():
            if metric not in against.metrics:
                continue
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


def differences(curves: list[Measured], pairs: list[dict]) -> list[dict]:
    """Means over one codec's points less those over another's, by x_bar.

    For codecs with the same points but one thing, such as a part that was left out; the
    points may be rates and seeds.

    Args:
        curves: Of :func:`measure`.
        pairs: Dicts of ``of`` and ``against``, names of codecs.

    Returns:
        Rows of ``set``, ``of``, ``against``, ``metric`` ("bpp" too), ``value`` and
        ``interval`` (95 %, the same pictures drawn for both), in :func:`in_units`.
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
                drawn = [
                    np.mean([in_units(metric, d) for d in c.resampled[metric]], axis=0)
                    for c in (of, against)
                ]
                interval = np.nanpercentile(drawn[0] - drawn[1], [2.5, 97.5])
                rows.append(
                    {
                        "set": of_set,
                        **pair,
                        "metric": metric,
                        "value": float(mean[0] - mean[1]),
                        "interval": [float(bound) for bound in interval],
                    }
                )
    return rows


def write(
    sweep: Sweep,
    curves: list[Measured],
    rows: list[dict],
    reference: dict[str, dict[str, float]],
    differing: Sequence[dict] = (),
) -> Path:
    """Writes the figures as JSON in CompressAI's schema, CSV and one table of BD.

    Args:
        sweep: The sweep.
        curves: Of :func:`measure`.
        rows: Of :func:`compare`.
        reference: Of :func:`measure`.
        differing: Of :func:`differences`.

    Returns:
        The folder.
    """
    folder = sweep.work_dir / "results"
    for measured in curves:
        label = measured.label.replace(" ", "_")
        result = {
            "name": measured.label,
            "description": f"{measured.set}: real bytes over original pixels, mean "
            "over the pictures"
            + "".join(
                f"; {metric} without {count} that a codec gave back unchanged, or that "
                "are too small for it"
                for metric, count in measured.left_out.items()
            ),
            "results": {
                "bpp": measured.bpp,
                "quality": measured.qualities,
                **{_compressai(k): v for k, v in measured.metrics.items()},
            },
        }
        text = json.dumps(result, indent=1)
        write_whole(text.encode(), folder / measured.set / f"{label}.json")
    with io.StringIO() as f:
        out = csv.writer(f)
        columns = "set,codec,view,quality,bpp,container_bytes,metric,value"
        out.writerow(columns.split(","))
        for c in curves:
            for metric, values in c.metrics.items():
                for quality, bpp, container, value in zip(
                    c.qualities, c.bpp, c.container_bytes, values, strict=True
                ):
                    out.writerow(
                        [c.set, c.codec, c.view, quality, bpp, container, metric, value]
                    )
        for name, metrics in reference.items():
            for metric, value in metrics.items():
                out.writerow([name, UNCOMPRESSED, "", "", "", "", metric, value])
        write_whole(f.getvalue().encode(), folder / "points.csv")
    figures = [
        {k: asdict(v) if isinstance(v, Figure) else v for k, v in row.items()}
        for row in rows
    ]
    bd = {
        "anchor": sweep.cfg.anchor,
        "uncompressed": reference,
        "figures": figures,
        "differences": list(differing),
    }
    write_whole(json.dumps(bd, indent=1).encode(), folder / "bd.json")
    if "table1" in sweep.cfg:
        text = table1(curves, **sweep.cfg.table1)
        write_whole(text.encode(), folder / "table1.md")
    return folder


def _compressai(metric: str) -> str:
    return {"psnr": "psnr-rgb", "ms_ssim": "ms-ssim-rgb"}.get(metric, metric)


def points(curves: list[Measured]) -> str:
    """The measured points for people, where there is too little for BD figures."""
    lines = []
    for c in curves:
        for i, bpp in enumerate(c.bpp):
            figures = (
                f"{title(metric)} {in_units(metric, values)[i]:.2f}"
                for metric, values in c.metrics.items()
            )
            lines.append(f"{c.set}  {c.label:20} {bpp:.4f} bpp  {', '.join(figures)}")
    return "\n".join(lines)


def table(rows: list[dict]) -> str:
    """The BD figures for people."""
    lines = []
    for name, metric in dict.fromkeys((r["set"], r["metric"]) for r in rows):
        lines.append(f"{name}, {title(metric)}")
        for row in rows:
            if (row["set"], row["metric"]) != (name, metric):
                continue
            label = row["codec"] + ("" if row["view"] == "x_hat" else f" {row['view']}")
            lines.append(
                f"  {label:20} bits at equal quality {describe(row, 'bd_rate')}"
            )
            lines.append(
                f"  {'':20} quality at equal bits {describe(row, 'bd_quality')}"
            )
    return "\n".join(lines)


def table1(curves: list[Measured], anchor: str, columns: list[list[str]]) -> str:
    """BD-rates in the layout of the paper's Table 1, in Markdown.

    Machines read x_bar where there is one, people x_hat.

    Args:
        curves: Of :func:`measure`.
        anchor: Name of the codec that all are compared with.
        columns: (set, metric) of each.
    """
    rows = compare(curves, anchor)
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
                row["view"]: row["bd_rate"]
                for row in rows
                if (row["set"], row["codec"], row["metric"]) == (of_set, codec, metric)
            }
            views = ("x_bar", "x_hat") if "mAP " in metric else ("x_hat",)
            figure = next((found[view] for view in views if view in found), None)
            if figure is None or figure.value is None:
                cells.append("–")
                continue
            cells.append(f"{figure.value:+.1f} %")
            if figure.interval:
                cells[-1] += " [{:+.1f}, {:+.1f}]".format(*figure.interval)
        lines.append(f"| {codec} | {' | '.join(cells)}")
    return "\n".join(f"{line} |" for line in lines) + "\n"


def describe(row: dict, name: str) -> str:
    """A figure in one line: the value, its interval, the overlap, the notes."""
    figure = row[name]
    notes = "; ".join(figure.notes)
    if figure.value is None:
        return f"     --   {notes}"
    unit = "%" if name == "bd_rate" or "mAP " in row["metric"] else "dB"
    digits = 1 if name == "bd_rate" else 2
    text = f"{figure.value:+8.{digits}f} {unit}"
    if figure.interval:
        low, high = figure.interval
        text += f" [{low:+.{digits}f}, {high:+.{digits}f}]"
    low, high = figure.overlap
    where = title(row["metric"]) if name == "bd_rate" else "bpp"
    text += f" over {low:.4g} to {high:.4g} {where}, {100 * figure.share:.0f} %"
    return f"{text}  {notes}".rstrip()


def transfer(sweep: Sweep, rows: list[dict]) -> list[list[str]]:
    """BD-rate at equal mAP, trained for (rows) by read by (columns).

    Returns:
        A table of texts, its first row and column the headings; empty where no codec
        says what it was trained for.
    """
    trained = {c.name: c.trained_for for c in sweep.cfg.codecs if c.get("trained_for")}
    own = [r for r in rows if r["codec"] in trained and "mAP " in r["metric"]]
    columns = list(dict.fromkeys((r["set"], r["metric"]) for r in own))
    if not own:
        return []
    out = [["trained for", *(f"{s}: {m.split('mAP ')[1]}" for s, m in columns)]]
    for codec, view in dict.fromkeys((r["codec"], r["view"]) for r in own):
        found = {
            (r["set"], r["metric"]): describe(r, "bd_rate")
            for r in own
            if (r["codec"], r["view"]) == (codec, view)
        }
        cells = [found.get(column, "") for column in columns]
        out.append([f"{trained[codec]} ({codec} {view})", *cells])
    return out
