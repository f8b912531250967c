"""Runs the points of a sweep.

A point codes every picture of a set into a file of its own, decodes that file, measures
the decoded picture, and gives it to every detector. It is kept as one JSON file, so an
interrupted sweep goes on where it stopped; what was measured under other settings is
measured again. Sets that share pictures share the coded files.
"""

import contextlib
import fcntl
import json
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ...codecs.distortion import ms_ssim, psnr
from ...codecs.files import write_whole
from ...codecs.regions import mask_of_boxes
from .coders import Coder
from .detectors import build_detector
from .picture_set import read_picture
from .sweep import Point, Sweep


def run(
    sweep: Sweep, jobs: int = 1, scheduler: str | None = None, device: str | None = None
) -> None:
    """Runs the points that are not finished.

    Args:
        sweep: The sweep.
        jobs: Processes, a thread each. One is this; several are workers of Dask.
        scheduler: Address or file of a Dask scheduler, whose workers run the points
            instead.
        device: Where workers compute. Defaults to the sweep's.

    Raises:
        RuntimeError: If another sweep runs in the same folder, a picture fails, or
            see :func:`cluster.run_points`.
        ValueError: If jobs is less than 1.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    with _alone(sweep.work_dir):
        done = {point for point, _ in sweep.finished()}
        todo = [p for p in sweep.points() if p not in done]
        stale = sum(sweep.result_file(p).exists() for p in todo)
        if done:
            print(f"{len(done)} of {len(sweep.points())} points are finished")
        if stale:
            print(f"{stale} of other settings, or damaged, are measured again")
        total = sum(len(sweep.sets[p.set].pictures) for p in todo)
        progress = partial(tqdm, total=total, unit="picture", smoothing=0.05)
        if scheduler is None and jobs == 1:
            with progress() as bar:
                for point in todo:
                    run_point(sweep, point, bar.update)
        elif todo:
            from . import cluster  # a second to import

            connected = cluster.connect(min(jobs, len(todo)), scheduler)
            with connected as client, progress() as bar:
                cluster.run_points(client, sweep, todo, device or sweep.device, bar)


@contextlib.contextmanager
def _alone(work_dir: Path) -> Iterator[None]:
    """Keeps other sweeps out: of other settings, they would replace points."""
    work_dir.mkdir(parents=True, exist_ok=True)
    with open(work_dir / ".lock", "wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(f"another sweep is running in {work_dir}") from None
        except OSError:  # a file system without locks
            pass
        yield


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Else floating point differs by the number of threads, in the last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@_one_thread()
@torch.no_grad()
def run_point(sweep: Sweep, point: Point, tick: Callable[[int], Any]) -> None:
    """Codes, decodes, measures and detects; then writes the point's file.

    Args:
        sweep: The sweep.
        point: One of its points.
        tick: Called with 1 after each picture.

    Raises:
        RuntimeError: If a picture fails; it is named.
    """
    own, coder = sweep.sets[point.set], sweep.coder(point)
    detectors = {}
    for entry in own.detectors:
        detector = build_detector(entry, sweep.device)
        categories = own.category_of(entry, detector.classes)
        detectors[entry["name"]] = detector, categories
    rows: list[dict] = []
    detections: dict[str, dict[str, list]] = {name: {} for name in detectors}
    seconds: dict[str, list[float]] = {"encode": [], "decode": []}
    for number, path in own.pictures:
        try:
            x = read_picture(path)
            row, views = _code(sweep, point, coder, path, x, seconds)
            before = None
            for view, picture in views.items():
                if before is None or not torch.equal(picture, before):
                    measured = _distortion(
                        x, picture, own.boxes(number), with_ms_ssim=not detectors
                    )
                    found = {
                        name: detector.detect(picture, number, categories)
                        for name, (detector, categories) in detectors.items()
                    }
                before = picture  # without g_t the views are one
                row.update({f"{k}_{view}": v for k, v in measured.items()})
                for name in detectors:
                    detections[name].setdefault(view, []).extend(found[name])
        except (ValueError, RuntimeError, OSError) as e:
            raise RuntimeError(
                f"{sweep.name(point)} at {point.quality}, {path}: {e}"
            ) from e
        rows.append({"id": number, **row})
        tick(1)
    # "identity": the digest's name in the files of before.
    result = {"identity": sweep.digest(point), "pictures": rows}
    times = {**seconds, "device": device_name(sweep.device)}
    write_whole(_json(times), sweep.result_file(point, "times"))
    write_whole(_json({**result, "detections": detections}), sweep.result_file(point))


def _code(
    sweep: Sweep, point: Point, coder: Coder, path: Path, x: Tensor, seconds: dict
) -> tuple[dict, dict[str, Tensor]]:
    """What the picture's file says of itself, and its decoded views."""
    if point.codec < 0:
        data = coder.encode(x)
    else:
        stream = sweep.stream_file(point, path)
        if stream.exists():
            data = stream.read_bytes()
            # The file may have been damaged since; then it is made again.
            with contextlib.suppress(ValueError, RuntimeError, OSError):
                views = _decode(sweep, coder, data, x, seconds)
                return _row(path, x, data, coder), views
        started = time.perf_counter()
        write_whole(coder.encode(x), stream)
        seconds["encode"].append(time.perf_counter() - started)
        data = stream.read_bytes()
    views = _decode(sweep, coder, data, x, seconds)
    return _row(path, x, data, coder), views


def _decode(
    sweep: Sweep, coder: Coder, data: bytes, x: Tensor, seconds: dict
) -> dict[str, Tensor]:
    started = time.perf_counter()
    views = coder.decode(data, tuple(x.shape[-2:]))
    views = {name: view.to(sweep.device) for name, view in views.items()}
    for view in views.values():
        view[..., 0, 0].tolist()  # waits for a GPU
    seconds["decode"].append(time.perf_counter() - started)
    return views


def _row(path: Path, x: Tensor, data: bytes, coder: Coder) -> dict[str, Any]:
    return {
        "name": path.name,
        "size": list(x.shape[-2:]),
        "bytes": len(data),
        "container_bytes": coder.overhead(data),
    }


def _distortion(
    x: Tensor, picture: Tensor, boxes: Tensor | None, with_ms_ssim: bool
) -> dict[str, float | None]:
    """Of 8-bit pictures, and inside and outside of boxes; None where there is none."""
    x = x.to(picture.device)
    out = {"psnr": _psnr(x, picture)}
    if with_ms_ssim:
        out["ms_ssim"] = ms_ssim(x, picture, peak=255)
    if boxes is not None:
        inside = mask_of_boxes(boxes, tuple(x.shape[-2:])).to(x.device)
        out["object_psnr"] = _psnr(x[..., inside], picture[..., inside])
        out["background_psnr"] = _psnr(x[..., ~inside], picture[..., ~inside])
    return out


def _psnr(x: Tensor, picture: Tensor) -> float | None:
    in_db = psnr(x, picture, peak=255) if x.numel() else math.inf
    return in_db if math.isfinite(in_db) else None


def device_name(device: str) -> str:
    """For people: with what a GPU is."""
    if torch.device(device).type != "cuda":
        return device
    return f"{device} ({torch.cuda.get_device_name(device)})"


def _json(value: dict) -> bytes:
    return json.dumps(value).encode()
