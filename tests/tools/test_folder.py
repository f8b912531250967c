"""Folders in tools/codec.py: several files at a time, told of as one by one."""

import os
import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from _folder import InOrder
from PIL import Image

from compressai_hm import HM_MODELS, decode, encode, make_checkpoint
from compressai_hm.entropy import threads as threads_of
from compressai_hm.io.files import write_png
from compressai_hm.io.pictures import PictureWarning, count_pixels, read_picture
from tests.families import portable

from .test_codec import DEMO, ROOT, TOOL, tool  # noqa: F401


@pytest.fixture
def four():
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(1)


@pytest.fixture
def alone(monkeypatch):
    """Makes the tool work on one file after the other."""

    def set_(one: bool):
        monkeypatch.setattr("_folder._MAX_WORKERS", 1 if one else 4)

    return set_


@pytest.fixture
def mixed(tmp_path):
    """Pictures of several sizes, some broken, some with more than is read."""
    folder, rng = tmp_path / "in", np.random.default_rng(0)
    folder.mkdir()
    for i in range(12):
        size = int(rng.integers(20, 300)), int(rng.integers(20, 300))
        smooth = Image.fromarray(rng.integers(0, 255, (5, 5, 3), dtype=np.uint8))
        picture = smooth.resize(size, Image.BICUBIC)
        if i % 4 == 1:
            (folder / f"{i:02}.png").write_bytes(b"\x89PNG\r\n rubbish")
        elif i % 4 == 2:
            more = [picture.rotate(90)]
            picture.save(folder / f"{i:02}.gif", save_all=True, append_images=more)
        else:
            picture.save(folder / f"{i:02}.png")
    return folder


def content(folder):
    return {p.name: p.read_bytes() for p in folder.rglob("*.*")}


@pytest.mark.parametrize("options", [(), ("--bytes", 1500), ("--roi", "2,2,15,18")])
def test_all_is_as_one_by_one(tool, mixed, tmp_path, four, alone, options):  # noqa: F811
    """Lines, warnings and errors in order, exit status, and bytes."""
    told, out = {}, tmp_path / "out"
    for one in (True, False):
        alone(one)
        own = tool("encode", mixed, "--checkpoint", DEMO, "--out", out, *options)
        streams = content(out)
        back = tool("decode", out, "--checkpoint", DEMO, "--out", out)
        errors = [line for line in own[2].splitlines() if "%|" not in line]
        told[one] = (own[:2], errors, streams, back[:2], content(out))
        for path in out.iterdir():
            path.unlink()
    assert told[True] == told[False]
    (code, lines), errors, streams, *_ = told[False]
    assert code == 1 and len(streams) == 9
    named = [re.search(r"(\d\d)\.hmc", line) for line in lines.splitlines()]
    assert [m[1] for m in named if m] == sorted(p[:2] for p in streams)
    named = [re.search(r"(\d\d)\.(gif|png): ", line) for line in errors]
    warned = ["02", "06", "10", "01", "05", "09"]
    assert [m[1] for m in named if m] == warned and errors[-1] == "3 of 12 failed"


def test_what_is_there_is_kept(tool, mixed, tmp_path, four):  # noqa: F811
    out = tmp_path / "out"
    out.mkdir()
    (out / "03.hmc").write_bytes(b"mine")
    code, _, err = tool("encode", mixed, "--checkpoint", DEMO, "--out", out)
    assert code == 1 and "03.hmc exists: --overwrite" in err
    assert (out / "03.hmc").read_bytes() == b"mine" and len(content(out)) == 9


def test_one_set_of_weights_is_made(tool, mixed, tmp_path, four, monkeypatch):  # noqa: F811
    asked = []

    def load_model(*args, **kwargs):
        asked.append(args)
        time.sleep(0.2)
        torch.manual_seed(0)
        return HM_MODELS["hm-mbt2018-mean"](8, 12)

    monkeypatch.setattr("compressai_hm.zoo.load_model", load_model)
    entry = "--model", "hm-mbt2018-mean", "--quality", 4
    tool("encode", mixed, *entry, "--out", tmp_path / "out")
    asked.clear()
    assert tool("decode", tmp_path / "out")[0] == 0  # files say which
    assert asked == [("hm-mbt2018-mean", 4, "mse")]


@pytest.mark.parametrize("name", ["hm-mbt2018-mean", "hm-mbt2018", "hm-elic2022"])
def test_threads_code_as_one_does(name, four):
    net = portable(name)
    torch.manual_seed(0)
    sizes = [(64, 64), (40, 200), (130, 70), (9, 300)]
    pictures = [torch.rand(1, 3, *sizes[i % 4]) for i in range(12)]

    def code(x):
        data = encode(net, x)
        return data, decode(net, data)["x_bar"]

    expected = [code(x) for x in pictures]
    with InOrder(code, pictures, 4) as results:
        for (data, view), (_, awaited) in zip(expected, results, strict=True):
            found = awaited()
            assert found[0] == data and torch.equal(found[1], view)


def test_floating_point_keeps_the_callers_threads(four):
    """Torch convolves otherwise where it has one thread; integers may have it."""

    @threads_of.in_own_threads
    def narrow():
        time.sleep(0.1)
        return torch.get_num_threads()

    def look(job):
        time.sleep(0.02 * job)  # the later ones begin while the first is narrow
        return torch.get_num_threads(), narrow(), torch.get_num_threads()

    with InOrder(look, list(range(8)), 4) as results:
        assert [awaited() for _, awaited in results] == [(4, 1, 4)] * 8
    assert torch.get_num_threads() == narrow() == 4


@pytest.mark.parametrize("workers", [1, 4])
def test_a_few_are_begun_ahead(workers):
    begun, together, most = [], 0, 0
    lock = threading.Lock()

    def run(size):
        nonlocal together, most
        with lock:
            begun.append(size)
            together += size
            most = max(most, together)
        time.sleep(0.01)
        with lock:
            together -= size
        return size

    jobs = [1, 2, 3, 20, 4, 1, 1, 1, 1, 1] * 4
    with InOrder(run, jobs, workers, lambda job: job, 8) as results:
        for i, (job, awaited) in enumerate(results):
            assert awaited() == job == jobs[i]
            assert len(begun) <= i + 1 + 2 * workers
    assert most == 20 and sorted(begun) == sorted(jobs)


def test_a_fault_ends_all(four):
    def run(job):
        return 1 // job

    before = threading.active_count()
    jobs = [1, 0, *[1] * 50]
    with pytest.raises(ZeroDivisionError), InOrder(run, jobs, 4) as results:
        for _, awaited in results:
            awaited()
    assert threading.active_count() == before


def test_size_in_a_header(tmp_path):
    write_png(torch.zeros(1, 3, 5, 7), tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n rubbish")
    assert count_pixels(tmp_path / "a.png") == 35
    assert count_pixels(tmp_path / "b.png") == count_pixels(tmp_path / "none.png") == 0


def test_scripts_hear_warnings_as_before(mixed):
    with pytest.warns(PictureWarning, match="02.gif: holds more than one"):
        read_picture(mixed / "02.gif")


def started(*args):
    return subprocess.Popen(
        [sys.executable, TOOL, *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "4"},
        # A shell may have told background jobs, such as these tests, to ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_ctrl_c_waits_for_nobody(tmp_path):
    """A small picture, and then some whose coding takes many seconds each."""
    folder, out = tmp_path / "in", tmp_path / "out"
    net = HM_MODELS["hm-mbt2018-mean"](96, 128)
    torch.save(make_checkpoint(net), tmp_path / "net.pth")
    write_png(torch.zeros(1, 3, 64, 64), folder / "0.png")
    for i in range(1, 5):
        write_png(torch.zeros(1, 3, 2500, 2500), folder / f"{i}.png")
    own = "encode", folder, "--checkpoint", tmp_path / "net.pth", "--out", out
    with started(*own) as process:
        deadline = time.monotonic() + 120
        while not list(out.glob("*.hmc")) and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.5)
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        printed, err = process.communicate(timeout=60)
        took = time.monotonic() - begun
    assert process.returncode == 1 and not printed and "Traceback" not in err
    assert err.splitlines()[-1] == "stopped; every file written so far is whole"
    assert [p.name for p in out.iterdir()] == ["0.hmc"]
    assert took < 5
