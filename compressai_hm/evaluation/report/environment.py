"""The environment of a sweep: command, device, versions, weights, seconds."""

import importlib.metadata
import platform
import shlex
from collections import Counter

import numpy as np

from ..sweep import Point, Sweep
from ..sweep.digests import file_digest
from ..sweep.sweep import read_json

_PACKAGES = (
    "compressai-hm", "torch", "torchvision", "compressai", "bjontegaard", "Pillow",
    "imageio-ffmpeg", "onedl-mmdetection", "mmdet", "pycocotools", "numpy",
)  # fmt: skip


def environment(sweep: Sweep, command: list[str]) -> list[tuple[str, str]]:
    """Returns what is needed to repeat a sweep, as (name, value).

    Args:
        sweep: The sweep.
        command: The command line.
    """
    lines = [
        ("command", shlex.join(["python", *command])),
        ("machine", f"{platform.platform()}, Python {platform.python_version()}"),
        ("device", _list_devices(sweep)),
    ]
    for package in _PACKAGES:
        try:
            lines.append((package, importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            continue
    for seconds in ("encode", "decode"):
        lines.append((f"{seconds}, seconds a picture", _list_times(sweep, seconds)))
    weights = [p for c in sweep.cfg.codecs for p in c.get("checkpoints", ())]
    weights += [d["checkpoint"] for s in sweep.sets for d in s.detectors]
    for path in dict.fromkeys(weights):
        lines.append((path, f"sha256 {file_digest(path)}"))
    lines.append(("resampling of pictures", "seed 0"))
    lines.append(("config", sweep.cfg.pretty_text))
    return lines


def _list_devices(sweep: Sweep) -> str:
    """Returns the devices that measured the finished points."""
    times = [_read_times(sweep, point) for point, _ in sweep.finished()]
    devices = Counter(row["device"] for row in times if row)
    if len(devices) <= 1:
        return "".join(devices)
    return ", ".join(f"{name}: {count} points" for name, count in devices.items())


def _list_times(sweep: Sweep, kind: str) -> str:
    """Returns for each codec the median over its points' mean seconds."""
    means: dict[str, list[float]] = {}
    for point, _ in sweep.finished():
        seconds = _read_times(sweep, point).get(kind)
        if point.codec >= 0 and seconds:
            means.setdefault(sweep.name(point), []).append(float(np.mean(seconds)))
    return ", ".join(f"{name} {np.median(v):.3f}" for name, v in means.items())


def _read_times(sweep: Sweep, point: Point) -> dict:
    """Returns the seconds and the device of a point."""
    return read_json(sweep.result_file(point, "times"))
