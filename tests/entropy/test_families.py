"""Families give CompressAI's own training, and say what they need."""

import copy

import numpy as np
import pytest
import torch
from compressai.models import FactorizedPrior, MeanScaleHyperprior

from compressai_hm import HumanMachineMixin, QuantSteps, picture_bits
from compressai_hm.entropy import step_values
from compressai_hm.entropy.families import FAMILIES, MeanScaleFamily, find_family
from compressai_hm.models.gain import GainsMixin
from compressai_hm.models.human_machine import QUANTIZERS
from compressai_hm.zoo import load_model

from ..families import NAMES, busy, families, tiny


def compressai_forward(net):
    for base in type(net).__mro__:
        if base.__dict__.get("forward") in FAMILIES:
            return base.forward


@pytest.mark.parametrize("name", [name for name in NAMES if name != "hm-compact"])
def test_training_is_compressais_own(name):
    net = busy(name, g_t_width=0).train()
    twin, x = copy.deepcopy(net), torch.rand(2, 3, 64, 128)
    results = []
    for forward, model in ((compressai_forward(net), twin), (type(net).forward, net)):
        torch.manual_seed(0)
        out = forward(model, x)
        rate = sum(-p.log2().sum() for p in out["likelihoods"].values())
        (rate + 1e4 * (out["x_hat"] - x).square().sum()).backward()
        results.append(out)
    expected, found = results
    assert set(found["likelihoods"]) == {"y", "z"}
    for part, likelihoods in expected["likelihoods"].items():
        assert torch.equal(found["likelihoods"][part], likelihoods)
    assert torch.equal(found["x_hat"], expected["x_hat"])
    own = dict(net.named_parameters())
    moved = 0
    for key, p in twin.named_parameters():
        if key.endswith("quantiles"):  # CompressAI has zeros where "ste" cancels them
            assert own[key].grad is None and (p.grad is None or not p.grad.any())
            continue
        if key.split(".")[0] in ("gain", "inverse_gain"):  # nothing at a step of 1
            assert p.grad is None and not own[key].grad.any()
            continue
        assert torch.equal(own[key].grad, p.grad), key
        moved += bool(p.grad.any())
    assert moved > 20


@families
def test_at_steps_of_1_training_is_the_same(name):
    """For latent codecs this is the code that knows other steps."""
    net, x = busy(name).train(), torch.rand(2, 3, 64, 128)
    results = []
    for steps in (None, [QuantSteps()] * 2):
        torch.manual_seed(0)
        y = net.analyze(x)
        out = net.code_latent(y, steps)
        rate = sum(-p.log2().sum() for p in out["likelihoods"].values())
        loss = rate + 1e4 * out["y_hat"].square().sum()
        results.append([out["y_hat"], *out["likelihoods"].values()])
        own = [p for p in net.parameters() if p.requires_grad]
        grads = torch.autograd.grad(loss, [y, *own], allow_unused=True)
        results[-1] += [g for g in grads if g is not None]
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-4 * float(a.abs().max()))


@families
@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_noise_is_as_wide_as_the_step_by_place(name, quantizer):
    net = tiny(name).train()
    if net.quantizer == "ste" != quantizer:
        pytest.skip("its family trains on symbols and refuses noise")
    net.quantizer = quantizer
    offsets = (np.arange(32) % 9 - 4).reshape(4, 8).astype(np.int8)
    steps = [QuantSteps(0, offsets), QuantSteps(150), QuantSteps(-90)]
    y = 3 * torch.randn(3, net.analyze(torch.rand(1, 3, 64, 128)).shape[1], 4, 8)
    error = (net.code_latent(y, steps)["y_hat"] - y).abs().amax(1, keepdim=True)
    width = error / step_values(steps, (4, 8))
    assert width.min() > 0.3 and width.max() <= 0.5 + 1e-4


@pytest.mark.parametrize("steps", [0.5, 1.0, 3.0, "map"])
def test_training_with_ste_sees_what_is_coded(steps):
    """In the rate and in y_hat, but for what floating point rounds otherwise."""
    net = load_model("hm-compact", 4, pretrained=True).eval()
    size, rng = (256, 320), np.random.default_rng(0)
    noise = sum(np.kron(rng.standard_normal((256 // s, 320 // s)), np.ones((s, s)))
                for s in (1, 2, 4, 8, 16, 32))  # fmt: skip
    x = torch.from_numpy(0.5 + 0.08 * noise).clamp(0, 1).float().expand(1, 3, -1, -1)
    if steps == "map":
        offsets = np.zeros((16, 20), np.int8)
        offsets[4:9, 3:12] = -6
        steps = QuantSteps(150, offsets)
    steps = [QuantSteps.nearest(steps, size)]
    y = net.analyze(x)
    y = net.gain(y, net.gain.coarseness(y, steps)).detach()
    between_gains = super(GainsMixin, net)
    coded = between_gains.code_latent(y, steps)
    net.quantizer = "ste"
    net.train()
    trained = between_gains.code_latent(y, steps)

    def bits(out):
        return float(picture_bits(out["likelihoods"], [size]))

    # "moving" has symbols that are not rounded, around the means of the coder.
    moving = find_family(net).training(y, steps, coded["y_hat"])
    expected, width = bits(coded), step_values(steps, y.shape[-2:])
    for out, tolerance in ((trained, 3e-3), (moving, 0.03)):
        assert bits(out) == pytest.approx(expected, rel=tolerance)
        error = (out["y_hat"] - coded["y_hat"]).abs() / width
        assert (error < 0.01).float().mean() > 0.99


@families
@pytest.mark.parametrize("steps", [None, [QuantSteps(150)]])
def test_gradients_are_of_what_is_coded(name, steps):
    """To the symbol: with the coder's own contexts and its z."""
    net = busy(name).eval()
    y = net.analyze(torch.rand(1, 3, 64, 128)).detach().requires_grad_()
    coded = net.code_latent(y, steps)
    moving = net.code_latent(y, steps, gradients=True)
    assert torch.equal(moving["y_hat"], coded["y_hat"])
    for key, p in coded["likelihoods"].items():
        assert torch.allclose(moving["likelihoods"][key], p, rtol=1e-5)
    assert moving["rounding"].abs().max() < 0.51
    for part in (moving["y_hat"], *(p.log() for p in moving["likelihoods"].values())):
        (gradient,) = torch.autograd.grad(part.sum(), y, retain_graph=True)
        assert gradient.abs().max() > 0
    if steps is None:
        known, other = (
            find_family(net).training(y, coded=context)["y_hat"]
            for context in (coded["y_hat"], torch.zeros_like(y))
        )
        off, far = ((own - coded["y_hat"]).abs() for own in (known, other))
        assert (off < 1e-3).float().mean() > 0.999
        if name == "hm-mbt2018":
            assert far.mean() > 5 * off.mean()


def test_means_are_trained_by_what_is_decoded_of_a_0():
    net = tiny("hm-mbt2018-mean").train()
    net.quantizer = "ste"
    y = torch.zeros(1, net.M, 4, 4)
    net.code_latent(y, [QuantSteps(200)])["y_hat"].sum().backward()
    assert net.h_s[-1].bias.grad[net.M :].abs().min() > 0


@families
def test_quantized_medians_do_not_reach_the_quantiles(name):
    """Also where the bottleneck alone is in eval mode."""
    net = busy(name).train()
    for key, module in net.named_modules():
        if key.endswith("entropy_bottleneck"):
            module.eval()
    net(torch.rand(1, 3, 64, 64))["x_hat"].sum().backward()
    quantiles = [p for n, p in net.named_parameters() if n.endswith("quantiles")]
    assert quantiles and all(q.grad is None for q in quantiles)


class Shifted(MeanScaleHyperprior):
    """Codes its latent in a way of its own."""

    def forward(self, x):
        y = self.g_a(x)
        z_hat, p_z = self.entropy_bottleneck(self.h_a(3 * y))
        scales, means = self.h_s(z_hat).chunk(2, 1)
        y_hat, p_y = self.gaussian_conditional(y, scales, means=means)
        return {"x_hat": self.g_s(y_hat), "likelihoods": {"y": p_y, "z": p_z}}


def test_a_codec_of_no_known_family_hears_what_it_must_offer():
    for base in (Shifted, FactorizedPrior):

        class Mine(HumanMachineMixin, base):
            pass

        with pytest.raises(TypeError, match=r"entropy_family.*hyper_analysis.*groups"):
            Mine(16, 24)


def test_a_codec_may_offer_a_family_of_its_own():
    class ShiftedFamily(MeanScaleFamily):
        def hyper_analysis(self, y, steps=None):
            return self.model.h_a(3 * y)

    class Mine(HumanMachineMixin, Shifted):
        entropy_family = ShiftedFamily

    net, x = Mine(16, 24, g_t_width=0), torch.rand(1, 3, 64, 64)
    out = []
    for forward in (Shifted.forward, Mine.forward):
        torch.manual_seed(0)
        out.append(forward(net, x)["likelihoods"])
    assert all(torch.equal(out[0][part], out[1][part]) for part in ("y", "z"))
    net.eval()
    with torch.no_grad():
        net.g_a[-1].weight *= 100
    views = net.decompress(**net.compress(x))
    assert torch.equal(views["x_hat"], net(x)["x_hat"].clamp(0, 1))


def test_parts_of_latent_codecs_with_a_forward_of_their_own_are_refused():
    net = busy("hm-cheng2020-anchor-checkerboard")

    class Other(type(net.latent_codec["hyper"])):
        def forward(self, y):
            return super().forward(2 * y)

    net.latent_codec["hyper"].__class__ = Other
    for run in (net.eval(), net.compress, net.train()):
        with pytest.raises(TypeError, match="Other"):
            run(torch.rand(1, 3, 64, 64))


def test_a_forward_of_the_hm_class_itself_is_no_known_one():
    class Mine(HumanMachineMixin, MeanScaleHyperprior):
        def forward(self, x):
            return Shifted.forward(self, x)

    with pytest.raises(TypeError, match=r"Mine\.forward"):
        Mine(16, 24)


def test_helpers_of_latent_codecs_of_ones_own_are_refused():
    net = busy("hm-elic2022")
    net.latent_codec["y"].merge_y = lambda *args: torch.cat(args, 1)
    with pytest.raises(TypeError, match="ChannelGroupsLatentCodec"):
        net.eval()(torch.rand(1, 3, 64, 64))
