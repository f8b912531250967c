"""tools/detect.py, as it is typed: objects in streams of a tiny detector."""

import json
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

import compressai_hm.zoo
from compressai_hm import (
    HM_MODELS,
    StreamReader,
    decode_to_latent,
    encode,
    load_reader,
    make_checkpoint,
)
from compressai_hm.bitstream.reader import identify_stream
from compressai_hm.detection import DetectorRegions, StreamDetector
from compressai_hm.detection.configs import read_latent
from compressai_hm.zoo import load_checkpoint

from ..detection.test_distilled_detector import nano

ROOT = Path(__file__).parents[2]
DEMO = Path(compressai_hm.zoo.__file__).parent / "weights/demo_codec.pth"


@pytest.fixture
def tool(run_tool):
    return partial(run_tool, "detect")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A codec, its reader, the rest of the detector, and streams of three sizes."""
    folder = tmp_path_factory.mktemp("latent")
    torch.manual_seed(0)
    pipeline = [
        dict(type="LoadImageFromFile"),
        dict(type="Resize", scale=(128, 96), keep_ratio=True),
        dict(type="Pad", size_divisor=32, pad_val=dict(img=(114, 114, 114))),
        dict(type="PackDetInputs"),
    ]
    Config(dict(model=nano(), test_pipeline=pipeline)).dump(folder / "detector.py")
    init_default_scope("mmdet")
    options = dict(widths=[8], depths=[1], scale=[128, 96])
    net = MODELS.build(read_latent(nano(), 64, options))
    for layer in (*net.bbox_head.rtm_cls, *net.bbox_head.rtm_reg):
        torch.nn.init.normal_(layer.weight, std=2.0)
        torch.nn.init.zeros_(layer.bias)
    codec = load_checkpoint(DEMO)
    stream, latent = identify_stream(codec, "y_hat"), net.backbone.latent
    StreamReader("nano", "y_hat", stream, latent).save(folder / "nano.reader")
    weights = {k: v for k, v in net.state_dict().items() if ".latent." not in k}
    meta = dict(dataset_meta=dict(classes=("person",)))
    torch.save(dict(state_dict=weights, meta=meta), folder / "nano.pth")
    (folder / "streams").mkdir()
    for name, size in (("7", (96, 128)), ("b", (33, 17)), ("c", (1, 1))):
        data = encode(codec, torch.rand(1, 3, *size))
        (folder / f"streams/{name}.hmc").write_bytes(data)
    return folder


def options(folder):
    return (
        *("--reader", folder / "nano.reader", "--checkpoint", DEMO),
        *("--detector", f"{folder}/detector.py,{folder}/nano.pth"),
    )


def test_it_prints_what_the_detector_finds_in_the_pictures_pixels(tool, folder):
    path = folder / "streams/7.hmc"
    code, out, _ = tool(path, *options(folder), "--score-thr", 0.5003)
    assert code == 0
    first, *lines = out.splitlines()
    reader = load_reader(folder / "nano.reader")
    found = StreamDetector(
        reader, str(folder / "detector.py"), str(folder / "nano.pth")
    )
    _, y_hat = decode_to_latent(load_checkpoint(DEMO), path.read_bytes())
    objects = found.detect(y_hat, (96, 128))
    objects = objects[objects.scores >= 0.5003]
    assert len(objects) > 3 and first == f"{path}: {len(objects)} objects"
    for line, score, box in zip(lines, objects.scores, objects.bboxes, strict=True):
        name, *numbers = line.split()
        assert name == "person"
        expected = [float(score), *box.tolist()]
        assert [float(n) for n in numbers] == pytest.approx(expected, abs=0.051)
        assert 0 <= box[0] <= box[2] <= 128 and 0 <= box[1] <= box[3] <= 96


def test_folded_batch_norms_find_the_same(folder, tmp_path):
    init_default_scope("mmdet")
    reader = load_reader(folder / "nano.reader")
    channels = reader.net.options["in_channels"]
    options = {key: reader.net.options[key] for key in ("widths", "depths", "scale")}
    net = MODELS.build(read_latent(nano(), channels, options)).eval()
    net.load_state_dict(torch.load(folder / "nano.pth")["state_dict"], strict=False)
    for part in net.modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            for values in (part.weight, part.bias, part.running_mean):
                torch.nn.init.normal_(values)
            torch.nn.init.uniform_(part.running_var, 0.2, 3.0)
    weights = {k: v for k, v in net.state_dict().items() if ".latent." not in k}
    torch.save(dict(state_dict=weights), tmp_path / "nano.pth")
    net.backbone.latent = reader.net
    found = StreamDetector(
        reader, str(folder / "detector.py"), str(tmp_path / "nano.pth")
    )
    x = reader.net.resample(torch.randn(1, 64, 6, 8), (96, 128), (1.0, 1.0), (96, 128))
    with torch.no_grad():
        pairs = list(zip(net(x), found.module(x), strict=True))
    for expected, folded in pairs:
        for a, b in zip(expected, folded, strict=True):
            torch.testing.assert_close(
                b, a, rtol=1e-3, atol=1e-3 * float(a.abs().max())
            )
    parts = (found.module.backbone, found.module.neck)
    kinds = [type(m).__name__ for part in parts for m in part.modules()]
    assert "BatchNorm2d" not in kinds and "Identity" in kinds


def test_a_folder_gives_one_file_of_coco_results(tool, folder, tmp_path):
    target = tmp_path / "found.json"
    code, out, _ = tool(folder / "streams", *options(folder), "--json", target)
    assert code == 0 and not out
    results = json.loads(target.read_text())
    assert {r["image_id"] for r in results} >= {7}
    assert {r["image_id"] for r in results} <= {7, "b", "c"}
    assert all(r["category_id"] == 1 and len(r["bbox"]) == 4 for r in results)
    assert all(min(r["bbox"]) >= 0 and 0.001 <= r["score"] <= 1 for r in results)
    code, out, _ = tool(folder / "streams/7.hmc", *options(folder), "--json", "-")
    assert code == 0
    assert json.loads(out) == [r for r in results if r["image_id"] == 7]


def test_nothing_found_is_no_failure(tool, folder):
    code, out, _ = tool(folder / "streams", *options(folder), "--score-thr", 1)
    assert code == 0
    assert [line.rsplit(": ")[1] for line in out.splitlines()] == ["0 objects"] * 3


def test_a_broken_file_does_not_stop_the_others(tool, folder, tmp_path):
    for path in (folder / "streams").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "a.hmc").write_bytes(b"no stream")
    target = tmp_path / "found.json"
    code, _, err = tool(tmp_path, *options(folder), "--json", target)
    assert code == 1 and "a.hmc: " in err and target.is_file()
    code, _, err = tool(tmp_path / "a.hmc", *options(folder))
    assert code == 2 and "a.hmc: " in err


def test_a_reader_of_other_latents_is_refused(tool, folder, tmp_path):
    other = HM_MODELS["hm-mbt2018-mean"](16, 64, g_t_width=0).eval()
    other.update(force=True)
    torch.save(make_checkpoint(other), tmp_path / "other.pth.tar")
    (tmp_path / "x.hmc").write_bytes(encode(other, torch.rand(1, 3, 64, 64)))
    code, _, err = tool(
        tmp_path / "x.hmc", *options(folder), "--checkpoint", tmp_path / "other.pth.tar"
    )
    assert code == 2 and "reader 'nano' was trained on streams of" in err


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["--score-thr", 2], "--score-thr must be 0 to 1, got 2"),
        (["--reader", "x"], "--reader and --detector belong together"),
        (["--reader", "x", "--detector", "x.py,x.pth"], "x.py does not exist"),
    ],
)
def test_bad_options_are_named(tool, folder, args, named):
    code, _, err = tool(folder / "streams/7.hmc", "--checkpoint", DEMO, *args)
    assert code == 2 and named in err


def test_it_says_what_is_missing_without_openmmlab(tool, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "mmdet", None)
    code, _, err = tool(folder / "streams/7.hmc", *options(folder))
    assert code == 2 and "compressai-hm[openmmlab]" in err


def test_regions_are_found_in_the_latent(folder):
    entry = dict(
        config=str(folder / "detector.py"),
        checkpoint=str(folder / "nano.pth"),
        reader=str(folder / "nano.reader"),
    )
    regions = DetectorRegions([entry], gain=2.0, score_thr=0.5003)
    codec, x = load_checkpoint(DEMO), torch.rand(1, 3, 96, 128)
    assert regions.read_latents
    (objects,) = regions.detect(x, codec)
    reader = load_reader(folder / "nano.reader")
    direct = StreamDetector(reader, entry["config"], entry["checkpoint"], ratio=9 / 14)
    found = direct.detect(codec.analyze(x), (96, 128))
    found = found[found.scores >= 0.5003]
    assert len(found) and torch.equal(objects.bboxes, found.bboxes)
    steps = regions.step_map(x, 4.0, codec, codec.analyze(x))
    assert steps.shape == (6, 8) and set(steps.unique().tolist()) <= {2.0, 4.0}
    assert 2.0 in steps
    with pytest.raises(ValueError, match="reads latents: .* needs the codec"):
        regions.step_map(x)
    other = HM_MODELS["hm-mbt2018-mean"](16, 64, g_t_width=0).eval()
    with pytest.raises(ValueError, match="was trained on streams of"):
        regions.step_map(x, 1.0, other)
    plain = regions.identity()
    assert (
        json.dumps(plain)
        and plain
        == DetectorRegions(
            **{"detectors": [entry], "gain": 2.0, "score_thr": 0.5003}
        ).identity()
    )
