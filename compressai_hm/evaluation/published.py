"""The paper's values, and whether its points agree with its table."""

import json
from pathlib import Path

from .statistics.bd import BDResult, Curve, bd_rate

PUBLISHED = json.loads(
    (Path(__file__).parent / "published.json").read_text(encoding="utf-8")
)
"""Read off the paper; never mixed with measured values."""

_METRICS = {"detection": "mAP ", "segmentation": "mask mAP ", "Kodak PSNR": "psnr"}


def published_points(kind: str | None, metric: str) -> dict[str, list[list[float]]]:
    """The paper's curves of a metric.

    Args:
        kind: "detection", "segmentation" or "Kodak PSNR"; None for none.
        metric: As in :class:`.statistics.curves.MeasuredCurve`.

    Returns:
        Name of a codec to its (bpp, value) points; empty where the paper has none.
    """
    fits = kind and metric.startswith(_METRICS[kind])
    return PUBLISHED["curves"][kind] if fits else {}


def paper_check() -> list[tuple[str, str, float, BDResult]]:
    """BD-rates of the paper's digitised points beside its Table 1.

    Returns:
        (curve, codec, Table 1's value in per cent, ours) of each.
    """
    out = []
    columns = PUBLISHED["table1"]["columns"]
    for kind, curves in PUBLISHED["curves"].items():
        anchor = curves.get(PUBLISHED["anchor"])
        for codec, values in PUBLISHED["table1"]["rows"].items():
            if anchor and codec in curves:
                ours = bd_rate(published_curve(kind), published_curve(kind, codec))
                out.append((kind, codec, values[columns.index(kind)], ours))
    return out


def published_curve(kind: str, codec: str = PUBLISHED["anchor"]) -> Curve:
    """One of the paper's curves, its anchor's unless a codec is named."""
    return Curve(*zip(*PUBLISHED["curves"][kind][codec], strict=True))
