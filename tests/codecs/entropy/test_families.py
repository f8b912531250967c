"""Families give CompressAI's own training, and say what they need."""

import copy

import pytest
import torch
from compressai.models import FactorizedPrior, MeanScaleHyperprior

from compressai_hm.codecs import HumanMachineMixin
from compressai_hm.codecs.entropy.families import FAMILIES, MeanScaleFamily

from ..families import busy, families


def compressai_forward(net):
    for base in type(net).__mro__:
        if base.__dict__.get("forward") in FAMILIES:
            return base.forward


@families
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
        assert torch.equal(own[key].grad, p.grad), key
        moved += bool(p.grad.any())
    assert moved > 20


@families
def test_quantised_medians_do_not_reach_the_quantiles(name):
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
        def hyper_analysis(self, y):
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


def test_mixed_quantisation_of_latent_codecs_is_their_own():
    net = busy("hm-elic2022").train()
    net.mixed_quantisation = True
    with pytest.raises(TypeError, match="quantizer='ste'"):
        net(torch.rand(1, 3, 64, 64))
