import importlib
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
from compressai.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

from compressai_hm.codecs import checkpoint_of
from compressai_hm.codecs.pictures import read_picture
from compressai_hm.detection import synthetic
from compressai_hm.evaluation import parts, results
from compressai_hm.evaluation.report import write as write_report
from compressai_hm.evaluation.sweep import Point, Sweep
from compressai_hm.zoo import load_checkpoint

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
    classes = tuple(synthetic.CATEGORIES.values())
    dataset.update(
        type="CheckedCocoDataset",
        data_root=str(embedded),
        metainfo=dict(classes=classes),
    )
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


def test_differences_are_of_means_over_points(cfg, tmp_path):
    (weights,) = cfg.codecs[2].checkpoints
    state = torch.load(weights, weights_only=True)
    state = {k: v for k, v in state["state_dict"].items() if "g_t." not in k}
    torch.save(state, tmp_path / "plain.pth")
    net = load_checkpoint(weights)
    list(net.g_t.parameters())[-1].data += 0.1  # the last bias
    torch.save(net.state_dict(), tmp_path / "other.pth")
    cfg.codecs = [
        cfg.codecs[0],
        dict(name="g_t", checkpoints=[weights, str(tmp_path / "other.pth")]),
        dict(name="plain", checkpoints=[str(tmp_path / "plain.pth")]),
    ]
    cfg.differences = [dict(of="g_t", against="plain")]
    _, curves, *_ = finish(cfg, tmp_path / "w")
    rows = results.differences(curves, cfg.differences)
    found = {(r["set"], r["metric"]): r for r in rows}
    assert found["people", "bpp"]["value"] == 0  # g_t changes no byte
    psnr = {c.codec: c.metrics["psnr"] for c in curves if c.view == "x_bar"}
    expected = np.mean(psnr["g_t"]) - np.mean(psnr["plain"])
    low, high = found["people", "psnr"]["interval"]
    assert low <= expected <= high < 0
    assert found["people", "psnr"]["value"] == pytest.approx(expected)
    assert ("drawn", "mAP Faster R-CNN R18") in found
    cfg.differences = [dict(of="g_t", against="JPEG")]
    with pytest.raises(ValueError, match="'JPEG', which is no HM codec"):
        Sweep(cfg, tmp_path / "w")


def test_table_1_has_the_papers_layout(cfg, tmp_path):
    cfg.table1 = dict(
        anchor="JPEG",
        columns=[("people", "psnr"), ("drawn", "mAP Faster R-CNN R18")],
    )
    _, curves, rows, _ = finish(cfg, tmp_path / "w")
    text = (tmp_path / "w/results/table1.md").read_text()
    assert text == results.table1(curves, **cfg.table1)
    lines = [line.strip("| ").split(" | ") for line in text.splitlines()]
    assert lines[0][1:] == ["people: psnr", "drawn: mAP Faster R-CNN R18"]
    figures = {
        (r["set"], r["codec"]): r["bd_rate"].value
        for r in rows
        if (r["view"], r["metric"]) == ("x_hat", "psnr")
    }
    (webp,) = (line for line in lines if line[0] == "WebP")
    assert webp[1].startswith(f"{figures['people', 'WebP']:+.1f} %")
    (learned,) = (line for line in lines if line[0] == "demo codec")
    assert learned[1:] == ["–", "–"]  # one point makes no curve


def test_repetitions_are_no_curve(cfg, tmp_path):
    cfg.codecs[1].curve = False
    one, curves, rows, _ = finish(cfg, tmp_path / "w")
    webp = cfg.codecs[1].name
    assert webp not in {row["codec"] for row in rows}
    assert f"{webp}: " not in write_report(
        one, curves, rows, {}, command=["tool.py"]
    ).read_text().replace(cfg.pretty_text, "")
    assert f",{webp}," in (tmp_path / "w/results/points.csv").read_text()


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
    assert lines[0] == "set,codec,view,quality,bpp,container_bytes,metric,value"
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


OWN_CODEC = """
from compressai.models import MeanScaleHyperprior
from compressai.registry import register_model
from compressai_hm.codecs import HumanMachineMixin

@register_model("hm-of-ones-own")
class HMOfOnesOwn(HumanMachineMixin, MeanScaleHyperprior):
    pass
"""


def test_a_registered_codec_of_ones_own_is_measured(cfg, tmp_path, monkeypatch):
    """Also in processes of their own, and by a file that says what it is of."""
    (tmp_path / "codec_of_ones_own.py").write_text(OWN_CODEC)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    cfg.custom_imports = dict(imports=["codec_of_ones_own"])
    own = importlib.import_module("codec_of_ones_own").HMOfOnesOwn
    net = own(8, 12, g_t_width=4)
    torch.save(checkpoint_of(net), tmp_path / "ours.pth")
    torch.save(net.state_dict(), tmp_path / "bare.pth")
    del MODELS["hm-of-ones-own"], sys.modules["codec_of_ones_own"]
    ours, bare = (str(tmp_path / name) for name in ("ours.pth", "bare.pth"))
    cfg.codecs = [
        cfg.codecs[0],
        dict(name="ours", checkpoints=[ours]),
        dict(name="bare", checkpoints=[bare], type="hm-of-ones-own"),
    ]
    cfg.sets = cfg.sets[-1:]
    finish(cfg, tmp_path / "sweep", jobs=2)
    points = [tmp_path / f"sweep/points/{n}/0/people.json" for n in ("ours", "bare")]
    rows = [json.loads(point.read_text())["pictures"] for point in points]
    assert rows[0] == rows[1] and rows[0][0]["bytes"] > 0
    del MODELS["hm-of-ones-own"]
    cfg.codecs[2]["type"] = "jpeg"
    with pytest.raises(ValueError, match="type 'jpeg' is none"):
        Sweep(cfg, tmp_path / "sweep")


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
    cfg.codecs[2].trained_for = "Faster R-CNN R18"
    cfg.ablation, cfg.dial = ["demo codec"], True
    page = write_report(*finish(cfg, tmp_path / "w"), command=["tool.py", "a b"])
    text = page.read_text()
    assert "BODY" not in text and "python tool.py &#x27;a b&#x27;" in text
    assert not re.findall(r'(?:src|href)="(?!data:)', text)  # needs nothing else
    assert text.count("data-tip=") > 20 and "method (published)" in text
    plots = {p.name for p in (tmp_path / "w/plots").iterdir()}
    assert {"people_psnr.png", "people_psnr.svg"} <= plots
    assert "drawn_ablation_mAP_Faster_R-CNN_R18.svg" in plots
    assert "drawn_dial_mAP_Faster_R-CNN_R18.png" in plots
    assert "Trained for, by read by" in text and "-21.50 %" in text


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
        (dict(sets=[dict(name="x", picture="y")]), "has no .'picture'"),
        (dict(sets=[dict(name="../x", pictures="y")]), "'../x' is no name"),
        (dict(codecs=[dict(name="x", type="hevc", qualities=[60])]), "0 to 51; got 60"),
        (
            dict(codecs=[dict(name="x", type="jpeg", qualities=[1], refine=5)]),
            "refine=5, config=None; for an HM codec",
        ),
        (dict(published=dict(nowhere="detection")), "'nowhere', which is none"),
    ],
)
def test_wrong_configs_are_explained(cfg, tmp_path, change, named):
    cfg.update(change)
    if "codecs" in change:
        cfg.anchor = "x"
    with pytest.raises(ValueError, match=named):
        Sweep(cfg, tmp_path)


def test_what_changed_is_measured_again_and_nothing_else(cfg, tmp_path):
    cfg.codecs = cfg.codecs[:1]
    finish(cfg, tmp_path)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "points").rglob("*.json")}
    coded = set((tmp_path / "streams").rglob("*.png-*"))

    cfg.codecs[0].qualities = [10, 20, 30, 60]  # one more
    picture = Path(cfg.sets[1].pictures) / "odd.png"
    Image.open(picture).rotate(180).save(picture)  # another of the same name
    assert len(list(Sweep(cfg, tmp_path).finished())) == 4
    finish(cfg, tmp_path)
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "points").rglob("*.json")}
    kept = {p for p in before if after[p] == before[p]}
    assert {p.stem for p in kept} == {"drawn"} and len(kept) == 4
    # The new picture has files of its own; the other's were used again.
    new = {p.name[:5] for p in set((tmp_path / "streams").rglob("*.png-*")) - coded}
    assert "odd.p" in new

    cfg.codecs[0].type = "webp"
    assert len(list(Sweep(cfg, tmp_path).finished())) == 1  # the uncompressed


def test_a_lossless_codec_is_the_uncompressed_picture(cfg, tmp_path):
    """Through real files; where there is no PSNR, no curve is compared."""
    cfg.codecs = [
        dict(name="JPEG", type="jpeg", qualities=[30, 60]),
        dict(name="JPEG XL", type="jpegxl", qualities=[60, 100]),
    ]
    _, curves, rows, reference = finish(cfg, tmp_path)
    found = {(c.set, c.codec): c for c in curves}
    lossless = found["drawn", "JPEG XL"].metrics["mAP Faster R-CNN R18"][-1]
    assert lossless == reference["drawn"]["mAP Faster R-CNN R18"]
    assert "psnr" not in found["people", "JPEG"].metrics
    assert found["people", "JPEG"].left_out == {"psnr": 2, "ms_ssim": 1}
    stored = json.loads((tmp_path / "results/people/JPEG.json").read_text())
    assert "psnr without 2" in stored["description"]
    assert {r["metric"] for r in rows} == {"mAP Faster R-CNN R18", "ms_ssim"}


def test_the_differentiable_path_is_close_to_testing(cfg, embedded):  # noqa: F811
    """What the loss sees in training, against the detector's own test pipeline."""
    entry = cfg.sets[0]
    own, detector = parts.PictureSet(entry), entry.detectors[0]
    read_by = parts.Reader(detector.config, detector.checkpoint)
    for _, path in own.pictures:
        x = parts.read(path)
        tested = read_by.view.for_testing(x[0] / 255, DetDataSample())["inputs"]
        sample = DetDataSample(metainfo=dict(img_shape=x.shape[-2:]))
        trained, _ = read_by.view.for_training(x[0] / 255, sample)
        assert (trained - tested).abs().mean() < 0.5  # grey levels


def test_a_worker_leaves_with_its_parent(cfg, tmp_path):
    cfg.codecs = [dict(name="VVC", type="vvc", qualities=[20, 25, 30, 35])]
    cfg.anchor = "VVC"
    cfg.dump(tmp_path / "sweep.py")
    tool = [sys.executable, ROOT / "tools/rate_accuracy.py", tmp_path / "sweep.py"]
    process = subprocess.Popen(
        [*tool, "--work-dir", tmp_path / "w", "--jobs", "2"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "w/streams").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    with pytest.raises(RuntimeError, match="another sweep is running"):
        Sweep(cfg, tmp_path / "w").run()
    process.kill()
    process.wait()
    time.sleep(4)
    files = len(list((tmp_path / "w/streams").rglob("*-*")))
    time.sleep(3)
    assert len(list((tmp_path / "w/streams").rglob("*-*"))) == files


def test_labels_are_matched_by_name(cfg, tmp_path):
    own = parts.PictureSet(cfg.sets[0])
    names = {name: number for number, name in synthetic.CATEGORIES.items()}
    detector = {**cfg.sets[0].detectors[0], "classes": ["person", "pizza", "kite"]}
    assert own.category_of(detector) == [None, names["pizza"], names["kite"]]
    del detector["classes"]
    trained_for = ("kite", "person")
    assert own.category_of(detector, trained_for) == [names["kite"], None]
    with pytest.raises(ValueError, match="knows .'person'.*classes="):
        own.category_of(detector, ("person",))
    detector["classes"] = "coco"
    assert len(own.category_of(detector)) == 80
    cfg.sets[0].detectors[0].classes = ["pizza"]
    cfg.codecs = cfg.codecs[:1]
    with pytest.raises(RuntimeError, match="uncompressed at 0, .*say classes="):
        Sweep(cfg, tmp_path).run()


def test_a_broken_picture_is_named(tmp_path):
    (tmp_path / "x.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"x\.png is not a readable picture"):
        parts.read(tmp_path / "x.png")
