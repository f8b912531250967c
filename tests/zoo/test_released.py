"""The weights in the package, and a stream of each that must decode for ever."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from compressai.zoo import image_models

from compressai_hm import (
    ENTRIES,
    Bitstream,
    decode,
    decode_to_latent,
    encode,
    load_reader,
)
from compressai_hm.detection import StreamDetector
from compressai_hm.detection.configs import build_codec
from compressai_hm.detection.datasets.drawn import draw
from compressai_hm.io.pictures import read_picture
from compressai_hm.zoo import cfgs, load_checkpoint, released

from ..families import busy

GOLDEN = Path(__file__).parent / "golden"
RELEASED = [(n, metric) for n in released.RELEASED for metric in ENTRIES[n].released]
ENTRIES_AND_QUALITIES = [
    (name, quality, metric) for name, metric in RELEASED for quality in (1, 4, 8)
]
entries = pytest.mark.parametrize(("name", "quality", "metric"), ENTRIES_AND_QUALITIES)


def of_metric(name, metric):
    return name if metric == "mse" else f"{name}-{metric}"


STREAMS = [
    *(f"{of_metric(n, metric)}-{q}" for n, q, metric in ENTRIES_AND_QUALITIES),
    *(f"{of_metric(n, metric)}-map" for n, metric in RELEASED),
]


def load(name, quality, metric="mse"):
    return image_models[name](quality, metric, pretrained=True).eval()


def picture():
    drawn, *_ = draw(np.random.default_rng(0), ellipses=True)
    return torch.from_numpy(drawn).permute(2, 0, 1)[None].float() / 255


def psnr(x, view):
    return -10 * float((x - view).square().mean().log10())


def digest(net, data):
    """Of the symbols, where a gain in floating point is between them and y_hat."""
    stream = Bitstream.read(data)
    strings, steps = [[stream.y], [stream.z]], [stream.steps()]
    y_hat, symbols = net.decode_latent(strings, stream.size, steps)
    if steps[0].offsets is not None or not steps[0].plain:
        own = np.concatenate([np.asarray(part).ravel() for part in symbols])
        return hashlib.sha256(own.astype("<i4").tobytes()).hexdigest()
    return hashlib.sha256(y_hat.mul(2**14).long().numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("golden", STREAMS)
def test_golden_streams_decode(golden):
    name, _, kind = golden.rpartition("-")
    data = (GOLDEN / f"{golden}.hmc").read_bytes()
    stream = Bitstream.read(data)
    net = load(stream.model, stream.quality, stream.metric)
    assert of_metric(stream.model, stream.metric) == name
    assert kind in (str(stream.quality), "map")
    assert (kind == "map") == bool(stream.map)
    views, x = decode(net, data), picture()
    expected = json.loads((GOLDEN / "expected.json").read_text())[golden]
    assert digest(net, data) == expected["y_hat"]
    for view, value in expected["psnr"].items():
        assert psnr(x, views[view]) == pytest.approx(value, abs=0.01)


def test_more_bits_are_a_better_picture():
    x = picture()
    for name, metric in RELEASED:
        sizes, values = [], []
        for quality in cfgs[name]:
            net = load(name, quality, metric)
            data = encode(net, x, quality)
            sizes.append(len(data))
            values.append(psnr(x, decode(net, data)["x_hat"]))
        assert sizes == sorted(sizes) and values == sorted(values)


def test_files_are_small_and_the_released_ones():
    sums = released._sums()
    files = [f for f in sorted(released.WEIGHTS.iterdir()) if f.name in sums]
    names = {f.name for f in released.WEIGHTS.iterdir()} - {"README.md", released.SUMS}
    assert [f.name for f in files] == sorted(sums) == sorted(names)
    for file in files:
        assert hashlib.sha256(file.read_bytes()).hexdigest() == sums[file.name]
    assert sum(f.stat().st_size for f in files) <= 35e6


@entries
def test_a_config_starts_from_them(name, quality, metric):
    entry = dict(type=name, quality=quality, metric=metric, pretrained=True)
    codec, weights = build_codec(entry)
    codec.load_state_dict(weights())
    x = picture()
    own = load(name, quality, metric)
    assert codec.eval().compress(x)["strings"] == own.compress(x)["strings"]


@pytest.fixture
def small_entry(tmp_path, monkeypatch):
    """A released entry of few weights in an empty folder."""
    name, steps = "hm-compact", {1: 2.5, 2: 1.0}
    small = replace(ENTRIES[name], channels=dict.fromkeys(steps, (16, 24)), steps=steps)
    monkeypatch.setitem(ENTRIES, name, small)
    monkeypatch.setattr(released, "WEIGHTS", tmp_path)
    return name


def test_what_is_released_is_loaded(small_entry, tmp_path):
    name, models = small_entry, {}
    for metric in ("mse", "person"):
        models[metric] = busy(name, g_t_width=0)
        released.write_released(name, models[metric], metric)
    for metric, net in models.items():
        expected = net.from_state_dict(released.rounded_codec(net))
        own, x = load(name, 2, metric), torch.rand(1, 3, 60, 70)
        assert own.compress(x)["strings"] == expected.eval().compress(x)["strings"]
        for key, value in own.state_dict().items():
            assert torch.equal(value, expected.state_dict()[key])
        data = encode(own, x, 2, metric)
        assert Bitstream.read(data).metric == metric
    with pytest.raises(ValueError, match="entropy part"):
        decode(load(name, 1), data)
    weights = sum(p.numel() for p in net.parameters())
    assert {path.name for path in tmp_path.glob("*.npz")} == {
        f"{name}.npz",
        f"{name}-person.npz",
    }
    assert (tmp_path / f"{name}.npz").stat().st_size < 2.2 * weights + 1e5


def test_one_set_of_weights_serves_all_qualities(small_entry):
    name = small_entry
    released.write_released(name, busy(name, g_t_width=0))
    x, coarse = torch.rand(1, 3, 60, 70), load(name, 1)
    expected = load(name, 2).compress(x, 2.5)["strings"]
    assert coarse.step == 2.5 and coarse.compress(x)["strings"] == expected
    between = image_models[name](quality=2, pretrained=True, step=1.7).eval()
    assert between.compress(x)["strings"] == coarse.compress(x, 1.7)["strings"]
    with pytest.raises(ValueError, match="step must lie from 0.125 to 16, got 99"):
        image_models[name](quality=2, step=99)


def test_a_damaged_file_is_named(small_entry, tmp_path):
    name = small_entry
    with pytest.raises(RuntimeError, match=rf"{name}\.npz is missing"):
        load(name, 1)
    (tmp_path / f"{name}.npz").write_bytes(b"other")
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  {name}.npz\n")
    with pytest.raises(RuntimeError, match=rf"{name}\.npz is not the file"):
        load(name, 1)
    with pytest.raises(RuntimeError, match="'ms-ssim'; there are .* mse, person"):
        load(name, 1, "ms-ssim")
    with pytest.raises(ValueError, match="of a zoo entry; say its name, --model"):
        load_checkpoint("compressai_hm://hm-compact.npz")


def write():
    """What made the golden files. Those that are there stay as they are for ever."""
    x, path = picture(), GOLDEN / "expected.json"
    expected = json.loads(path.read_text())
    for golden in STREAMS:
        if golden in expected:
            continue
        own, _, kind = golden.rpartition("-")
        name, metric = next(entry for entry in RELEASED if of_metric(*entry) == own)
        quality = 4 if kind == "map" else int(kind)
        net, step = load(name, quality, metric), None
        if kind == "map":
            step = torch.full([-(-side // 16) for side in x.shape[-2:]], 3.0)
            step[1:3, 2:] = 1.5
        data = encode(net, x, quality, metric, step=step)
        (GOLDEN / f"{golden}.hmc").write_bytes(data)
        views = decode(net, data)
        expected[golden] = {
            "y_hat": digest(net, data),
            "psnr": {k: round(psnr(x, v), 3) for k, v in views.items()},
        }
    path.write_text(json.dumps(expected, indent=1) + "\n")


def test_readers_are_of_the_released_weights():
    paths = list(released.WEIGHTS.glob("*.people.reader"))
    assert len(paths) == len(RELEASED)
    for path in paths:
        own, reader = path.name.split(".")[0], load_reader(path)
        name, metric = next(entry for entry in RELEASED if of_metric(*entry) == own)
        reader.check(load(name, 1, metric))
        rest = released.WEIGHTS / f"{name}.people.pth"
        assert path.stat().st_size + rest.stat().st_size <= 5e6
        sums = (released.WEIGHTS / released.SUMS).read_text()
        for file in (path, rest):
            assert (
                f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}" in sums
            )


def test_people_are_found_in_a_file():
    path = Path(__file__).parents[2] / "tools/pictures/kodim14.png"
    net, x = load("hm-compact", 4), read_picture(path)
    reader = load_reader(released.WEIGHTS / "hm-compact.people.reader")
    config = Path(__file__).parents[2] / "mmdet_configs/person/rtmdet_latent.py"
    weights = f"{released.SCHEME}hm-compact.people.pth"
    found = StreamDetector(reader, str(config), weights)
    _, y_hat = decode_to_latent(net, encode(net, x))
    objects = found.detect(y_hat, (512, 768))
    people = objects[objects.scores > 0.3].bboxes
    boat = torch.tensor([10.0, 80.0, 720.0, 480.0])  # they all sit in it
    assert len(people) >= 3
    inside = (people[:, :2] > boat[:2]).all(1) & (people[:, 2:] < boat[2:]).all(1)
    assert inside.float().mean() > 0.6
    for size in ((1, 1), (1, 3000), (40, 9)):
        few = found.detect(net.analyze(torch.rand(1, 3, *size)), size)
        assert not len(few[few.scores > 0.3])
