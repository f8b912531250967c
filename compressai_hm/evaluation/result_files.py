"""Results as files for programs, and Table 1 in Markdown."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ..io.files import write_whole
from .statistics.comparisons import Comparison
from .statistics.curves import MeasuredCurve
from .sweep import UNCOMPRESSED, Sweep
from .text_tables import table1

_COLUMNS = [
    "set", "codec", "view", "quality", "bpp", "container_bytes", "metric", "value",
]  # fmt: skip


def write(
    sweep: Sweep,
    curves: list[MeasuredCurve],
    comparisons: list[Comparison],
    reference: dict[str, dict[str, float]],
    of_seeds: Sequence[Comparison] = (),
) -> Path:
    """Writes JSON in CompressAI's schema, CSV, and the BD values.

    Args:
        sweep: The sweep.
        curves: The result of ``curves.measure``.
        comparisons: The result of ``comparisons.compare``.
        reference: The mAP on uncompressed pictures, from ``curves.measure``.
        of_seeds: The result of ``comparisons.over_seeds``. Defaults to none.

    Returns:
        The folder. It holds ``<set>/<codec>.json``, ``points.csv``, ``bd.json`` and,
        if the config has ``table1``, ``table1.md``. A metric that some pictures lack
        has the separate file ``<set>/<codec>_<metric>.json``.
    """
    folder = sweep.work_dir / "results"
    for curve in curves:
        path = folder / curve.set / f"{curve.label.replace(' ', '_')}.json"
        write_whole(_to_json(_to_compressai_schema(curve)), path)
        for metric in curve.rates:  # the schema has one bpp for all metrics of a file
            metric_path = path.with_name(f"{path.stem}_{metric}.json")
            write_whole(_to_json(_to_compressai_schema(curve, metric)), metric_path)
    write_whole(_to_csv(curves, reference), folder / "points.csv")
    bd = {
        "anchor": sweep.cfg.anchor,
        "uncompressed": reference,
        "figures": [asdict(comparison) for comparison in comparisons],
        "seeds": [asdict(comparison) for comparison in of_seeds],
    }
    write_whole(_to_json(bd), folder / "bd.json")
    if "table1" in sweep.cfg:
        text = table1(curves, **sweep.cfg.table1)
        write_whole(text.encode(), folder / "table1.md")
    return folder


def read_points(
    path: Path,
) -> tuple[list[MeasuredCurve], dict[str, dict[str, float]]]:
    """Reads the points of finished sweeps.

    Args:
        path: A ``points.csv`` of :func:`write`.

    Returns:
        The curves without resampled values, and the mAP on uncompressed pictures of
        each set.

    Raises:
        ValueError: If the table has other columns.
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
            if len(curve.metrics) == 1:  # each metric's rows repeat the points
                curve.qualities.append(int(row["quality"]))
                curve.container_bytes.append(float(row["container_bytes"]))
    for curve in curves.values():
        # Most metrics are of all pictures; their bpp is the curve's.
        rates = [tuple(rate) for rate in curve.rates.values()]
        curve.bpp = list(max(rates, key=rates.count))
        curve.rates = {k: v for k, v in curve.rates.items() if v != curve.bpp}
    return list(curves.values()), reference


def _to_compressai_schema(curve: MeasuredCurve, metric: str | None = None) -> dict:
    """Returns all metrics of all pictures, or one metric that some pictures lack."""
    names = {"psnr": "psnr-rgb", "ms_ssim": "ms-ssim-rgb"}
    metrics = {k: v for k, v in curve.metrics.items() if k not in curve.rates}
    description = (
        f"{curve.set}: real bytes over original pixels, mean over the pictures"
    )
    if metric is not None:
        metrics = {metric: curve.metrics[metric]}
        description += (
            f" except {', '.join(curve.left_out[metric])}, which a codec returned "
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


def _to_csv(
    curves: list[MeasuredCurve], reference: dict[str, dict[str, float]]
) -> bytes:
    with io.StringIO() as f:
        out = csv.writer(f)
        out.writerow(_COLUMNS)
        for c in curves:
            for metric, values in c.metrics.items():
                columns = c.qualities, c.rate(metric), c.container_bytes, values
                for *point, value in zip(*columns, strict=True):
                    out.writerow([c.set, c.codec, c.view, *point, metric, value])
        for name, metrics in reference.items():
            for metric, value in metrics.items():
                out.writerow([name, UNCOMPRESSED, "", "", "", "", metric, value])
        return f.getvalue().encode()


def _to_json(value: dict) -> bytes:
    return json.dumps(value, indent=1).encode()
