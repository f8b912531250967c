"""Runs the points of a sweep.

For a point, every picture of a set is coded into a separate file. That file is decoded,
and the decoded picture is measured and passed to every detector. The results are
written to one JSON file, so an interrupted sweep continues where it stopped. Points of
other settings are measured again. Sets that share pictures share the coded files.
"""

import contextlib
import fcntl
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tqdm import tqdm

from . import cluster
from .point import run_point
from .sweep import Sweep


def run(
    sweep: Sweep, jobs: int = 1, scheduler: str | None = None, device: str | None = None
) -> None:
    """Runs the points that are not finished.

    Args:
        sweep: The sweep.
        jobs: Number of processes with one thread each. Defaults to 1, this process;
            several are Dask's workers on this machine.
        scheduler: Address or file of a Dask scheduler. If given, its workers run the
            points.
        device: Device of the workers. Defaults to the sweep's.

    Raises:
        RuntimeError: If another sweep runs in the same folder, a picture fails, or
            see :func:`cluster.run_points`.
        ValueError: If jobs is less than 1.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    with _lock(sweep.work_dir):
        done = {point for point, _ in sweep.finished()}
        todo = [p for p in sweep.points() if p not in done]
        stale = sum(sweep.result_file(p).exists() for p in todo)
        if done:
            print(f"{len(done)} of {len(sweep.points())} points are finished")
        if stale:
            print(f"{stale} points of other settings, or damaged, are measured again")
        total = sum(len(sweep.sets[p.set].pictures) for p in todo)
        progress = partial(tqdm, total=total, unit="picture", smoothing=0.05)
        if scheduler is None and jobs == 1:
            with progress() as bar:
                for point in todo:
                    run_point(sweep, point, bar.update)
        elif todo:
            connected = cluster.connect(min(jobs, len(todo)), scheduler)
            with connected as client, progress() as bar:
                cluster.run_points(client, sweep, todo, device or sweep.device, bar)


@contextlib.contextmanager
def _lock(work_dir: Path) -> Iterator[None]:
    """Excludes other sweeps, which would replace points if their settings differ."""
    work_dir.mkdir(parents=True, exist_ok=True)
    with open(work_dir / ".lock", "wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(f"another sweep is running in {work_dir}") from None
        except OSError:  # a file system without locks
            pass
        yield
