"""Runs one point of a sweep: codes, decodes, measures and detects in every picture."""

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...distortion import ms_ssim, psnr
from ...encoder.regions import boxes_to_mask
from ...io.files import write_whole
from .detectors import build_detector
from .picture_set import read_picture
from .sweep import Point, Sweep
from .sweep_codec import SweepCodec


@contextlib.contextmanager
def _use_one_thread() -> Iterator[None]:
    """Fixes the number of threads, on which the last bits of floating point depend."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@_use_one_thread()
@torch.no_grad()
def run_point(sweep: Sweep, point: Point, tick: Callable[[int], Any]) -> None:
    """Codes, decodes, measures and detects, and writes the point's file.

    Args:
        sweep: The sweep.
        point: One of its points.
        tick: Function that is called with 1 after each picture.

    Raises:
        RuntimeError: If a picture fails; the message names it.
    """
    pictures, coder = sweep.sets[point.set], sweep.coder(point)
    detectors = {}
    for entry in pictures.detectors:
        detector = build_detector(entry, sweep.device)
        categories = pictures.map_categories(entry, detector.classes)
        detectors[entry["name"]] = detector, categories
    rows: list[dict] = []
    detections: dict[str, dict[str, list]] = {name: {} for name in detectors}
    seconds: dict[str, list[float]] = {"encode": [], "decode": []}
    for number, path in pictures.pictures:
        try:
            x = read_picture(path)
            data, views = _code(sweep, point, coder, path, x, seconds)
            row = {
                "id": number,
                "name": path.name,
                "size": list(x.shape[-2:]),
                "bytes": len(data),
                "container_bytes": coder.overhead(data),
            }
            before = None
            for view, picture in views.items():
                if before is None or not torch.equal(picture, before):
                    boxes = pictures.boxes(number)
                    distortion = _measure_distortion(x, picture, boxes, not detectors)
                    results = {
                        name: detector.detect(picture, number, categories)
                        for name, (detector, categories) in detectors.items()
                    }
                before = picture  # without g_t both views are the same picture
                row.update({f"{k}_{view}": v for k, v in distortion.items()})
                for name in detectors:
                    detections[name].setdefault(view, []).extend(results[name])
        except (ValueError, RuntimeError, OSError) as e:
            raise RuntimeError(
                f"{sweep.name(point)} at {point.quality}, {path}: {e}"
            ) from e
        rows.append(row)
        tick(1)
    times = {**seconds, "device": device_name(sweep.device)}
    write_whole(json.dumps(times).encode(), sweep.result_file(point, "times"))
    digest = sweep.digest(point)
    result = {"digest": digest, "pictures": rows, "detections": detections}
    write_whole(json.dumps(result).encode(), sweep.result_file(point))


def _code(
    sweep: Sweep, point: Point, coder: SweepCodec, path: Path, x: Tensor, seconds: dict
) -> tuple[bytes, dict[str, Tensor]]:
    """Returns the picture's file, and its decoded views."""
    if point.codec < 0:
        data = coder.encode(x)
    else:
        stream = sweep.stream_file(point, path)
        if stream.exists():
            data = stream.read_bytes()
            # If the file has been damaged, it is coded again.
            with contextlib.suppress(ValueError, RuntimeError, OSError):
                return data, _decode(sweep, coder, data, x, seconds)
        started = time.perf_counter()
        write_whole(coder.encode(x), stream)
        seconds["encode"].append(time.perf_counter() - started)
        data = stream.read_bytes()
    return data, _decode(sweep, coder, data, x, seconds)


def _decode(
    sweep: Sweep, coder: SweepCodec, data: bytes, x: Tensor, seconds: dict
) -> dict[str, Tensor]:
    started = time.perf_counter()
    views = coder.decode(data, tuple(x.shape[-2:]))
    views = {name: view.to(sweep.device) for name, view in views.items()}
    for view in views.values():
        view[..., 0, 0].tolist()  # waits for the GPU
    seconds["decode"].append(time.perf_counter() - started)
    return views


def _measure_distortion(
    x: Tensor, picture: Tensor, boxes: Tensor | None, with_ms_ssim: bool
) -> dict[str, float | None]:
    """Measures 8-bit pictures, also inside and outside of boxes.

    Returns:
        Values by the names of ``DISTORTIONS``; None if a value is infinite or has no
        pixels.
    """
    x = x.to(picture.device)
    out = {"psnr": _measure_psnr(x, picture)}
    if with_ms_ssim:
        out["ms_ssim"] = ms_ssim(x, picture, peak=255)
    if boxes is not None:
        inside = boxes_to_mask(boxes, tuple(x.shape[-2:])).to(x.device)
        out["object_psnr"] = _measure_psnr(x[..., inside], picture[..., inside])
        out["background_psnr"] = _measure_psnr(x[..., ~inside], picture[..., ~inside])
    return out


def _measure_psnr(x: Tensor, picture: Tensor) -> float | None:
    in_db = psnr(x, picture, peak=255) if x.numel() else math.inf
    return in_db if math.isfinite(in_db) else None


def device_name(device: str) -> str:
    """Returns the name of a ``device``, with the model of a GPU."""
    if torch.device(device).type != "cuda":
        return device
    return f"{device} ({torch.cuda.get_device_name(device)})"
