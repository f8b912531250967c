"""Runs a sweep's points on Dask's workers, on this machine or on a cluster.

A worker runs one point at a time, in one thread. No more points are submitted than
there are workers, so that only the running point is suspected if a worker dies.
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

from .detectors import forget_detectors
from .point import run_point
from .sweep import Point, Sweep
from .sweep_codec import forget_coders

_PACKAGES = (
    "compressai-hm", "compressai", "torch", "torchvision", "numpy", "pillow",
    "opencv-python", "onedl-mmcv", "onedl-mmdetection", "mmcv-lite", "mmdet",
    "imageio-ffmpeg", "pycocotools",
)  # fmt: skip
"""Packages whose versions must be equal everywhere, like Python's and Dask's."""


_SETTINGS = {
    # Dask's threshold makes the C library return memory that the next layer needs.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
    "distributed.worker.profile.enabled": False,
}
"""Settings that save time in workers of this machine."""

_PRELOAD = """import logging, signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
logging.getLogger("distributed.worker").setLevel(logging.CRITICAL)
"""
"""Code for workers of this machine. Only the main process reacts to Ctrl-C and reports
errors; when it ends, workers would log that the scheduler is gone."""


@contextlib.contextmanager
def connect(workers: int, scheduler: str | None) -> Iterator[Client]:
    """Connects to a cluster.

    Args:
        workers: Number of processes of a cluster that is started on this machine.
        scheduler: Address or file of the scheduler of a running cluster. If given, no
            cluster is started.

    Yields:
        A client of the cluster.

    Raises:
        RuntimeError: If no scheduler answers.
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
            stack.callback(_close, cluster)
            # The nanny warns of processes that take seconds to end.
            nanny = logging.getLogger("distributed.nanny")
            stack.callback(nanny.setLevel, logging.ERROR)
            client = Client(cluster, set_as_default=False)
        else:
            # When the scheduler goes away, Dask logs traces beside the error.
            for handler in logging.getLogger("distributed").handlers:
                stack.callback(handler.setLevel, handler.level)
                handler.setLevel(logging.CRITICAL)
            try:
                address = _find_address(scheduler)
                client = Client(address, timeout=5, set_as_default=False)
            except (OSError, ValueError, TypeError, KeyError) as e:
                raise RuntimeError(
                    f"no Dask scheduler answers at {scheduler} ({e}): start one with "
                    "`dask scheduler`, or correct the address"
                ) from e
        yield stack.enter_context(client)


def _close(cluster: LocalCluster) -> None:
    """Closes a cluster, also while one of its workers is being started again.

    Dask cannot join such a process, and its error would hide why the cluster is closed.
    """
    with contextlib.suppress(AssertionError):
        cluster.close()


def _find_address(scheduler: str) -> str:
    """Returns a scheduler's address; raises OSError if no scheduler answers."""
    if Path(scheduler).is_file():
        scheduler = json.loads(Path(scheduler).read_text(encoding="utf-8"))["address"]
    with socket.create_connection(get_address_host_port(scheduler), 5) as connection:
        if "://" not in scheduler or scheduler.startswith("tcp://"):
            # A scheduler sends first. Dask would wait for any other server for ever.
            connection.recv(1)
    return scheduler


def run_points(
    client: Client, sweep: Sweep, todo: list[Point], device: str, bar: tqdm
) -> None:
    """Runs points on a cluster, which may gain and lose workers.

    Args:
        client: Client of the cluster.
        sweep: The sweep.
        todo: The points to run.
        device: Device of the workers.
        bar: Progress bar that counts pictures. The pictures of a point that is run
            again are not counted twice.

    Raises:
        RuntimeError: If a picture fails, a point kills its workers, a worker has other
            versions or data than this process, or the scheduler goes away.
    """
    run = f"sweep-{uuid.uuid4().hex[:8]}"
    order = _make_order(run, sweep, device)
    finished: queue.SimpleQueue[Future] = queue.SimpleQueue()
    waiting, running = list(reversed(range(len(todo)))), {}
    pictures = dict.fromkeys(waiting, 0)
    known: set[str] = set()
    idle = False
    try:
        client.subscribe_topic(run, lambda event: pictures.update([event[1]]))
        while waiting or running:
            workers = client.nthreads()
            _check_workers(client, workers, known)
            while waiting and len(running) < len(workers):
                i = waiting.pop()
                args = order, i, todo[i], sweep.digest(todo[i])
                key = f"{_describe(sweep, todo[i])}, {run}"
                call = pickle.dumps(_Call(args))
                task = client.submit(pickle.loads, call, key=key, pure=False)
                running[task] = i
                task.add_done_callback(finished.put)
            with contextlib.suppress(queue.Empty):
                task = finished.get(timeout=0.5)
                i = running.pop(task)
                _check_done(sweep, todo[i], task)
                pictures[i] = len(sweep.sets[todo[i].set].pictures)
            if idle != (not workers):
                idle = not workers
                bar.set_postfix_str("waiting for workers" if idle else "")
            if more := sum(pictures.values()) - bar.n:
                bar.update(more)
    except OSError as e:
        raise RuntimeError(f"Dask's scheduler went away: {e}") from e


def _check_workers(client: Client, workers: dict[str, int], known: set[str]) -> None:
    """Refuses unfit workers; checks those that are not yet known, and adds them."""
    for address, threads in workers.items():
        if threads != 1:
            raise RuntimeError(
                f"worker {address} runs {threads} points at a time: start it with "
                "--nthreads 1"
            )
    if workers.keys() <= known:
        return
    versions = client.get_versions(packages=_PACKAGES)
    ours = versions["client"]["packages"]
    hosts = {f"worker {name}": host for name, host in versions["workers"].items()}
    for where, host in {"the scheduler": versions["scheduler"], **hosts}.items():
        theirs, names = host["packages"], list(ours)
        if host is versions["scheduler"]:  # it computes nothing
            names = ["python", "dask", "distributed"]
        differ = [name for name in names if theirs.get(name) != ours[name]]
        if differ:
            text = ", ".join(f"{n} {theirs.get(n)} ({ours[n]} here)" for n in differ)
            raise RuntimeError(
                f"{where} has {text}: start scheduler and workers from the same "
                "environment as the sweep"
            )
    known.update(workers)


def _check_done(sweep: Sweep, point: Point, task: Future) -> None:
    name = _describe(sweep, point)
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
    # A network file system may show another machine's files a minute late.
    for _ in range(90):
        if sweep.result(point) is not None:
            return
        time.sleep(1)
    raise RuntimeError(
        f"{name} is finished, but {sweep.result_file(point)} is not here: workers need "
        "the work folder at the same path"
    )


def _describe(sweep: Sweep, point: Point) -> str:
    return f"{sweep.name(point)} at {point.quality} on {sweep.cfg.sets[point.set].name}"


@dataclass(frozen=True)
class _Order:
    """The information about a sweep that a worker needs.

    Args:
        run: Name of the run, which differs between runs of the same sweep.
        cfg: The config, pickled.
        work_dir: The sweep's work folder.
        device: Device of the worker.
        folder: Folder that the config's paths are relative to.
    """

    run: str
    cfg: bytes
    work_dir: Path
    device: str
    folder: Path


def _make_order(run: str, sweep: Sweep, device: str) -> _Order:
    work_dir = sweep.work_dir.absolute()
    return _Order(run, pickle.dumps(sweep.cfg), work_dir, device, Path.cwd())


class _Call:
    """A call of :func:`_work`, which unpickling carries out.

    The scheduler unpickles tasks; it finds only bytes in them, and needs no torch.

    Args:
        args: The arguments.
    """

    def __init__(self, args: tuple):
        self.args = args

    def __reduce__(self) -> tuple:
        return _work, self.args


def _work(order: _Order, number: int, point: Point, digest: str) -> None:
    """Runs a point in a worker, unless an earlier call has finished it."""
    worker = get_worker()
    try:
        sweep = _load_sweep(order)
    except Exception as e:
        raise RuntimeError(f"worker {worker.address}: {e}") from e
    if sweep.digest(point) != digest:
        raise RuntimeError(
            f"worker {worker.address} finds other pictures, objects, weights or "
            f"versions than the sweep's process for {_describe(sweep, point)}"
        )
    if sweep.result(point) is None:
        count = itertools.count(1)
        run_point(
            sweep, point, lambda _: worker.log_event(order.run, [number, next(count)])
        )


@lru_cache(maxsize=1)
def _load_sweep(order: _Order) -> Sweep:
    # The files that the worker has read for another run may have changed.
    forget_coders()
    forget_detectors()
    os.chdir(order.folder)
    return Sweep(pickle.loads(order.cfg), order.work_dir, order.device)
