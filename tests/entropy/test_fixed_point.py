"""Every integer layer against plain int64 arithmetic, position by position."""

import numpy as np
import pytest
import torch
from compressai.layers import CheckerboardMaskedConv2d, MaskedConv2d
from compressai.models.utils import deconv
from torch import nn

from compressai_hm.entropy import fixed_point, winograd
from compressai_hm.entropy.fixed_point import FRACTION, LIMIT, FixedNet, to_fixed


def floor_shift(total, shift):
    return np.clip(total >> shift, -LIMIT, LIMIT)


def int64_conv(conv, fixed, x):
    """x: (H, W, C) int64; straight from the definition, with Python's own loops."""
    weight = conv.weight.detach()
    if isinstance(conv, MaskedConv2d):
        weight = weight * conv.mask
    weight = np.round(weight.double().numpy() * 2**fixed.shift).astype(np.int64)
    bias = conv.bias.detach().double().numpy() * 2 ** (FRACTION + fixed.shift)
    half = 2**fixed.shift // 2
    total = np.zeros((*x.shape[:2], conv.out_channels), np.int64)
    total += np.round(bias).astype(np.int64) + half
    k = conv.kernel_size[0]
    height, width, _ = x.shape
    for h in range(height):
        for w in range(width):
            for i in range(k):
                for j in range(k):
                    row, col = h + i - k // 2, w + j - k // 2
                    if 0 <= row < height and 0 <= col < width:
                        total[h, w] += weight[:, :, i, j] @ x[row, col]
    return floor_shift(total, fixed.shift)


def int64_deconv(conv, fixed, x):
    k, s = conv.kernel_size[0], conv.stride[0]
    height, width, _ = x.shape
    out = np.zeros((height * s, width * s, conv.out_channels), np.int64)
    for a in range(s):
        for b in range(s):
            shift = fixed.phases[a * s + b].shift
            weight = conv.weight.detach().double().numpy() * 2**shift
            weight = np.round(weight).astype(np.int64)
            bias = conv.bias.detach().double().numpy() * 2 ** (FRACTION + shift)
            bias = np.round(bias).astype(np.int64) + 2**shift // 2
            for h in range(height):
                for w in range(width):
                    total = bias.copy()
                    for i in range(k):
                        for j in range(k):
                            row, col = s * h + a + k // 2 - i, s * w + b + k // 2 - j
                            if row % s or col % s:
                                continue
                            row, col = row // s, col // s
                            if 0 <= row < height and 0 <= col < width:
                                total += x[row, col] @ weight[:, :, i, j]
                    out[s * h + a, s * w + b] = floor_shift(total, shift)
    return out


def extremes(channels, height=4, width=5):
    """Activations at and near the limits, where sums are largest."""
    x = torch.randint(-LIMIT, LIMIT + 1, (1, height, width, channels)).double()
    x[:, ::2] = x[:, ::2].sign() * LIMIT
    x[:, :, 0] = 3
    return x


def as_int64(x):
    assert (x == x.round()).all() and x.abs().max() <= LIMIT
    return x[0].long().numpy()


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(6, 5, 1),
        nn.Conv2d(6, 5, 3, padding=1),
        nn.Conv2d(6, 5, 5, padding=2),
        MaskedConv2d(6, 5, 5, padding=2),
        CheckerboardMaskedConv2d(6, 5, 5, padding=2),
    ],
    ids=str,
)
@pytest.mark.parametrize("scale", [1, 100, 3000])
def test_convolutions_are_int64_arithmetic(conv, scale):
    with torch.no_grad():
        conv.weight *= scale
    net, x = FixedNet(conv), extremes(6)
    expected = int64_conv(conv, net.layers[0], as_int64(x))
    assert (as_int64(net(x)) == expected).all()


@pytest.mark.parametrize("size", [(4, 5), (5, 4), (1, 2), (7, 9)])
@pytest.mark.parametrize("band", [1, 2**21])
def test_winograds_way_is_int64_arithmetic(size, band, monkeypatch):
    """To the largest activations that it may take; larger ones go the direct way."""
    monkeypatch.setattr(fixed_point, "_LEAST", 0)
    monkeypatch.setattr(winograd, "_CHUNK", band)
    conv = nn.Conv2d(6, 5, 3, padding=1)
    net, calls = FixedNet(conv), []
    (layer,) = net.layers
    fast = layer._winograd
    layer._winograd = lambda x: calls.append(x) or fast(x)
    layer._winograd.most = fast.most
    most = int(fast.most)
    assert LIMIT / 64 < most < LIMIT
    x = extremes(6, *size)
    for bound in (most, most + 1):
        own = x.clamp(-bound, bound)
        expected = int64_conv(conv, layer, as_int64(own))
        assert (as_int64(net(own)) == expected).all()
    assert len(calls) == 1


@pytest.mark.parametrize("conv", [deconv(6, 5), deconv(6, 5, 3, 1), deconv(6, 5, 3, 2)])
def test_transposed_convolutions_are_int64_arithmetic(conv):
    net, x = FixedNet(conv), extremes(6)
    if conv.stride[0] == 1:
        net.layers[0].phases = [net.layers[0]]
    expected = int64_deconv(conv, net.layers[0], as_int64(x))
    assert (as_int64(net(x)) == expected).all()


def test_leaky_relu_is_int64_arithmetic():
    x = extremes(8)
    slope = round(0.01 * 2**19)
    v = as_int64(x)
    low = (v * slope + 2**18) >> 19
    assert (as_int64(FixedNet(nn.LeakyReLU())(x)) == np.maximum(v, low)).all()
    assert (as_int64(FixedNet(nn.ReLU())(x)) == np.maximum(v, 0)).all()


def test_pixel_shuffle_moves_what_torch_moves():
    x = extremes(12)
    shuffled = nn.PixelShuffle(2)(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    assert torch.equal(FixedNet(nn.PixelShuffle(2))(x), shuffled)


def test_a_net_is_close_to_its_float_original():
    net = nn.Sequential(
        deconv(4, 8), nn.LeakyReLU(), deconv(8, 12), nn.ReLU(),
        nn.Sequential(nn.Conv2d(12, 16, 3, padding=1), nn.PixelShuffle(2)),
        nn.Conv2d(4, 6, 3, padding=1),
    )  # fmt: skip
    x = torch.randn(2, 4, 5, 7) * 20
    fixed = FixedNet(net)
    out = fixed(to_fixed(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2) * 2.0**-FRACTION
    expected = net(x)
    assert out.shape == expected.shape and fixed.stride == 8
    assert (out - expected).abs().max() < 2e-3


def test_no_activations_can_leave_the_exact_range():
    """The bound holds for the weights alone, and no bit is given away."""
    for scale in (1e-3, 1, 1e3):
        conv = nn.Conv2d(64, 8, 5, padding=2)
        with torch.no_grad():
            conv.weight *= scale
        (layer,) = FixedNet(conv).layers
        weight, bias = layer.integers()
        assert (weight == weight.round()).all() and (bias == bias.round()).all()
        largest = weight.abs().sum(1) * LIMIT + bias.abs()
        assert largest.max() <= 2**53
        assert layer.shift == 24 or largest.max() * 2 > 2**52


def test_a_strip_is_the_whole_but_for_its_halo():
    net = FixedNet(
        nn.Conv2d(3, 4, 3, padding=1), deconv(4, 4), nn.Conv2d(4, 2, 5, padding=2)
    )
    x = to_fixed(torch.randn(1, 20, 6, 3))
    whole, strip = net(x), net(x[:, 8 - net.halo : 12 + net.halo])
    assert net.halo == 3
    assert torch.equal(whole[:, 16:24], strip[:, 2 * net.halo : 2 * net.halo + 8])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e9])
def test_weights_without_an_exact_range_are_refused(bad):
    conv = nn.Conv2d(2, 2, 1)
    with torch.no_grad():
        conv.weight[0, 0] = bad
    with pytest.raises(ValueError, match="cannot be coded exactly"):
        FixedNet(conv)


@pytest.mark.parametrize(
    "module",
    [nn.Conv2d(2, 2, 3, stride=2, padding=1), nn.Conv2d(2, 2, 3), nn.GELU()],
    ids=str,
)
def test_layers_without_a_counterpart_are_named(module):
    with pytest.raises(TypeError, match=type(module).__name__):
        FixedNet(module)
