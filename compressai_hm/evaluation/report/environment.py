"""How a sweep was made: command, device, versions, weights, seconds."""

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
    """What a repetition needs to know, as (what, value).

    Args:
        sweep: The sweep.
        command: What was typed.
    """
    lines = [
        ("command", shlex.join(["python", *command])),
        ("machine", f"{platform.platform()}, Python {platform.python_version()}"),
        ("device", _devices(sweep)),
    ]
    for package in _PACKAGES:
        try:
            lines.append((package, importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            continue
    for seconds in ("encode", "decode"):
        lines.append((f"{seconds}, seconds a picture", _times(sweep, seconds)))
    weights = [p for c in sweep.cfg.codecs for p in c.get("checkpoints", ())]
    weights += [d["checkpoint"] for own in sweep.sets for d in own.detectors]
    for path in dict.fromkeys(weights):
        lines.append((path, f"sha256 {file_digest(path)}"))
    lines.append(("resampling of pictures", "seed 0"))
    lines.append(("config", sweep.cfg.pretty_text))
    return lines


def _devices(sweep: Sweep) -> str:
    """Where the finished points were measured; before there was a choice, on CPUs."""
    times = [_measured(sweep, point) for point, _ in sweep.finished()]
    found = Counter(own.get("device", "cpu") for own in times)
    if len(found) <= 1:
        return "".join(found)
    return ", ".join(f"{name}: {count} points" for name, count in found.items())


def _times(sweep: Sweep, which: str) -> str:
    """Of each codec, the median over its points' means."""
    found: dict[str, list[float]] = {}
    for point, _ in sweep.finished():
        seconds = _measured(sweep, point).get(which)
        if point.codec >= 0 and seconds:
            found.setdefault(sweep.name(point), []).append(float(np.mean(seconds)))
    return ", ".join(f"{name} {np.median(v):.3f}" for name, v in found.items())


def _measured(sweep: Sweep, point: Point) -> dict:
    """Seconds and device."""
    return read_json(sweep.result_file(point, "times"))
