"""Steps of quantization: exact, by place, in the file."""

import dataclasses
import hashlib
import math

import numpy as np
import pytest
import torch

from compressai_hm import Bitstream, BitstreamError, decode, encode
from compressai_hm.bitstream import step_map
from compressai_hm.bitstream.step_map import decode_map, encode_map
from compressai_hm.entropy import QuantSteps
from compressai_hm.entropy import steps as module
from compressai_hm.entropy.steps import FARTHEST, FIRST, LAST

from ..families import busy, drawn_latents, families, portable

REAL = (0.7, 1.0, 1.37, 3.2)


def drawn_map(h, w, seed=0):
    """Offsets with regions and noise, in quarter octaves."""
    rng = np.random.default_rng(seed)
    offsets = rng.integers(-3, 4, (h, w)) * (rng.random((h, w)) < 0.2)
    offsets[h // 4 : h // 2, w // 4 :] -= 8
    return offsets.astype(np.int8)


def settings(h, w):
    # Finer steps saturate: these random weights predict means of thousands.
    maps = [QuantSteps(150, drawn_map(h, w)), QuantSteps(200, drawn_map(h, w, 1))]
    return [*(QuantSteps.nearest(step, (16 * h, 16 * w)) for step in REAL), *maps]


def test_widths_are_the_nearest_integers_and_frozen():
    widths = module._widths()
    real = 2.0 ** (14 + np.arange(FIRST, LAST + 1) / 96)
    assert np.abs(widths - real).max() <= 0.5 + 1e-6
    assert (widths[0], widths[-FIRST], widths[-1]) == (2**11, 2**14, 2**18)
    assert (np.diff(np.log(widths)) * 1.4 < 0.015).all()  # of rate: see DESIGN
    digest = hashlib.sha256(widths.astype("<i4").tobytes()).hexdigest()
    assert digest[:16] == WIDTHS


def test_steps_are_the_nearest_there_are():
    for step in (0.125, 0.7, 1.0, 1.37, 3.2, 16):
        value = QuantSteps.nearest(step, (64, 64)).values((4, 4))
        assert np.abs(np.log2(value / step)).max() <= 0.51 / 96
    chosen = torch.full((3, 5), 2.0)
    chosen[1, 2:4] = 1.0
    own = QuantSteps.nearest(chosen, (40, 70))
    assert own.offsets.shape == (4, 8)
    values = own.values((4, 8))
    assert np.abs(np.log2(values[:3, :5] / chosen.numpy())).max() < 0.01
    assert (values[3:] == values[2]).all()  # the padding is as its edge
    assert QuantSteps.nearest(torch.full((3, 5), 2.0), (40, 70)) == QuantSteps.nearest(
        2.0, (40, 70)
    )
    for step in (0.1, 17, math.nan, -1, torch.full((3, 5), 20.0)):
        with pytest.raises(ValueError, match=r"from 0\.125 to 16"):
            QuantSteps.nearest(step, (40, 70))
    with pytest.raises(ValueError, match=r"70x40 must be \(3, 5\).*got \(2, 5\)"):
        QuantSteps.nearest(torch.ones(2, 5), (40, 70))


@families
def test_every_step_is_coded_exactly(name):
    """The twin agrees, batches do, and so do threads that decode."""
    net = portable(name)
    own = settings(8, 12)
    y, z = drawn_latents(net, 2, 3, batch=len(own))
    coder = net.latent_coder()
    coded, out = coder.encode(y, z, own), coder.measure(y, z, own)
    y_hat, symbols = coder.decode(*coded.strings, (2, 3), own)
    assert torch.equal(out["y_hat"].double(), y_hat.float().double())
    sizes = []
    for i, steps in enumerate(own):
        strings = [[part[i]] for part in coded.strings]
        assert coder.encode(y[i : i + 1], z[i : i + 1], [steps]).strings == strings
        torch.set_num_threads(2)
        alone, found = coder.decode(*strings, (2, 3), [steps])
        torch.set_num_threads(1)
        assert torch.equal(alone[0], y_hat[i]) and (found[0] == symbols[i]).all()
        assert (found[0] == coded.symbols[i]).all()
        half = torch.from_numpy(steps.values((8, 12)) / 2 + 2**-13)
        near = (y_hat[i] - y[i]).abs() <= half
        assert near.float().mean() > 0.2 if coder.groups[0].skips else near.all()
        bits = sum(-p[i].log2().sum() for p in out["likelihoods"].values())
        size = sum(len(part[0]) for part in strings)
        assert abs(size - bits / 8) <= 0.005 * bits / 8 + 64
    again = coder.encode(y[:1].repeat(4, 1, 1, 1), z[:1].repeat(4, 1, 1, 1), own[:4])
    sizes = [len(string) for string in again.strings[0]]
    assert sizes == sorted(sizes, reverse=True)


@families
def test_a_step_of_1_is_the_coding_of_before(name):
    net = portable(name)
    y, z = drawn_latents(net, 2, 2)
    coder = net.latent_coder()
    plain = coder.encode(y, z)
    flat = QuantSteps(0, np.zeros((8, 8), dtype=np.int8))
    assert coder.encode(y, z, [QuantSteps()]).strings == plain.strings
    assert coder.encode(y, z, [flat]).strings == plain.strings  # through the division
    y_hat, _ = coder.decode(*plain.strings, (2, 2))
    assert torch.equal(coder.decode(*plain.strings, (2, 2), [flat])[0], y_hat)


def test_the_scale_over_the_step_meets_the_same_thresholds():
    """ceil(s / D) > t exactly where s > floor(t D), for integers of any size."""
    from compressai_hm.entropy.latent_coder import _over_step

    rng = np.random.default_rng(0)
    widths = module._widths()[rng.integers(0, LAST - FIRST + 1, 20000)].astype(int)
    t = rng.integers(1, 2**22, 20000)
    edge = np.array([int(a) * int(b) >> 14 for a, b in zip(t, widths, strict=True)])
    for s in (edge - 1, edge, edge + 1, rng.integers(0, 2**27, 20000)):
        s = s.clip(-(2**27), 2**27)
        found = _over_step(torch.from_numpy(s).double(), torch.from_numpy(widths))
        assert ((found.numpy() > t) == (s > edge)).all()


@families
def test_files_hold_step_and_map(name):
    net, x = busy(name), torch.rand(1, 3, 70, 100)
    chosen = torch.full((5, 7), 3.0)
    chosen[1:3, 2:6] = 1.5
    for step, has_map in ((0.7, False), (1.37, False), (3.2, False), (chosen, True)):
        data = encode(net, x, step=step)
        stream = Bitstream.read(data)
        assert bool(stream.map) == has_map
        assert stream.steps() == QuantSteps.nearest(step, (70, 100))
        views, coded = decode(net, data), net.compress(x, step)
        assert coded["strings"] == [[stream.y], [stream.z]]
        other = net.decompress(**coded)
        for key, view in views.items():
            assert torch.equal(other[key], view)
    assert encode(net, x, step=1.0) == encode(net, x)
    assert set(net.compress(x)) == {"strings", "shape"}


def test_other_steps_than_the_coded_are_noticed():
    net, x = busy("hm-mbt2018-mean"), torch.rand(1, 3, 128, 128)
    data = bytearray(encode(net, x, step=2.0))
    stream = Bitstream.read(bytes(data))
    forged = dataclasses.replace(stream, step=stream.step + 40).to_bytes()
    with pytest.raises(BitstreamError):
        decode(net, forged)
    with pytest.raises(BitstreamError, match="2 steps for 1 pictures"):
        net.decompress([[stream.y], [stream.z]], (128, 128), steps=[QuantSteps()] * 2)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [(4, 4), (32, 48), (60, 20)])
def test_maps_come_back(size, seed):
    rng = np.random.default_rng(seed)
    for offsets in (
        np.zeros(size, dtype=np.int8),
        drawn_map(*size, seed),
        rng.integers(-FARTHEST, FARTHEST + 1, size).astype(np.int8),
    ):
        assert (decode_map(encode_map(offsets), size) == offsets).all()


def test_maps_of_boxes_are_small():
    """At 0.1 bpp a picture of 768x512 has 4915 bytes; its map at most 2 % of them."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        offsets = np.zeros((32, 48), dtype=np.int8)
        for _ in range(6):
            top, left = rng.integers(0, 26), rng.integers(0, 40)
            height, width = rng.integers(2, 14, 2)
            offsets[top : top + height, left : left + width] = -4
        assert len(encode_map(offsets)) <= 0.02 * 4915


def test_the_maps_tables_are_frozen():
    rows = repr([list(map(int, row)) for row in step_map._tables().rows[:-1]])
    assert hashlib.sha256(rows.encode()).hexdigest()[:16] == TABLES


WIDTHS, TABLES = "766fa9f52e481de9", "2bb59c8a1a42d5f3"
"""Files hold what they make: a change is a new format version."""


def test_a_models_own_step_is_taken_where_none_is_asked_for():
    net, x = busy("hm-compact"), torch.rand(2, 3, 70, 90)
    coarse = net.compress(x, 2.5)
    net.step = 2.5
    own = net.compress(x)
    assert own["strings"] == coarse["strings"] and "steps" not in own
    expected = net.decompress(**coarse)["x_hat"]
    assert torch.equal(net.decompress(**own)["x_hat"], expected)
    assert torch.equal(net(x)["x_hat"].clamp(0, 1), expected)
    plain = net.compress(x, 1)
    net.step = 1.0
    assert torch.equal(
        net.decompress(**plain)["x_hat"], net.decompress(**net.compress(x))["x_hat"]
    )
    assert encode(net, x[:1]) == encode(net, x[:1], step=1)
