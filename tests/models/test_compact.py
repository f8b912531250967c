"""hm-compact: what it starts as, and that training sees what is coded."""

import numpy as np
import pytest
import torch
from compressai.entropy_models import GaussianConditional

from compressai_hm import HMCompact, QuantSteps, encode
from compressai_hm.entropy import parallel_family, step_values
from compressai_hm.entropy.steps import z_class
from compressai_hm.models.compact import DepthwiseBlock

from ..families import busy, portable

HALVES = np.zeros((8, 12), np.int8)
HALVES[:, 5:] = -8


def photograph(height, width):
    """Noise whose power falls with the frequency, as a photograph's does."""
    rng, noise = np.random.default_rng(0), 0
    for s in (1, 2, 4, 8, 16, 32):
        coarse = rng.standard_normal((3, height // s, width // s))
        noise = noise + np.kron(coarse, np.ones((1, s, s)))
    return torch.from_numpy(0.5 + 0.08 * noise).clamp(0, 1).float()[None]


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return HMCompact(g_t_width=0).eval()


@torch.no_grad()
def test_it_starts_as_a_cosine_transform(net):
    x = photograph(128, 192)
    y = net.analyze(x)
    squares = y.square().mean((0, 2, 3))
    assert squares[:16].mean() > 20 * squares[128:].mean()
    x_hat = net.synthesize(y, x.shape[-2:])["x_hat"]
    # The transform is orthonormal: what is lost is what is not kept.
    lost = x.square().sum() - y.square().sum() / (255 / 86) ** 2
    assert (x - x_hat).square().sum() == pytest.approx(float(lost), rel=0.01)
    coarse = [len(encode(net, x, step=step)) for step in (0.5, 1.0, 2.0, 4.0)]
    assert coarse == sorted(coarse, reverse=True)


def test_a_block_starts_as_the_identity():
    x = torch.randn(1, 8, 5, 7)
    for unit in (1.0, 8.0):
        assert torch.equal(DepthwiseBlock(8, unit)(x), x)


@torch.no_grad()
def test_a_block_in_other_units_is_the_same_function():
    torch.manual_seed(0)
    own, other = DepthwiseBlock(8), DepthwiseBlock(8, 8.0)
    for parameter in own.parameters():
        parameter.normal_(0, 0.3)
    other.load_state_dict(own.state_dict())
    other.space[0].weight *= 8
    for layer in (other.space[3].weight, other.space[3].bias, other.gate.bias):
        layer /= 8
    other.out.weight *= 8
    other.out.bias /= 8
    x = torch.randn(1, 8, 5, 7)
    assert torch.allclose(own(x), other(x), atol=1e-4)


@torch.no_grad()
def test_what_is_far_from_a_picture_does_not_grow_without_bound():
    torch.manual_seed(0)
    blocks = torch.nn.Sequential(*(DepthwiseBlock(16) for _ in range(6)))
    for parameter in blocks.parameters():
        parameter += 0.2 * torch.randn_like(parameter)
    ends = [float(blocks(s * torch.ones(1, 16, 8, 8)).abs().max()) for s in (1e2, 1e4)]
    assert ends[1] < 200 * ends[0]


@pytest.mark.parametrize(
    "steps",
    [
        QuantSteps(-90),
        QuantSteps(0),
        QuantSteps(130),
        QuantSteps(239),
        QuantSteps(239, HALVES),
    ],
)
@torch.no_grad()
def test_a_training_pass_sees_the_symbols_of_the_file(net, steps):
    """All but 1 of 5000; the eval forward sees all of them."""
    y = net.analyze(photograph(128, 192))
    coded = net.code_latent(y, [steps])
    strings = net.encode_latent(y, [steps]).strings
    y_hat, (symbols,) = net.decode_latent(strings, (128, 192), [steps])
    assert np.any(symbols) and torch.equal(y_hat, coded["y_hat"])
    try:
        trained = net.train().code_latent(y, [steps])
    finally:
        net.eval()
    gained = torch.exp(net.gain.scale.detach().abs().sum())  # 1: it is untrained
    error = (trained["y_hat"] - y_hat).abs() / step_values([steps], y.shape[-2:])
    assert gained == 1 and (error > 0.5).float().mean() <= 1 / 5000
    for key, tolerance in (("y", 0.04), ("z", 0.15)):  # scales are tabled
        bits = [-out["likelihoods"][key].log2().sum() for out in (trained, coded)]
        assert bits[0] == pytest.approx(float(bits[1]), rel=tolerance)


def test_what_is_decoded_follows_y_and_not_the_mean():
    y, mean = (torch.randn(1, 6, 4, 4, requires_grad=True) for _ in range(2))
    log_scale = torch.tensor([-9.0, 1.0]).repeat(3).view(1, 6, 1, 1).expand_as(y)
    gaussian, step = GaussianConditional(None), torch.tensor(0.5)
    y_hat, _ = parallel_family._straight(gaussian, y, log_scale, mean, step)
    coded = torch.round((y - mean) / step) * step + mean
    expected = torch.where(log_scale > 0, coded, mean)
    assert torch.allclose(y_hat, expected, atol=1e-6)
    weight = torch.randn_like(y)
    inputs = y, mean
    of = torch.autograd.grad((y_hat * weight).sum(), inputs, allow_unused=True)
    assert torch.equal(of[0], weight) and of[1] is None


def test_a_mean_learns_where_the_symbol_is_0():
    torch.manual_seed(0)
    y, mean = torch.full((1, 1, 64, 64), 0.3), torch.zeros(1, requires_grad=True)
    gaussian, step = GaussianConditional(None), torch.tensor(1.0)
    y_hat, p = parallel_family._straight(gaussian, y, torch.zeros_like(y), mean, step)
    assert not y_hat.any()
    (slope,) = torch.autograd.grad(-p.log2().mean(), mean)
    assert slope < -0.1


@torch.no_grad()
def test_networks_are_told_the_step():
    net = busy("hm-compact", g_t_width=0)
    y = net.gain(net.analyze(photograph(64, 64)), torch.zeros(1, 1, 1, 1))
    z = [net._hyper_analysis(y, [QuantSteps(k)]) for k in (0, 100)]
    assert not torch.allclose(*z)
    offsets = np.zeros((4, 4), np.int8)
    offsets[0, 0] = -4
    assert not torch.allclose(z[1], net._hyper_analysis(y, [QuantSteps(100, offsets)]))
    # And each group's network, of the step at each place.
    symbols = torch.zeros(1, 1, 1, 6)
    exchange = {}

    def keep(key):
        def each(group, place, index, mean, step):
            exchange.setdefault(key, []).append(mean.clone())
            return torch.zeros_like(mean)

        return each

    coder = portable("hm-compact").latent_coder()
    for k in (0, 48):
        classes = torch.tensor([z_class(QuantSteps(0))])
        coder._walk(symbols, (4, 4), keep(k), [QuantSteps(k)], classes)
    for first, second in zip(*exchange.values(), strict=True):
        assert not torch.equal(first, second)


def test_weights_tell_how_it_was_made():
    made = HMCompact(24, 32, groups=[4, 12, 16], blocks=(2, 3, 0, 1), g_t_width=8)
    found = HMCompact.from_state_dict(made.state_dict())
    for key, value in made.state_dict().items():
        assert torch.equal(found.state_dict()[key], value)
    assert (found.N, found.M) == (24, 32)
    with pytest.raises(ValueError, match="sum to M=32, got"):
        HMCompact(24, 32, groups=[4, 4])


def test_noise_is_no_quantizer_of_it():
    net = busy("hm-compact").train()
    net.quantizer = "noise"
    with pytest.raises(ValueError, match='HMCompact trains with quantizer="ste" only'):
        net(torch.rand(1, 3, 64, 64))
