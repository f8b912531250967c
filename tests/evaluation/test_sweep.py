import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

from compressai_hm.codecs.files import read_picture
from compressai_hm.evaluation import results, sweep
from compressai_hm.evaluation.report import write as write_report
from compressai_hm.evaluation.sweep import Point, Sweep

from ..detection.conftest import embedded  # noqa: F401

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "mmdet_configs/rate_accuracy/demo.py"


@pytest.fixture
def cfg(embedded, tmp_path):  # noqa: F811
    """The demo's sweep on four pictures, and two of odd size for people."""
    folder = tmp_path / "people"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("odd.png", (171, 165)), ("small.png", (31, 17))):
        smooth = rng.integers(0, 255, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(smooth).resize(size, Image.BICUBIC).save(folder / name)
    cfg = Config.fromfile(DEMO)
    dataset = cfg.sets[0].dataset
    dataset.update(type="CheckedCocoDataset", data_root=str(embedded))
    cfg.codecs[0].qualities = [10, 30, 60]
    cfg.codecs[1].qualities = [5, 50]
    cfg.codecs[2].checkpoints = [str(ROOT / cfg.codecs[2].checkpoints[0])]
    cfg.sets = [*cfg.sets, dict(name="people", pictures=str(folder))]
    return cfg


def finish(cfg, work_dir, **kwargs):
    one = Sweep(cfg, work_dir)
    one.run(**kwargs)
    curves, reference = results.measure(one, 20)
    rows = results.compare(curves, cfg.anchor)
    results.write(one, curves, rows, reference)
    return one, curves, rows, reference


def test_points_are_measured_from_files(cfg, tmp_path):
    one, curves, rows, reference = finish(cfg, tmp_path / "w")
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
    files = sorted((tmp_path / "w/streams/JPEG/30").glob("people-*/*"))
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

    figures = {(r["set"], r["codec"], r["metric"]): r["bd_rate"] for r in rows}
    assert figures["people", "JPEG", "psnr"].value == pytest.approx(0, abs=1e-9)
    assert figures["people", "JPEG", "psnr"].interval == pytest.approx((0, 0))
    assert figures["people", "demo codec", "psnr"].value is None  # one point only


def test_the_files_are_compressais(cfg, tmp_path):
    from compressai.utils.plot.__main__ import parse_json_file

    finish(cfg, tmp_path / "w")
    path = tmp_path / "w/results/people/JPEG.json"
    read = parse_json_file(str(path), "psnr-rgb")
    assert len(read["xs"]) == len(read["ys"]) == 3
    lines = (tmp_path / "w/results/points.csv").read_text().splitlines()
    assert lines[0] == "set,codec,view,quality,bpp,metric,value"
    assert any(line.startswith("drawn,uncompressed") for line in lines)


def test_a_killed_sweep_goes_on_and_ends_the_same(cfg, tmp_path):
    finish(cfg, tmp_path / "whole")
    cfg.dump(tmp_path / "sweep.py")
    tool = [sys.executable, ROOT / "tools/rate_accuracy.py", tmp_path / "sweep.py"]
    process = subprocess.Popen(
        [*tool, "--work-dir", tmp_path / "killed"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    points = tmp_path / "killed/points"
    deadline = time.monotonic() + 120
    while len(list(points.rglob("*.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    first = {p: p.stat().st_mtime_ns for p in points.rglob("*.json")}
    assert 3 <= len(first) < len(Sweep(cfg, tmp_path / "whole").points())

    finish(cfg, tmp_path / "killed")
    assert all(p.stat().st_mtime_ns == t for p, t in first.items())
    for path in (tmp_path / "whole").rglob("*.json"):
        if "times" not in path.parts:
            name = path.relative_to(tmp_path / "whole")
            assert path.read_bytes() == (tmp_path / "killed" / name).read_bytes()


def test_two_processes_find_the_same(cfg, tmp_path):
    cfg.sets = cfg.sets[1:]
    finish(cfg, tmp_path / "one")
    finish(cfg, tmp_path / "two", jobs=2)
    for path in (tmp_path / "one/points").rglob("*.json"):
        name = path.relative_to(tmp_path / "one")
        assert path.read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize("letterbox", [False, True])
def test_uncompressed_is_exactly_mmdetections_own_map(cfg, tmp_path, letterbox):
    """A lossless codec through the whole chain, against MMDetection's test runner."""
    steps = [dict(type="Resize", scale=(192, 192), keep_ratio=True)]
    if letterbox:
        steps.append(dict(type="Pad", size=(192, 192), pad_val=dict(img=(114,) * 3)))
    detector = cfg.sets[0].detectors[0]
    detector.config.test_pipeline = steps
    cfg.sets, cfg.codecs = cfg.sets[:1], cfg.codecs[:1]
    cfg.codecs[0].qualities = [50]
    *_, reference = finish(cfg, tmp_path / "w")

    dataset = {**cfg.sets[0].dataset, "test_mode": True}
    dataset["pipeline"] = [
        dict(type="LoadImageFromFile"),
        *steps,
        dict(type="LoadAnnotations", with_bbox=True),
        dict(
            type="PackDetInputs",
            meta_keys=("img_id", "ori_shape", "img_shape", "scale_factor"),
        ),
    ]
    loader = dict(
        batch_size=1,
        num_workers=0,
        dataset=dataset,
        sampler=dict(type="DefaultSampler", shuffle=False),
    )
    ann_file = str(Path(dataset["data_root"], dataset["ann_file"]))
    runner = Runner(
        model=detector.config.model,
        work_dir=str(tmp_path / "plain"),
        test_dataloader=loader,
        test_evaluator=dict(type="CocoMetric", ann_file=ann_file, metric="bbox"),
        test_cfg=dict(type="TestLoop"),
        default_scope="mmdet",
        log_level="ERROR",
    )
    from compressai_hm.detection.build import load_detector

    load_detector(runner.model, detector.checkpoint)
    expected = runner.test()["coco/bbox_mAP"]
    assert expected > 0.3
    assert round(reference["drawn"]["mAP Faster R-CNN R18"], 3) == expected


def test_the_report_shows_every_number(cfg, tmp_path):
    cfg.published = dict(drawn="detection")
    page = write_report(*finish(cfg, tmp_path / "w"), command=["tool.py", "a b"])
    text = page.read_text()
    assert "BODY" not in text and "python tool.py &#x27;a b&#x27;" in text
    assert not re.findall(r'(?:src|href)="(?!data:)', text)  # needs nothing else
    assert text.count("data-tip=") > 20 and "method (published)" in text
    plots = {p.name for p in (tmp_path / "w/plots").iterdir()}
    assert {"people_psnr.png", "people_psnr.svg"} <= plots


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs the browser chromium")
def test_the_report_runs_in_a_browser_without_errors(cfg, tmp_path):
    page = write_report(*finish(cfg, tmp_path / "w"), command=["tool.py"])
    options = "--headless --no-sandbox --disable-gpu --enable-logging=stderr --v=0"
    browser = subprocess.run(
        ["chromium", *options.split(), f"--user-data-dir={tmp_path}/profile",
         "--virtual-time-budget=2000", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert '<div id="tip"' in browser.stdout
    assert "CONSOLE" not in browser.stderr


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (dict(anchor="HM"), "anchor 'HM' is none of"),
        (dict(codecs=[dict(name="x", type="gif", qualities=[1])]), "'gif' is unknown"),
        (dict(codecs=[dict(name="x", type="jpeg")]), "'x' names no qualities"),
        (
            dict(codecs=[dict(name="x", checkpoints=["no.pth"])]),
            "no.pth does not exist",
        ),
        (dict(sets=[dict(name="x", pictures="nowhere")]), "nowhere is no folder"),
        (dict(sets=[dict(name="x"), dict(name="x")]), "sets must be a list"),
    ],
)
def test_wrong_configs_are_explained(cfg, tmp_path, change, named):
    cfg.update(change)
    if "codecs" in change:
        cfg.anchor = "x"
    with pytest.raises(ValueError, match=named):
        Sweep(cfg, tmp_path)


def test_other_things_of_the_same_name_are_not_mixed(cfg, tmp_path):
    Sweep(cfg, tmp_path)
    cfg.codecs[0].qualities = [20, 30]  # more of the same is welcome
    Sweep(cfg, tmp_path)
    cfg.codecs[0].type = "webp"
    with pytest.raises(ValueError, match="codec 'JPEG' at 30 is not what was measured"):
        Sweep(cfg, tmp_path)
    cfg.codecs[0].type = "jpeg"
    cfg.sets[1].count = 1
    with pytest.raises(ValueError, match="set 'people' is not what was measured"):
        Sweep(cfg, tmp_path)


def test_a_broken_picture_is_named(tmp_path):
    (tmp_path / "x.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"x\.png is not a readable picture"):
        sweep.read(tmp_path / "x.png")
