"""What was measured, as files for programs, and Table 1 in Markdown."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ..codecs.files import write_whole
from .statistics.comparisons import Comparison
from .statistics.curves import MeasuredCurve
from .sweep import UNCOMPRESSED, Sweep
from .tables import table1

_COLUMNS = [
    "set", "codec", "view", "quality", "bpp", "container_bytes", "metric", "value",
]  # fmt: skip


def write(
    sweep: Sweep,
    curves: list[MeasuredCurve],
    comparisons: list[Comparison],
    reference: dict[str, dict[str, float]],
    differing: Sequence[dict] = (),
    of_seeds: Sequence[Comparison] = (),
) -> Path:
    """Writes JSON in CompressAI's schema, CSV, and the BD values.

    Args:
        sweep: The sweep.
        curves: Of ``statistics.measure``.
        comparisons: Of ``statistics.compare``.
        reference: Of ``statistics.measure``.
        differing: Of ``statistics.differences``.
        of_seeds: Of ``statistics.over_seeds``.

    Returns:
        The folder: ``<set>/<codec>.json``, beside it ``<codec>_<metric>.json`` of a
        metric that some pictures lack, ``points.csv``, ``bd.json`` and, where the
        config asks for it, ``table1.md``.
    """
    folder = sweep.work_dir / "results"
    for curve in curves:
        path = folder / curve.set / f"{curve.label.replace(' ', '_')}.json"
        write_whole(_json(_in_compressais_schema(curve)), path)
        for metric in curve.rates:  # the schema has one bpp for all metrics of a file
            own = path.with_name(f"{path.stem}_{metric}.json")
            write_whole(_json(_in_compressais_schema(curve, metric)), own)
    write_whole(_csv(curves, reference), folder / "points.csv")
    bd = {
        "anchor": sweep.cfg.anchor,
        "uncompressed": reference,
        "figures": [asdict(comparison) for comparison in comparisons],
        "differences": list(differing),
        "seeds": [asdict(comparison) for comparison in of_seeds],
    }
    write_whole(_json(bd), folder / "bd.json")
    if "table1" in sweep.cfg:
        text = table1(curves, **sweep.cfg.table1)
        write_whole(text.encode(), folder / "table1.md")
    return folder


def read_points(
    path: Path,
) -> tuple[list[MeasuredCurve], dict[str, dict[str, float]]]:
    """What a ``points.csv`` of :func:`write` holds.

    Returns:
        As of ``statistics.measure``, but nothing resampled, and repetitions as curves.

    Raises:
        ValueError: If it is another table.
    """
    curves: dict[tuple, MeasuredCurve] = {}
    reference: dict[str, dict[str, float]] = {}
    with open(path, encoding="utf-8", newline="") as f:
        table = csv.DictReader(f)
        if table.fieldnames != _COLUMNS:
            raise ValueError(
                f"{path}: the columns are {table.fieldnames}, not {_COLUMNS}"
            )
        for row in table:
            metric, value = row["metric"], float(row["value"])
            if row["codec"] == UNCOMPRESSED:
                reference.setdefault(row["set"], {})[metric] = value
                continue
            key = row["codec"], row["set"], row["view"]
            curve = curves.setdefault(key, MeasuredCurve(*key))
            curve.metrics.setdefault(metric, []).append(value)
            curve.rates.setdefault(metric, []).append(float(row["bpp"]))
            if len(curve.metrics) == 1:  # each metric's rows say the points again
                curve.qualities.append(int(row["quality"]))
                curve.container_bytes.append(float(row["container_bytes"]))
    for curve in curves.values():
        # Those of the metrics that all pictures have, which are most.
        every = [tuple(own) for own in curve.rates.values()]
        curve.bpp = list(max(every, key=every.count))
        curve.rates = {k: v for k, v in curve.rates.items() if v != curve.bpp}
    return list(curves.values()), reference


def _in_compressais_schema(curve: MeasuredCurve, metric: str | None = None) -> dict:
    """All metrics of all pictures; or one that some pictures lack, and its rates."""
    names = {"psnr": "psnr-rgb", "ms_ssim": "ms-ssim-rgb"}
    metrics = {k: v for k, v in curve.metrics.items() if k not in curve.rates}
    description = (
        f"{curve.set}: real bytes over original pixels, mean over the pictures"
    )
    if metric is not None:
        metrics = {metric: curve.metrics[metric]}
        description += (
            f" but {', '.join(curve.left_out[metric])}, which a codec gave back "
            f"unchanged, or which are too small for {metric}"
        )
    return {
        "name": curve.label,
        "description": description,
        "results": {
            "bpp": curve.bpp if metric is None else curve.rates[metric],
            "quality": curve.qualities,
            **{names.get(k, k): v for k, v in metrics.items()},
        },
    }


def _csv(curves: list[MeasuredCurve], reference: dict[str, dict[str, float]]) -> bytes:
    with io.StringIO() as f:
        out = csv.writer(f)
        out.writerow(_COLUMNS)
        for c in curves:
            for metric, values in c.metrics.items():
                for point in zip(
                    c.qualities,
                    c.rate(metric),
                    c.container_bytes,
                    values,
                    strict=True,
                ):
                    *knobs, value = point
                    out.writerow([c.set, c.codec, c.view, *knobs, metric, value])
        for name, metrics in reference.items():
            for metric, value in metrics.items():
                out.writerow([name, UNCOMPRESSED, "", "", "", "", metric, value])
        return f.getvalue().encode()


def _json(value: dict) -> bytes:
    return json.dumps(value, indent=1).encode()
