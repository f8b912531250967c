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
from compressai_hm.zoo import cfgs, released

from ..codecs.families import busy

GOLDEN = Path(__file__).parent / "golden"
ENTRIES_AND_QUALITIES = [
    (name, quality)
    for name in released.RELEASED
    for quality in ((1, 4, 8) if ENTRIES[name].steps else cfgs[name])
]
entries = pytest.mark.parametrize(("name", "quality"), ENTRIES_AND_QUALITIES)
STREAMS = [
    *(f"{name}-{quality}" for name, quality in ENTRIES_AND_QUALITIES),
    *(f"{name}-map" for name in released.RELEASED if ENTRIES[name].steps),
]


def load(name, quality):
    return image_models[name](quality=quality, pretrained=True).eval()


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
    net = load(name, stream.quality)
    assert stream.model == name and kind in (str(stream.quality), "map")
    assert (kind == "map") == bool(stream.map)
    views, x = decode(net, data), picture()
    expected = json.loads((GOLDEN / "expected.json").read_text())[golden]
    assert digest(net, data) == expected["y_hat"]
    for view, value in expected["psnr"].items():
        assert psnr(x, views[view]) == pytest.approx(value, abs=0.01)


def test_more_bits_are_a_better_picture():
    x = picture()
    for name in released.RELEASED:
        sizes, values = [], []
        for quality in cfgs[name]:
            net = load(name, quality)
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
    assert sum(f.stat().st_size for f in small) <= 35e6


@entries
def test_a_config_starts_from_them(name, quality):
    codec, weights = build_codec(dict(type=name, quality=quality, pretrained=True))
    codec.load_state_dict(weights())
    x = picture()
    own = load(name, quality)
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


def test_a_damaged_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(released, "WEIGHTS", tmp_path)
    monkeypatch.setattr(released, "RELEASED", ("hm-mbt2018-s",))
    with pytest.raises(RuntimeError, match=r"hm-mbt2018-s-tables\.npz is missing"):
        load("hm-mbt2018-s", 1)
    (tmp_path / "hm-mbt2018-s-tables.npz").write_bytes(b"other")
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  hm-mbt2018-s-tables.npz\n")
    with pytest.raises(RuntimeError, match=r"tables\.npz is not the file"):
        load("hm-mbt2018-s", 1)


def write():
    """What made the golden files. Those that are there stay as they are for ever."""
    x, path = picture(), GOLDEN / "expected.json"
    expected = json.loads(path.read_text())
    for golden in STREAMS:
        if golden in expected:
            continue
        name, _, kind = golden.rpartition("-")
        quality = 4 if kind == "map" else int(kind)
        net, step = load(name, quality), None
        if kind == "map":
            step = torch.full([-(-side // 16) for side in x.shape[-2:]], 3.0)
            step[1:3, 2:] = 1.5
        data = encode(net, x, quality, step=step)
        (GOLDEN / f"{golden}.hmc").write_bytes(data)
        views = decode(net, data)
        expected[golden] = {
            "y_hat": digest(net, data),
            "psnr": {k: round(psnr(x, v), 3) for k, v in views.items()},
        }
    path.write_text(json.dumps(expected, indent=1) + "\n")
