from pathlib import Path

import numpy as np
import pytest
import torch
from compressai.models import MeanScaleHyperprior
from torch import nn

import compressai_hm
from compressai_hm import HM_MODELS, HumanMachineMixin, decode, encode, picture_bits

from ..families import busy, families, tiny

WEIGHTS = Path(compressai_hm.__file__).parent / "zoo/weights"


@pytest.fixture
def trained_codec():
    weights = torch.load(WEIGHTS / "demo_codec.pth", weights_only=True)["state_dict"]
    return HM_MODELS["hm-mbt2018-mean"].from_state_dict(weights).eval()


@pytest.fixture
def drawn_picture():
    y, x = torch.meshgrid(torch.arange(128.0), torch.arange(192.0), indexing="ij")
    waves = (torch.sin(x / f + y / g) for f, g in ((9, 31), (5, 7), (40, 6)))
    return torch.stack([w / 4 + 0.5 for w in waves])[None]


@families
@pytest.mark.parametrize("size", [(1, 1), (37, 70), (64, 64)])
def test_any_size_is_coded_and_decoded(name, size):
    net = busy(name)
    x = torch.rand(2, 3, *size)
    coded = net.compress(x)
    assert coded["shape"] == size
    assert [len(part) for part in coded["strings"]] == [2, 2]
    assert all(isinstance(s, bytes) for part in coded["strings"] for s in part)
    decoded = net.decompress(**coded)
    assert decoded["x_hat"].shape == decoded["x_bar"].shape == x.shape
    assert decoded["x_hat"].min() >= 0 and decoded["x_hat"].max() <= 1
    for view, picture in decoded.items():
        assert torch.equal(net(x)[view].clamp(0, 1), picture)


@families
def test_forward_gives_both_views_and_the_likelihoods(name):
    net = tiny(name).train()
    out = net(torch.rand(2, 3, 65, 64))
    assert set(out) == {"x_hat", "x_bar", "likelihoods"}
    assert torch.equal(out["x_hat"], out["x_bar"])  # the identity at start
    assert out["x_hat"].shape == (2, 3, 65, 64)
    assert out["likelihoods"]["y"].shape[-2:] == (8, 4)
    assert out["likelihoods"]["z"].shape[-2:] == (2, 1)


@families
def test_weights_and_tables_come_back(name):
    net = busy(name)
    x = torch.rand(1, 3, 64, 64)
    nn.init.normal_(net.g_t.layers[-1].weight, std=0.1)
    coded = net.compress(x)
    again = type(net).from_state_dict(net.state_dict()).eval()
    again.update = None  # the tables are the stored ones
    for view, picture in net.decompress(**coded).items():
        assert torch.equal(again.decompress(**coded)[view], picture)


@families
def test_a_base_checkpoint_loads(name):
    net = tiny(name)
    base = {k: v for k, v in net.state_dict().items() if not k.startswith("g_t.")}
    alone = type(net).from_state_dict(base)
    assert isinstance(alone.g_t, nn.Identity)
    fresh = type(net).from_state_dict(base, g_t_width=4)
    assert fresh.g_t.width == 4
    nn.init.normal_(net.g_t.layers[-1].weight)
    net.load_state_dict(base)
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(net.g_t(x), x)


def test_half_a_g_t_is_an_error():
    net = tiny("hm-mbt2018-mean")
    weights = net.state_dict()
    del weights["g_t.layers.6.bias"]
    with pytest.raises(RuntimeError, match="layers.6.bias"):
        type(net).from_state_dict(weights)
    with pytest.raises(RuntimeError, match="layers.6.bias"):
        net.load_state_dict(weights)


def test_only_the_views_asked_for_are_computed():
    net = busy("hm-mbt2018-mean")
    coded = net.compress(torch.rand(1, 3, 64, 64))
    net.g_t = None
    assert set(net.decompress(**coded, views=("human",))) == {"x_hat"}
    with pytest.raises(ValueError, match="robot"):
        net.decompress(**coded, views=("robot",))


def test_g_t_reads_the_unclamped_picture():
    net = busy("hm-mbt2018-mean", g_t_width=0)
    net.g_t = nn.Hardtanh(-10, 10)
    seen = []
    net.g_t.register_forward_hook(lambda m, args, out: seen.append(args[0]))
    with torch.no_grad():
        net.g_s[-1].bias += 5
    out = net.decompress(**net.compress(torch.rand(1, 3, 64, 64)))
    assert seen[0].max() > 4
    assert out["x_bar"].max() <= 1


@pytest.mark.parametrize(
    ("x", "named"),
    [
        (torch.full((1, 3, 8, 8), 1.5), "1.5"),
        (torch.full((1, 3, 8, 8), -0.5), "-0.5"),
        (torch.full((1, 3, 8, 8), float("nan")), "192 values of 192 that are nan"),
        (torch.rand(1, 1, 8, 8), r"\(1, 1, 8, 8\)"),
        (torch.rand(3, 8, 8), "8, 8"),
        (torch.rand(1, 3, 0, 8), r"\(1, 3, 0, 8\)"),
    ],
)
def test_bad_pictures_are_named(x, named):
    net = tiny("hm-mbt2018-mean").eval()
    for run in (net, net.compress):
        with pytest.raises(ValueError, match=named):
            run(x)


@pytest.mark.parametrize(
    ("x", "named"),
    [
        (np.zeros((1, 3, 8, 8), np.float32), "numpy.ndarray.*from_numpy"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "uint8.*255"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.bool), "bool"),
        ([[0.5]], "list"),
    ],
)
def test_pictures_of_another_type_are_named(x, named):
    net = tiny("hm-mbt2018-mean").eval()
    for run in (net, net.compress, lambda x: encode(net, x)):
        with pytest.raises(TypeError, match=named):
            run(x)


@pytest.mark.parametrize("train", [True, False])
@families
def test_the_rate_leaves_the_quantiles_alone(name, train):
    net = tiny(name).train(train)
    out = net(torch.rand(1, 3, 64, 64))
    (
        sum(p.log().sum() for p in out["likelihoods"].values()) + out["x_bar"].sum()
    ).backward()
    quantiles = [p for n, p in net.named_parameters() if n.endswith("quantiles")]
    assert all(q.requires_grad and q.grad is None for q in quantiles)
    net.aux_loss().backward()
    assert all(q.grad is not None for q in quantiles)


@pytest.mark.parametrize(
    "name", ["hm-bmshj2018-hyperprior", "hm-mbt2018-mean", "hm-mbt2018"]
)
def test_ste_rounds_y(name):
    net = busy(name).train()
    y = net.analyze(torch.rand(1, 3, 64, 64)).detach().requires_grad_()
    means = []
    net.gaussian_conditional.register_forward_pre_hook(
        lambda module, args, kwargs: means.append(kwargs.get("means", torch.zeros(1))),
        with_kwargs=True,
    )

    def code():
        torch.manual_seed(0)
        return net.code_latent(y)

    noisy = code()
    net.quantizer = "ste"
    rounded = code()
    symbols = rounded["y_hat"] - means[-1]
    assert (symbols - symbols.round()).abs().max() < 1e-3 and symbols.any()
    assert (rounded["y_hat"] - y).abs().max() < 0.501
    assert (rounded["y_hat"] - noisy["y_hat"]).abs().max() > 0.1
    with torch.no_grad():
        coded = net.eval().code_latent(y)["likelihoods"]
    net.train()
    for key, p in coded.items():
        assert torch.allclose(rounded["likelihoods"][key], p)
    net.requires_grad_(False)
    (own,) = torch.autograd.grad(rounded["y_hat"].sum(), y, retain_graph=True)
    if "hyperprior" in name:  # straight through; the others' means depend on y
        assert torch.equal(own, torch.ones_like(y))
    assert own.any()
    assert torch.autograd.grad(rounded["likelihoods"]["y"].log().sum(), y)[0].any()


def test_the_loss_says_what_cannot_be_coded():
    """As where float16 overflows, and a scaler of losses skips the step."""
    net = busy("hm-mbt2018").train()
    net.quantizer = "ste"
    y = torch.full((1, net.M, 4, 4), float("inf"))
    likelihoods = net.code_latent(y)["likelihoods"]
    assert not sum(-p.log2().sum() for p in likelihoods.values()).isfinite()


def test_double_precision_throughout():
    net = busy("hm-mbt2018-mean").double()
    x = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    decoded = net.decompress(**net.compress(x))
    assert decoded["x_hat"].dtype == torch.float64
    assert torch.allclose(decoded["x_hat"], net(x)["x_hat"].clamp(0, 1))


@families
def test_autocast_leaves_the_stream_alone(name):
    net = busy(name)
    y = net.analyze(torch.rand(1, 3, 64, 64)).detach()
    net.analyze = lambda x: y  # g_a may differ
    plain = net.compress(torch.rand(1, 3, 64, 64))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert net.compress(torch.rand(1, 3, 64, 64)) == plain


def test_entropy_arithmetic_is_float32_under_autocast():
    net = tiny("hm-mbt2018-mean")
    x = torch.rand(1, 3, 64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = net.code_latent(net.analyze(x).bfloat16())
    assert all(p.dtype == torch.float32 for p in out["likelihoods"].values())
    assert out["y_hat"].dtype == torch.float32


@families
def test_padding_costs_nothing(name):
    """A padded batch is charged what its pictures' latents would cost alone."""
    net = busy(name)
    sizes = [(50, 33), (100, 70)]
    batch = torch.rand(2, 3, 100, 130)
    with torch.no_grad():
        likelihoods = net(batch)["likelihoods"]
        bits = picture_bits(likelihoods, sizes)
        for i, (h, w) in enumerate(sizes):
            h, w = -(-h // 64) * 64, -(-w // 64) * 64
            k, c = h // 64, w // 64
            alone = {
                "y": likelihoods["y"][i : i + 1, :, : 4 * k, : 4 * c],
                "z": likelihoods["z"][i : i + 1, :, :k, :c],
            }
            assert bits[i] == pytest.approx(float(picture_bits(alone, [(h, w)])[0]))
        assert (picture_bits(likelihoods, [(100, 130)] * 2) > bits).all()


def test_the_estimate_is_the_size_of_the_stream(trained_codec, drawn_picture):
    net, x = trained_codec, drawn_picture
    with torch.no_grad():
        bits = float(picture_bits(net(x)["likelihoods"], [tuple(x.shape[-2:])]))
    real = 8 * sum(len(s) for part in net.compress(x)["strings"] for s in part)
    assert real > 3000  # else it proves nothing
    assert real == pytest.approx(bits, rel=0.005, abs=8 * 16)


def test_a_trained_codec_shows_the_picture(trained_codec, drawn_picture):
    decoded = trained_codec.decompress(**trained_codec.compress(drawn_picture))
    mse = (decoded["x_hat"] - drawn_picture).square().mean()
    assert -10 * mse.log10() > 24


def test_a_codec_of_ones_own_becomes_an_hm_model():
    from compressai.registry import MODELS, register_model

    @register_model("hm-mine")
    class HMMine(HumanMachineMixin, MeanScaleHyperprior):
        pass

    net = MODELS["hm-mine"](8, 12, g_t_width=4).eval()
    out = net.decompress(**net.compress(torch.rand(1, 3, 5, 5)))
    assert out["x_bar"].shape == (1, 3, 5, 5)
    del MODELS["hm-mine"]


def test_a_codec_of_another_stride_is_refused():
    class Coarse(HumanMachineMixin, MeanScaleHyperprior):
        pass

    net = Coarse(16, 24, g_t_width=0).eval()
    net.g_a = net.g_a[2:]  # one stride less
    net.g_a[0] = nn.Identity()
    net.g_a[1] = nn.Conv2d(3, 16, 5, 2, 2)
    with pytest.raises(TypeError, match="g_a turns .* has stride 16"):
        net.compress(torch.rand(1, 3, 64, 64))


def test_inference_mode_codes_too():
    with torch.inference_mode():
        net = busy("hm-mbt2018")
        x = torch.rand(1, 3, 64, 64)
        assert net.decompress(**net.compress(x))["x_hat"].shape == x.shape


def test_weights_that_give_nan_are_an_error():
    net = busy("hm-mbt2018")
    with torch.no_grad():
        net.g_a[0].weight[0] = float("nan")
    for run in (net, net.compress):
        with pytest.raises(ValueError, match="not finite"):
            run(torch.rand(1, 3, 64, 64))


def test_broken_synthesis_is_an_error_and_no_picture():
    for part in ("g_s", "g_t"):
        net = busy("hm-mbt2018-mean")
        coded, data = net.compress(x := torch.rand(1, 3, 64, 64)), encode(net, x)
        with torch.no_grad():
            list(net.get_submodule(part).parameters())[-1].fill_(float("nan"))
        with pytest.raises(ValueError, match=f"not finite: the weights of.* {part}"):
            net.decompress(**coded)
        with pytest.raises(ValueError, match="not finite"):
            decode(net, data)
