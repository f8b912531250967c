import contextlib
import functools
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from compressai.registry import MODELS
from PIL import Image

import compressai_hm.zoo
from compressai_hm import Bitstream, make_checkpoint
from compressai_hm.evaluation.report.environment import environment
from compressai_hm.evaluation.sweep import Point, Sweep, run
from compressai_hm.io.pictures import read_picture

from ..conftest import ROOT, finish, same_files


def test_points_are_measured_from_files(cfg, tmp_path):
    one, curves, comparisons, reference = finish(cfg, tmp_path / "w")
    assert 0.3 < reference["drawn"]["mAP Faster R-CNN R18"] <= 1
    found = {(c.set, c.label): c for c in curves}
    assert set(found) == {
        (name, label)
        for name in ("drawn", "people")
        for label in ("JPEG", "WebP", "demo codec", "demo codec x_bar")
    }
    jpeg = found["people", "JPEG"]
    assert jpeg.qualities == [10, 30, 60]
    assert jpeg.bpp == sorted(jpeg.bpp)
    streams = tmp_path / "w/streams/JPEG"
    files = [next(streams.glob(f"30-*/{n}-*")) for n in ("odd.png", "small.png")]
    sizes = [f.stat().st_size for f in files]
    assert jpeg.bpp[1] == np.mean(
        [8 * sizes[0] / (165 * 171), 8 * sizes[1] / (17 * 31)]
    )
    decoded = torch.from_numpy(np.array(Image.open(files[0]))).permute(2, 0, 1) / 255
    x = read_picture(Path(cfg.sets[1].pictures) / "odd.png")[0]
    point = json.loads(one.result_file(Point(0, 30, 1)).read_text())
    mse = (decoded - x).square().mean()
    assert point["pictures"][0]["psnr_x_hat"] == pytest.approx(
        float(-10 * mse.log10()), abs=1e-3
    )
    assert point["pictures"][1]["ms_ssim_x_hat"] is None  # too small for it
    assert point["pictures"][0]["container_bytes"] == 18

    bd = {(c.set, c.codec, c.metric): c.bd_rate for c in comparisons}
    assert bd["people", "JPEG", "psnr"].value == pytest.approx(0, abs=1e-9)
    assert bd["people", "JPEG", "psnr"].interval == pytest.approx((0, 0))
    assert bd["people", "demo codec", "psnr"].value is None  # one point only


def test_a_killed_sweep_goes_on_and_ends_the_same(cfg, tmp_path):
    """Killed with no time to clean up; its workers go with it."""
    finish(cfg, tmp_path / "whole")
    cfg.dump(tmp_path / "sweep.py")
    tool = [sys.executable, ROOT / "tools/rate_accuracy.py", tmp_path / "sweep.py"]
    process = subprocess.Popen(
        [*tool, "--work-dir", tmp_path / "killed", "--jobs", "2"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    points = tmp_path / "killed/points"
    deadline = time.monotonic() + 300
    while len(list(points.rglob("*.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    started = psutil.Process(process.pid).children(recursive=True)
    for each in (psutil.Process(process.pid), *started):
        each.suspend()  # what follows takes longer than the points that are left
    with pytest.raises(RuntimeError, match="another sweep is running"):
        run(Sweep(cfg, tmp_path / "killed"))
    process.send_signal(signal.SIGKILL)
    process.wait()
    for each in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.resume()
    assert len(started) >= 2 and not psutil.wait_procs(started, timeout=60)[1]
    first = {p: p.stat().st_mtime_ns for p in points.rglob("*.json")}
    assert 3 <= len(first) < len(Sweep(cfg, tmp_path / "whole").points())

    finish(cfg, tmp_path / "killed")
    assert all(p.stat().st_mtime_ns == t for p, t in first.items())
    same_files(tmp_path / "whole", tmp_path / "killed")


def test_damaged_files_of_a_work_folder_are_made_again(cfg, tmp_path, capsys):
    cfg.sets = cfg.sets[1:]
    cfg.codecs[0].qualities, cfg.codecs = [30], [cfg.codecs[0], cfg.codecs[2]]
    one, *_ = finish(cfg, tmp_path / "w")
    finish(cfg, tmp_path / "other")
    damaged = [one.result_file(point) for point in one.points()]
    for path in (*damaged, one.result_file(one.points()[0], "times")):
        path.write_bytes(path.read_bytes()[:40])
    for stream in (p for p in (tmp_path / "w/streams").rglob("*") if p.is_file()):
        stream.write_bytes(stream.read_bytes()[:30])
    finish(cfg, tmp_path / "w")
    told = f"{len(damaged)} points of other settings, or damaged, are measured again"
    assert told in capsys.readouterr().out
    same_files(tmp_path / "other", tmp_path / "w")
    assert environment(one, [])


def test_the_number_of_threads_changes_nothing(cfg, tmp_path):
    cfg.sets, cfg.codecs = cfg.sets[:1], cfg.codecs[:1]
    cfg.codecs[0].qualities = [30]
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            run(Sweep(cfg, tmp_path / str(threads)))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(1)
    same_files(tmp_path / "1", tmp_path / "2")


def test_steps_make_a_curve_of_one_checkpoint(cfg, tmp_path):
    steps = [0.5, 1, 2]
    (weights,) = cfg.codecs[2].checkpoints
    cfg.codecs = [
        cfg.codecs[0],
        dict(name="steps", checkpoints=[weights], steps=steps),
        dict(name="zoo", type="hm-compact", qualities=[2], steps=steps),
    ]
    cfg.sets = cfg.sets[-1:]
    finish(cfg, tmp_path)
    for name in ("steps", "zoo"):
        sizes, read = [], set()
        for point in range(3):
            path = tmp_path / f"points/{name}/{point}/people.json"
            rows = json.loads(path.read_text())["pictures"]
            sizes.append(sum(row["bytes"] for row in rows))
            for stream in tmp_path.glob(f"streams/{name}/{point}-*/*"):
                values = Bitstream.read(stream.read_bytes()).steps().values((1, 1))
                read.add((point, round(float(values[0, 0]), 2)))
        assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 3
        assert read == {(0, 0.5), (1, 1.0), (2, 2.0)}


def test_regions_is_part_of_what_a_point_is(cfg, tmp_path):
    weights = tmp_path / "detector.pth"
    released = compressai_hm.zoo.released.WEIGHTS / "demo_detector.pth"
    weights.write_bytes(released.read_bytes())
    config = str(ROOT / "mmdet_configs/demo/detector.py")
    regions = dict(detectors=[dict(config=config, checkpoint=str(weights))])
    plain = dict(name="plain", type="hm-compact", qualities=[1], steps=[2])
    cfg.codecs = [
        cfg.codecs[0],
        plain,
        {**plain, "name": "map", "detector_regions": regions},
        dict(name="HEVC", type="hevc", qualities=[39]),
        dict(name="HEVC map", type="hevc", qualities=[39], detector_regions=regions),
    ]
    cfg.sets = cfg.sets[:1]
    sweep = finish(cfg, tmp_path / "w")[0]
    maps = {
        name: [
            Bitstream.read(path.read_bytes()).steps()
            for path in (tmp_path / f"w/streams/{name}").glob("0-*/*")
        ]
        for name in ("plain", "map")
    }
    assert all(steps.offsets is None for steps in maps["plain"])
    assert sum(steps.offsets is not None for steps in maps["map"]) >= 3
    point = Point(2, 0, 0)
    assert sweep.result(point)
    hevc, mapped = (sweep.result(Point(i, 39, 0))["pictures"] for i in (3, 4))
    assert sum(b["bytes"] > a["bytes"] for a, b in zip(hevc, mapped, strict=True)) >= 3

    for change in ("gain", "weights"):
        if change == "gain":
            cfg.codecs[2].detector_regions.gain = 3.0
        else:
            cfg.codecs[2].detector_regions.pop("gain")
            weights.write_bytes(released.read_bytes() + b" ")
        other = Sweep(cfg, tmp_path / "w")
        assert other.result(point) is None and other.result(Point(1, 0, 0))
        picture = other.sets[0].pictures[0][1]
        assert not other.stream_file(point, picture).exists()


OWN_CODEC = """
from compressai.models import MeanScaleHyperprior
from compressai.registry import register_model
from compressai_hm import HumanMachineMixin

@register_model("hm-of-ones-own")
class HMOfOnesOwn(HumanMachineMixin, MeanScaleHyperprior):
    pass
"""


def test_a_registered_codec_of_ones_own_is_measured(cfg, tmp_path, monkeypatch):
    """Also by a file that says what it is of."""
    (tmp_path / "codec_of_ones_own.py").write_text(OWN_CODEC)
    monkeypatch.syspath_prepend(tmp_path)
    cfg.custom_imports = dict(imports=["codec_of_ones_own"])
    own = importlib.import_module("codec_of_ones_own").HMOfOnesOwn
    net = own(8, 12, g_t_width=4)
    torch.save(make_checkpoint(net), tmp_path / "ours.pth")
    torch.save(net.state_dict(), tmp_path / "bare.pth")
    del MODELS["hm-of-ones-own"], sys.modules["codec_of_ones_own"]
    ours, bare = (str(tmp_path / name) for name in ("ours.pth", "bare.pth"))
    cfg.codecs = [
        cfg.codecs[0],
        dict(name="ours", checkpoints=[ours]),
        dict(name="bare", checkpoints=[bare], type="hm-of-ones-own"),
    ]
    cfg.sets = cfg.sets[-1:]
    finish(cfg, tmp_path / "sweep")
    points = [tmp_path / f"sweep/points/{n}/0/people.json" for n in ("ours", "bare")]
    rows = [json.loads(point.read_text())["pictures"] for point in points]
    assert rows[0] == rows[1] and rows[0][0]["bytes"] > 0
    del MODELS["hm-of-ones-own"]
    cfg.codecs[2]["type"] = "jpeg"
    with pytest.raises(ValueError, match="type 'jpeg' is none"):
        Sweep(cfg, tmp_path / "sweep")


GPU = "cuda:1"


@pytest.fixture
def moved(monkeypatch):
    """What went to a GPU that there is none of: it all stays where it is."""
    found, tensor_to, module_to = [], torch.Tensor.to, torch.nn.Module.to

    def to(self, *args, real=None, **kwargs):
        if args and str(args[0]) == GPU:
            found.append(type(self).__name__)
            return self
        return real(self, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "to", functools.partialmethod(to, real=tensor_to))
    monkeypatch.setattr(
        torch.nn.Module, "to", functools.partialmethod(to, real=module_to)
    )
    monkeypatch.setattr("compressai_hm.evaluation.sweep.sweep.check_device", str)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H200")
    return found


def test_a_device_serves_all_that_computes(cfg, tmp_path, moved):
    config = str(ROOT / "mmdet_configs/hm_faster_rcnn_demo.py")
    codec = "compressai_hm://demo_codec.pth"
    refined = dict(checkpoints=[codec], refine=1, config=config)
    cfg.codecs = [cfg.codecs[0], dict(name="refined", **refined)]
    cfg.codecs[0].qualities = [30]
    cfg.sets = cfg.sets[:1]
    one = Sweep(cfg, tmp_path / "w", GPU)
    run(one)
    models = {"HMMeanScaleHyperprior", "HumanMachineDetector", "FasterRCNN"}
    assert models <= set(moved)
    # The pictures that are coded, and those that are measured: of the codec, of JPEG
    # and uncompressed.
    pictures = len(one.sets[0].pictures)
    assert moved.count("Tensor") >= pictures * (1 + 2 + 1 + 1)
    lines = dict(environment(one, []))
    assert lines["device"] == "cuda:1 (H200)" and "CUDA" not in lines

    # Where it was measured is no part of what was.
    other = Sweep(cfg, tmp_path / "w")
    assert len(list(other.finished())) == 3
    times = other.result_file(Point(0, 30, 0), "times")
    measured = json.loads(times.read_text())
    times.write_text(json.dumps({**measured, "device": "cpu"}))
    found = dict(environment(other, []))["device"]
    assert found == "cuda:1 (H200): 2 points, cpu: 1 points"


@pytest.mark.parametrize("device", ["cuda:99", "nothing", "mps:7"])
def test_a_device_that_is_not_there_is_named(cfg, tmp_path, device):
    with pytest.raises(ValueError, match=f"device '{device}' cannot be used: "):
        Sweep(cfg, tmp_path, device)
