import numpy as np
import pytest
import torch

from compressai_hm import QuantSteps

from ..families import busy

OFFSETS = np.zeros((4, 8), dtype=np.int8)
OFFSETS[1:3, 2:5] = -4


@pytest.fixture
def net():
    net = busy("hm-compact")
    torch.manual_seed(0)
    with torch.no_grad():
        for gain in (net.gain, net.inverse_gain):
            for p in gain.parameters():
                p.normal_(std=0.03)
    return net


@pytest.mark.parametrize(
    "steps", [QuantSteps(), QuantSteps(150), QuantSteps(96, OFFSETS)]
)
def test_a_file_decodes_to_what_was_measured(net, steps):
    size = (64, 128)
    y = net.analyze(torch.rand(1, 3, *size))
    measured = net.code_latent(y, [steps])["y_hat"]
    strings = net.encode_latent(y, [steps]).strings
    decoded, _ = net.decode_latent(strings, size, [steps])
    assert torch.equal(decoded, measured) and decoded.any()


def test_they_move_with_the_step_and_not_at_1(net):
    y = torch.randn(1, net.M, 4, 8)
    for steps, same in (
        (None, True),
        ([QuantSteps()], True),
        ([QuantSteps(96)], False),
    ):
        for gain in (net.gain, net.inverse_gain):
            out = gain(y, gain.coarseness(y, steps))
            constant = 0 if gain.shift is None else 10 * gain.shift[0, :, None, None]
            assert torch.equal(out, y + constant) == same
    steps = [QuantSteps(96, OFFSETS)]
    out = net.gain(y, net.gain.coarseness(y, steps)) != y
    coarse = torch.from_numpy(OFFSETS == 0)
    assert out[..., coarse].all() and not out[..., ~coarse].any()


def test_they_learn_and_no_gradient_is_missing(net):
    net.train()
    y = net.analyze(torch.rand(1, 3, 64, 128))
    for steps in ([QuantSteps()], [QuantSteps(96)]):
        net.zero_grad()
        out = net.code_latent(y.detach(), steps)
        rate = sum(-p.log2().sum() for p in out["likelihoods"].values())
        (rate + out["y_hat"].square().sum()).backward()
        constant, *curve = net.inverse_gain.shift.grad
        curves = [net.gain.scale.grad, net.inverse_gain.scale.grad, *curve]
        assert constant.any()
        assert all(bool(grad.any()) == (steps[0].base != 0) for grad in curves)
