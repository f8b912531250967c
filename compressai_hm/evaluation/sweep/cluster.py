"""Hands a sweep's points to Dask's workers, on this machine or on a cluster.

A worker runs one point at a time, in one thread. No more points are handed out than
there are workers, so that of a worker that dies only its own point is suspected.
"""

import contextlib
import itertools
import json
import logging
import os
import pickle
import queue
import socket
import time
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import dask
from distributed import Client, Future, KilledWorker, LocalCluster, get_worker
from distributed.comm import get_address_host_port
from distributed.versions import VersionMismatchWarning
from tqdm import tqdm

from .coders import forget_coders
from .detectors import forget_detectors
from .run import run_point
from .sweep import Point, Sweep

_PACKAGES = (
    "compressai-hm", "compressai", "torch", "torchvision", "numpy", "pillow",
    "opencv-python", "onedl-mmcv", "onedl-mmdetection", "mmcv-lite", "mmdet",
    "imageio-ffmpeg", "pycocotools",
)  # fmt: skip
"""Whose versions must be the same everywhere, as Python's and Dask's."""


_SETTINGS = {
    # Dask's makes the C library return memory that the next layer asks for again.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
    "distributed.worker.profile.enabled": False,
}
"""Of workers of this machine: what costs them time."""

_PRELOAD = """import logging, signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
logging.getLogger("distributed.worker").setLevel(logging.CRITICAL)
"""
"""For workers of this machine: a Ctrl-C is the main process's alone to act on, which
says what fails; at the end workers complain of a scheduler that is gone."""


@contextlib.contextmanager
def connect(workers: int, scheduler: str | None) -> Iterator[Client]:
    """A client of a cluster.

    Args:
        workers: Processes of a cluster of this machine's own, which is started.
        scheduler: Address or file of the scheduler of a running one, to take instead.

    Raises:
        RuntimeError: If no scheduler answers there.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", VersionMismatchWarning)  # see _check_workers
        if scheduler is None:
            stack.enter_context(dask.config.set(_SETTINGS))
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                memory_limit=None,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                scheduler_kwargs={"dashboard": False},
                preload=[_PRELOAD],
            )
            stack.enter_context(cluster)
            # It warns of processes that take seconds to end.
            nanny = logging.getLogger("distributed.nanny")
            stack.callback(nanny.setLevel, logging.ERROR)
            client = Client(cluster, set_as_default=False)
        else:
            # When the scheduler goes away, Dask logs traces; the error says it all.
            for handler in logging.getLogger("distributed").handlers:
                stack.callback(handler.setLevel, handler.level)
                handler.setLevel(logging.CRITICAL)
            try:
                address = _address(scheduler)
                client = Client(address, timeout=5, set_as_default=False)
            except (OSError, ValueError, TypeError, KeyError) as e:
                raise RuntimeError(
                    f"no Dask scheduler answers at {scheduler} ({e}): start one with "
                    "`dask scheduler`, or correct the address"
                ) from e
        yield stack.enter_context(client)


def _address(scheduler: str) -> str:
    """Of a scheduler, also of one's file; raises OSError if there is none."""
    if Path(scheduler).is_file():
        scheduler = json.loads(Path(scheduler).read_text(encoding="utf-8"))["address"]
    with socket.create_connection(get_address_host_port(scheduler), 5) as found:
        if "://" not in scheduler or scheduler.startswith("tcp://"):
            found.recv(1)  # it speaks first; Dask would wait for others for ever
    return scheduler


def run_points(
    client: Client, sweep: Sweep, todo: list[Point], device: str, bar: tqdm
) -> None:
    """Runs points on a cluster, which may gain and lose workers meanwhile.

    Args:
        client: Of the cluster.
        sweep: The sweep.
        todo: The points.
        device: Where workers compute.
        bar: Counts pictures; of a point that is run again it counts anew.

    Raises:
        RuntimeError: If a picture fails, a point kills its workers, a worker has other
            versions or data than this process, or the scheduler goes away.
    """
    run = f"sweep-{uuid.uuid4().hex[:8]}"
    order = _order(run, sweep, device)
    finished: queue.SimpleQueue[Future] = queue.SimpleQueue()
    waiting, running = list(reversed(range(len(todo)))), {}
    pictures = dict.fromkeys(waiting, 0)
    known: set[str] = set()
    alone = False
    try:
        client.subscribe_topic(run, lambda event: pictures.update([event[1]]))
        while waiting or running:
            workers = client.nthreads()
            _check_workers(client, workers, known)
            while waiting and len(running) < len(workers):
                i = waiting.pop()
                args = order, i, todo[i], sweep.digest(todo[i])
                key = f"{_name(sweep, todo[i])}, {run}"
                call = pickle.dumps(_Call(args))
                task = client.submit(pickle.loads, call, key=key, pure=False)
                running[task] = i
                task.add_done_callback(finished.put)
            with contextlib.suppress(queue.Empty):
                task = finished.get(timeout=0.5)
                i = running.pop(task)
                _check_done(sweep, todo[i], task)
                pictures[i] = len(sweep.sets[todo[i].set].pictures)
            if alone != (not workers):
                alone = not workers
                bar.set_postfix_str("waiting for workers" if alone else "")
            if more := sum(pictures.values()) - bar.n:
                bar.update(more)
    except OSError as e:
        raise RuntimeError(f"Dask's scheduler went away: {e}") from e


def _check_workers(client: Client, workers: dict[str, int], known: set[str]) -> None:
    """Refuses unfit workers; looks at those that are not known, and adds them."""
    for address, threads in workers.items():
        if threads != 1:
            raise RuntimeError(
                f"worker {address} runs {threads} points at a time: start it with "
                "--nthreads 1"
            )
    if workers.keys() <= known:
        return
    found = client.get_versions(packages=_PACKAGES)
    ours = found["client"]["packages"]
    others = {f"worker {name}": of for name, of in found["workers"].items()}
    for where, of in {"the scheduler": found["scheduler"], **others}.items():
        theirs, names = of["packages"], list(ours)
        if of is found["scheduler"]:  # computes nothing
            names = ["python", "dask", "distributed"]
        differ = [name for name in names if theirs.get(name) != ours[name]]
        if differ:
            told = ", ".join(f"{n} {theirs.get(n)} ({ours[n]} here)" for n in differ)
            raise RuntimeError(
                f"{where} has {told}: start scheduler and workers from the same "
                "environment as the sweep"
            )
    known.update(workers)


def _check_done(sweep: Sweep, point: Point, task: Future) -> None:
    name = _name(sweep, point)
    if task.cancelled():
        raise RuntimeError("Dask's scheduler went away, or dropped the sweep's points")
    error = task.exception()
    if isinstance(error, KilledWorker):
        raise RuntimeError(
            f"{name}: {error.allowed_failures + 1} workers died while they ran this "
            f"point, the last at {error.last_worker.address}; is there too little "
            "memory?"
        )
    if isinstance(error, RuntimeError):
        raise error
    if error is not None:
        raise RuntimeError(f"{name}: {type(error).__name__}: {error}") from error
    # A network's file system may show another machine's files a minute late.
    for _ in range(90):
        if sweep.result(point) is not None:
            return
        time.sleep(1)
    raise RuntimeError(
        f"{name} is finished, but {sweep.result_file(point)} is not here: workers need "
        "the work folder at the same path"
    )


def _name(sweep: Sweep, point: Point) -> str:
    return f"{sweep.name(point)} at {point.quality} on {sweep.cfg.sets[point.set].name}"


@dataclass(frozen=True)
class _Order:
    """What a worker needs to know of a sweep.

    Args:
        run: Differs between runs, also of the same sweep.
        cfg: The config, pickled.
        work_dir: The sweep's.
        device: Where to compute.
        folder: What the config's paths are relative to.
    """

    run: str
    cfg: bytes
    work_dir: Path
    device: str
    folder: Path


def _order(run: str, sweep: Sweep, device: str) -> _Order:
    work_dir = sweep.work_dir.absolute()
    return _Order(run, pickle.dumps(sweep.cfg), work_dir, device, Path.cwd())


class _Call:
    """Unpickling it calls :func:`_work`.

    The scheduler, which unpickles tasks, sees bytes alone and needs none of torch.

    Args:
        args: The arguments.
    """

    def __init__(self, args: tuple):
        self.args = args

    def __reduce__(self) -> tuple:
        return _work, self.args


def _work(order: _Order, number: int, point: Point, digest: str) -> None:
    """Runs a point in a worker, unless it is finished: it may be asked for twice."""
    worker = get_worker()
    try:
        sweep = _sweep(order)
    except Exception as e:
        raise RuntimeError(f"worker {worker.address}: {e}") from e
    if sweep.digest(point) != digest:
        raise RuntimeError(
            f"worker {worker.address} finds other pictures, objects, weights or "
            f"versions than the sweep's process for {_name(sweep, point)}"
        )
    if sweep.result(point) is None:
        count = itertools.count(1)
        run_point(
            sweep, point, lambda _: worker.log_event(order.run, [number, next(count)])
        )


@lru_cache(maxsize=1)
def _sweep(order: _Order) -> Sweep:
    # A worker may outlive files that it has read for another run.
    forget_coders()
    forget_detectors()
    os.chdir(order.folder)
    return Sweep(pickle.loads(order.cfg), order.work_dir, order.device)
