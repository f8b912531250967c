"""The weights in the package, and a stream of each that must decode for ever."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from compressai.zoo import image_models

from compressai_hm.codecs import ENTRIES, Bitstream, decode, encode
from compressai_hm.detection.build import build_codec
from compressai_hm.detection.drawn import draw
from compressai_hm.zoo import cfgs, load_checkpoint, released

from ..codecs.families import busy

GOLDEN = Path(__file__).parent / "golden"
RELEASED = [(n, metric) for n in released.RELEASED for metric in ENTRIES[n].released]
ENTRIES_AND_QUALITIES = [
    (name, quality, metric)
    for name, metric in RELEASED
    for quality in ((1, 4, 8) if ENTRIES[name].steps else cfgs[name])
]
entries = pytest.mark.parametrize(("name", "quality", "metric"), ENTRIES_AND_QUALITIES)


def of_metric(name, metric):
    return name if metric == "mse" else f"{name}-{metric}"


PROVISIONAL = {"hm-compact"}
"""Entries whose weights will be replaced: their files are not kept."""

STREAMS = [
    golden
    for golden in (
        *(f"{of_metric(n, metric)}-{q}" for n, q, metric in ENTRIES_AND_QUALITIES),
        *(f"{of_metric(n, metric)}-map" for n, metric in RELEASED if ENTRIES[n].steps),
    )
    if not golden.startswith(tuple(PROVISIONAL))
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
    assert set(released.WEIGHTS.glob("*.pth")) <= set(files)
    assert [f.name for f in files] == sorted(sums)
    for file in files:
        assert hashlib.sha256(file.read_bytes()).hexdigest() == sums[file.name]
    small = [f for f in files if f.name.startswith("hm-")]
    assert sum(f.stat().st_size for f in small) <= 48e6


@entries
def test_a_config_starts_from_them(name, quality, metric):
    entry = dict(type=name, quality=quality, metric=metric, pretrained=True)
    codec, weights = build_codec(entry)
    codec.load_state_dict(weights())
    x = picture()
    own = load(name, quality, metric)
    assert codec.eval().compress(x)["strings"] == own.compress(x)["strings"]


def test_what_is_released_is_loaded(tmp_path, monkeypatch):
    name = "hm-mbt2018-s"
    monkeypatch.setattr(released, "WEIGHTS", tmp_path)
    monkeypatch.setattr(released, "RELEASED", (name,))
    tiny = replace(ENTRIES[name], channels={1: (16, 24), 2: (16, 24)})
    monkeypatch.setitem(ENTRIES, name, tiny)
    models = {q: busy(name, g_t_width=32, g_t_downscale=4) for q in (1, 2)}
    released.write_released(name, models)
    for quality, net in models.items():
        expected = net.from_state_dict(released.rounded_codec(net))
        own, x = load(name, quality), torch.rand(1, 3, 60, 70)
        assert own.compress(x)["strings"] == expected.eval().compress(x)["strings"]
        for key, value in own.state_dict().items():
            assert torch.equal(value, expected.state_dict()[key])
    assert (tmp_path / f"{name}-1.pth").stat().st_size < 2.2 * sum(
        p.numel() for p in models[1].parameters()
    ) + 2e4


def test_one_set_of_weights_serves_all_qualities(tmp_path, monkeypatch):
    name = "hm-mbt2018-s"
    monkeypatch.setattr(released, "WEIGHTS", tmp_path)
    monkeypatch.setattr(released, "RELEASED", (name,))
    steps = {1: 2.5, 2: 1.0}
    one = replace(ENTRIES[name], channels=dict.fromkeys(steps, (16, 24)), steps=steps)
    monkeypatch.setitem(ENTRIES, name, one)
    released.write_released(name, {1: busy(name, g_t_width=32, g_t_downscale=4)})
    assert [path.name for path in tmp_path.glob("*.pth")] == [f"{name}.pth"]
    x, coarse = torch.rand(1, 3, 60, 70), load(name, 1)
    expected = load(name, 2).compress(x, 2.5)["strings"]
    assert coarse.step == 2.5 and coarse.compress(x)["strings"] == expected
    between = image_models[name](quality=2, pretrained=True, step=1.7).eval()
    assert between.compress(x)["strings"] == coarse.compress(x, 1.7)["strings"]
    with pytest.raises(ValueError, match="step must lie from 0.125 to 16, got 99"):
        image_models[name](quality=2, step=99)


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("hm-mbt2018-s", "person"),
        ("hm-mbt2018-vbr-s-v2", "mse"),
        ("hm-mbt2018-vbr-s-v2", "person"),
    ],
)
def test_what_training_changed_is_stored_and_added(name, metric, tmp_path, monkeypatch):
    stored = "hm-mbt2018-s"
    monkeypatch.setattr(released, "WEIGHTS", tmp_path)
    monkeypatch.setattr(released, "RELEASED", (stored, name))
    one = replace(
        ENTRIES[stored],
        channels=dict.fromkeys((1, 2), (16, 24)),
        steps={1: 2.5, 2: 1.0},
        released=("mse", "person"),
    )
    monkeypatch.setitem(ENTRIES, stored, one)
    monkeypatch.setitem(
        ENTRIES, name, replace(one, changes="" if name == stored else stored)
    )
    with pytest.raises(RuntimeError, match=r"tables\.npz is missing"):
        load(name, 1, metric)
    released.write_released(stored, {1: busy(stored, g_t_width=32, g_t_downscale=4)})
    with pytest.raises(RuntimeError, match=r"(v2|person)\.npz is missing"):
        load(name, 1, metric)
    before = load(stored, 1).state_dict()
    net = load(stored, 1)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.05 * parameter.std() * torch.randn_like(parameter)
    released.write_changes(name, metric, net)
    own, x = load(name, 2, metric), torch.rand(1, 3, 60, 70)
    for key, wanted in net.named_parameters():
        left, change = wanted - own.state_dict()[key], wanted - before[key]
        assert left.norm() <= 0.05 * change.norm() + 1e-3 * wanted.norm()
    data = encode(own, x, 2, metric)
    assert Bitstream.read(data).metric == metric
    views = decode(load(name, 1, metric), data)
    with torch.no_grad():
        assert psnr(views["x_hat"], own(x)["x_hat"].clamp(0, 1)) > 40
    parts = [n.latent_coder().fingerprint() for n in (own, load(stored, 1))]
    assert parts[0] != parts[1]
    if name == stored:
        with pytest.raises(ValueError, match="entropy part"):
            decode(load(stored, 1), data)
        with pytest.raises(ValueError, match="write_released makes them"):
            released.write_changes(name, "mse", net)
    else:
        with pytest.raises(ValueError, match="write_changes makes them"):
            released.write_released(name, {1: net})
    released.write_released(stored, {1: net})
    with pytest.raises(RuntimeError, match=r"npz changes other weights than .*-s\.pth"):
        load(name, 1, metric)
    with pytest.raises(RuntimeError, match="no HM weights .* released for ms-ssim"):
        load(name, 1, "ms-ssim")


def test_a_damaged_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(released, "WEIGHTS", tmp_path)
    monkeypatch.setattr(released, "RELEASED", ("hm-mbt2018-s",))
    with pytest.raises(RuntimeError, match=r"hm-mbt2018-s-tables\.npz is missing"):
        load("hm-mbt2018-s", 1)
    (tmp_path / "hm-mbt2018-s-tables.npz").write_bytes(b"other")
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  hm-mbt2018-s-tables.npz\n")
    with pytest.raises(RuntimeError, match=r"tables\.npz is not the file"):
        load("hm-mbt2018-s", 1)
    with pytest.raises(ValueError, match="of a zoo entry; say its name, --model"):
        load_checkpoint("compressai_hm://hm-mbt2018-vbr-s-v2.npz")


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
