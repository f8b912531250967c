"""Points that Dask's workers run: what is found, who may die, what is refused."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask
import psutil
import pytest
from compressai.registry import MODELS
from distributed import versions
from PIL import Image
from tqdm import tqdm

from compressai_hm.evaluation.sweep import Sweep, cluster, run

from ..conftest import ROOT, finish, same_files

GATED = """
import os
import time
from pathlib import Path

from compressai.registry import register_model

from compressai_hm.classical import JPEG

HERE = Path(__file__).parent


@register_model("gated")
class Gated(JPEG):
    def encode_rgb(self, picture):
        if self.quality == 99:
            raise ValueError("99 is too much")
        with open(HERE / "log", "a") as log:
            log.write(f"{os.getpid()} {self.quality}\\n")
        while not (HERE / "open").exists():
            time.sleep(0.05)
        return super().encode_rgb(picture)
"""


@pytest.fixture
def people(cfg):
    """Without detectors."""
    cfg.sets, cfg.codecs = cfg.sets[1:], cfg.codecs[:1]
    return cfg


@pytest.fixture
def gated(people, tmp_path, monkeypatch):
    """A sweep whose module only its folder has; it codes once "open" is there."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own/gated_codec.py").write_text(GATED)
    monkeypatch.syspath_prepend(tmp_path / "own")
    people.custom_imports = dict(imports=["gated_codec"])
    people.codecs = [
        dict(name="JPEG", type="jpeg", qualities=[10]),
        dict(name="gated", type="gated", qualities=[20, 40, 60]),
    ]
    yield people
    MODELS.pop("gated", None)
    sys.modules.pop("gated_codec", None)


@pytest.fixture
def dask_of(tmp_path):
    """Starts a scheduler and workers as one does by hand."""
    with contextlib.ExitStack() as stack:

        def start(*args):
            env = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path / 'own'}"}
            log = stack.enter_context(open(tmp_path / f"{args[0]}.log", "a"))
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *args, "--host", "127.0.0.1"]
                + ["--no-dashboard", "--scheduler-file", tmp_path / "scheduler.json"],
                stdout=log, stderr=log, env=env, cwd=tmp_path,
            )  # fmt: skip
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        yield start


def until(found):
    deadline = time.monotonic() + 300
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_of_a_worker_that_is_killed_another_runs_the_point(gated, dask_of, tmp_path):
    log, file = tmp_path / "own/log", tmp_path / "scheduler.json"
    scheduler = dask_of("scheduler", "--port", "0")
    workers = [dask_of("worker", "--nthreads", "1", "--no-nanny") for _ in range(2)]

    def begun():
        lines = log.read_text().splitlines() if log.exists() else []
        return [tuple(map(int, line.split())) for line in lines]

    until(lambda: file.exists() and file.read_text())
    with ThreadPoolExecutor(1) as pool:
        sweep = Sweep(gated, tmp_path / "cluster")
        running = pool.submit(run, sweep, scheduler=str(file))
        until(lambda: running.done() or len(begun()) == 2)  # each in the middle of one
        pids = [worker.pid for worker in workers]
        assert {pid for pid, _ in begun()} == set(pids), running
        workers[0].send_signal(signal.SIGKILL)
        (tmp_path / "own/open").touch()
        running.result()
    (lost,) = [quality for pid, quality in begun() if pid == pids[0]]
    pictures = len(sweep.sets[0].pictures)
    run_by_the_other = [quality for pid, quality in begun() if pid == pids[1]]
    assert sorted(run_by_the_other) == sorted([20, 40, 60] * pictures)
    assert lost in (20, 40, 60)
    finish(gated, tmp_path / "cluster")
    finish(gated, tmp_path / "alone")
    same_files(tmp_path / "alone", tmp_path / "cluster")

    # The worker that is left tells of a picture that fails, and of its scheduler.
    gated.codecs[1].qualities = [20, 99]
    with pytest.raises(RuntimeError, match=r"gated at 99, .*odd\.png: 99 is too much"):
        run(Sweep(gated, tmp_path / "cluster"), scheduler=str(file))
    gated.codecs[1].qualities = [30]
    (tmp_path / "own/open").unlink()
    gated.dump(tmp_path / "sweep.py")
    with subprocess.Popen(
        [sys.executable, ROOT / "tools/rate_accuracy.py", tmp_path / "sweep.py"]
        + ["--work-dir", tmp_path / "cluster", "--scheduler", file],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path / 'own'}"},
    ) as running:  # fmt: skip
        until(lambda: running.poll() is not None or begun()[-1] == (pids[1], 30))
        scheduler.kill()
        _, told = running.communicate()
    *_, last = told.splitlines()
    assert running.returncode == 2 and last.startswith("error: Dask's scheduler went")
    assert "Traceback" not in told and "distributed" not in told


def test_workers_of_this_machine_find_the_same(gated, tmp_path, monkeypatch):
    (tmp_path / "own/open").touch()
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{tmp_path / 'own'}")
    finish(gated, tmp_path / "two", jobs=2)
    log = (tmp_path / "own/log").read_text().splitlines()
    # Both, or the first that was ready.
    assert log and str(os.getpid()) not in {line.split()[0] for line in log}
    finish(gated, tmp_path / "one")
    same_files(tmp_path / "one", tmp_path / "two")


def test_a_cluster_of_this_machine_is_its_own(monkeypatch):
    """Reached from nowhere else, with no dashboard; and other versions are told."""
    with cluster.connect(1, None) as client:
        me = psutil.Process()
        listening = [
            found.laddr.ip
            for process in (me, *me.children(recursive=True))
            for found in process.net_connections("tcp")
            if found.status == psutil.CONN_LISTEN
        ]
        assert len(listening) >= 3 and set(listening) == {"127.0.0.1"}
        assert "distributed.dashboard.scheduler" not in sys.modules
        known = set()
        cluster._check_workers(client, client.nthreads(), known)
        assert known == set(client.nthreads())
        of_here = versions._version_cached
        monkeypatch.setattr(
            versions, "_version_cached", lambda p: "0" if p == "torch" else of_here(p)
        )
        told = r"worker tcp://127.0.0.1:\d+ has torch \d.* \(0 here\): "
        with pytest.raises(RuntimeError, match=told):
            cluster._check_workers(client, client.nthreads(), set())
    with pytest.raises(RuntimeError, match="tcp://x:1 runs 4 points at a time"):
        cluster._check_workers(client, {"tcp://x:1": 4}, set())


def test_a_point_that_kills_its_workers_is_named(people, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster._Call, "__reduce__", lambda call: (os._exit, (1,)))
    people.codecs[0].qualities = [30]
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        cluster.connect(1, None) as client,
        pytest.raises(RuntimeError, match="JPEG at 30 on people: 2 workers died"),
    ):
        sweep = Sweep(people, tmp_path)
        cluster.run_points(client, sweep, sweep.points(), "cpu", tqdm(disable=True))


def test_where_no_scheduler_is_one_sentence_says_so(people, tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{other.getsockname()[1]}"
        told = f"no Dask scheduler answers at {address} "
        with pytest.raises(RuntimeError, match=told + ".*refused"):
            run(Sweep(people, tmp_path), scheduler=address)
        other.listen()
        with pytest.raises(RuntimeError, match=told + ".*timed out"):
            run(Sweep(people, tmp_path), scheduler=address)
    with pytest.raises(RuntimeError, match="answers at no.json .*missing port"):
        run(Sweep(people, tmp_path), scheduler="no.json")


def test_a_worker_runs_what_is_meant_and_only_once(people, tmp_path, monkeypatch):
    class Here:
        address, events = "tcp://x:1", []

        def log_event(self, topic, event):
            self.events.append((topic, event))

    monkeypatch.setattr(cluster, "get_worker", Here)
    monkeypatch.chdir(tmp_path)
    people.codecs[0].qualities = [30]
    sweep = Sweep(people, tmp_path / "w")
    (point,) = sweep.points()

    def work(run, device="cpu"):
        order = cluster._make_order(run, sweep, device)
        cluster._work(order, 7, point, sweep.digest(point))
        return sweep.result_file(point).stat().st_mtime_ns

    first = work("a")
    assert Here.events == [("a", [7, 1]), ("a", [7, 2])]
    assert work("b") == first and len(Here.events) == 2
    with pytest.raises(RuntimeError, match="worker tcp://x:1: device 'cuda:99' cannot"):
        work("c", "cuda:99")
    picture = Path(people.sets[0].pictures) / "odd.png"
    Image.open(picture).rotate(180).save(picture)
    with pytest.raises(RuntimeError, match="tcp://x:1 finds other pictures, .*JPEG at"):
        work("d")


def test_a_worker_that_is_being_started_does_not_hide_the_error(monkeypatch):
    def close(*_):
        raise AssertionError("can only join a started process")

    monkeypatch.setattr(cluster.LocalCluster, "close", close)
    monkeypatch.setattr(cluster.LocalCluster, "__init__", lambda *_, **__: None)
    monkeypatch.setattr(cluster, "Client", lambda *_, **__: contextlib.nullcontext())
    with pytest.raises(ValueError, match="why"), cluster.connect(1, None):
        raise ValueError("why")
