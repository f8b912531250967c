import pytest
import torch
from torch import nn

from compressai_hm import AttentionBlock, DynamicAdaptation, ResidualBlock


def kinds(module):
    return [
        f"{type(m).__name__}{m.kernel_size[0] if isinstance(m, nn.Conv2d) else ''}"
        for m in module
    ]


def test_layers_are_the_papers():
    g_t = DynamicAdaptation(width=8)
    rb, ab = "ResidualBlock", "AttentionBlock"
    assert kinds(g_t.layers) == ["Conv2d5", rb, rb, ab, rb, rb, "Conv2d5"]
    assert kinds(ResidualBlock(8).body) == [
        "Conv2d1", "ReLU", "Conv2d3", "ReLU", "Conv2d1",
    ]  # fmt: skip
    attention = AttentionBlock(8)
    assert kinds(attention.trunk) == [rb] * 3
    assert kinds(attention.gate) == [rb] * 3 + ["Conv2d1", "Sigmoid"]


@pytest.mark.parametrize("downscale", [1, 2, 4])
@pytest.mark.parametrize("size", [(1, 1), (17, 30), (32, 32)])
def test_starts_as_the_identity(downscale, size):
    x = torch.rand(2, 3, *size)
    assert torch.equal(DynamicAdaptation(8, downscale)(x), x)


@pytest.mark.parametrize("downscale", [1, 2, 4])
def test_trained_it_changes_the_picture_and_its_input_has_a_gradient(downscale):
    g_t = DynamicAdaptation(8, downscale)
    nn.init.normal_(g_t.layers[-1].weight)
    x = torch.rand(1, 3, 9, 14, requires_grad=True)
    out = g_t(x)
    assert out.shape == x.shape and not torch.allclose(out, x)
    out.square().sum().backward()
    assert x.grad.abs().min() > 0


def test_options_are_read_from_weights():
    weights = DynamicAdaptation(12, 4).state_dict()
    assert DynamicAdaptation.options_from(weights) == {"width": 12, "downscale": 4}


@pytest.mark.parametrize(
    ("args", "named"), [((7, 1), "7"), ((0, 1), "0"), ((8, 3), "3")]
)
def test_bad_options_are_named(args, named):
    with pytest.raises(ValueError, match=named):
        DynamicAdaptation(*args)
