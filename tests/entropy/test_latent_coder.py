"""One stream, the same symbols wherever it is decoded."""

import contextlib
import copy

import numpy as np
import pytest
import torch
from compressai.latent_codecs import RasterScanLatentCodec
from compressai.layers import CheckerboardMaskedConv2d, MaskedConv2d
from torch import nn

from compressai_hm import BitstreamError
from compressai_hm.entropy import latent_coder

from ..families import drawn_latents, families, portable, tiny


@contextlib.contextmanager
def two_threads():
    torch.set_num_threads(2)
    try:
        yield
    finally:
        torch.set_num_threads(1)


@contextlib.contextmanager
def double_by_default():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def in_bfloat16():
    return torch.autocast("cpu", torch.bfloat16)


@families
def test_symbols_are_the_same_alone_in_a_batch_and_under_any_setting(name):
    net = portable(name)
    y, z = drawn_latents(net, 2, 3, batch=4)
    coded = net.latent_coder().encode(y, z)
    assert all(len(np.unique(s)) > 20 for s in coded.symbols)  # else it proves nothing
    y_hat, symbols = net.latent_coder().decode(*coded.strings, (2, 3))
    for found, expected in zip(symbols, coded.symbols, strict=True):
        assert (found == expected).all()
    reloaded = type(net).from_state_dict(copy.deepcopy(net.state_dict())).eval()
    for i in range(4):
        own = [[part[i]] for part in coded.strings]
        for setting in (two_threads, double_by_default, in_bfloat16):
            with setting():
                alone, symbols = reloaded.latent_coder().decode(*own, (2, 3))
            assert (symbols[0] == coded.symbols[i]).all()
            assert torch.equal(alone[0], y_hat[i])


@families
def test_a_batch_gives_the_bytes_of_its_pictures_alone(name):
    net = portable(name)
    y, z = drawn_latents(net, 2, 2, batch=3)
    together = net.latent_coder().encode(y, z).strings
    for i in range(3):
        alone = net.latent_coder().encode(y[i : i + 1], z[i : i + 1]).strings
        assert alone == [[part[i]] for part in together]


@families
def test_measure_is_what_coding_gives(name):
    net = portable(name)
    y, z = drawn_latents(net, 3, 4, batch=2)
    coder = net.latent_coder()
    coded, out = coder.encode(y, z), coder.measure(y, z)
    y_hat, _ = coder.decode(*coded.strings, (3, 4))
    assert torch.equal(out["y_hat"], y_hat.float())
    near = (y_hat - y).abs() <= 0.5 + 2**-14
    assert near.float().mean() > 0.2 if coder.groups[0].skips else near.all()
    assert {k: v.shape for k, v in out["likelihoods"].items()} == {
        "y": y.shape,
        "z": z.shape,
    }
    for i, strings in enumerate(zip(*coded.strings, strict=True)):
        bits = sum(-p[i].log2().sum() for p in out["likelihoods"].values())
        size = sum(map(len, strings))
        assert size > 1000
        assert abs(size - bits / 8) <= 0.005 * bits / 8 + 64


@families
def test_trained_and_reloaded_on_both_sides(name):
    net = tiny(name).train()
    before = net.latent_coder().fingerprint()
    optimizer = torch.optim.SGD(net.parameters(), 1e-3)
    for _ in range(2):
        out = net(torch.rand(1, 3, 64, 64))
        rate = sum(-p.log2().mean() for p in out["likelihoods"].values())
        (rate + net.aux_loss()).backward()
        optimizer.step()
    net.eval()
    y, z = drawn_latents(net, 2, 2)
    coded = net.latent_coder().encode(y, z)
    reader = type(net).from_state_dict(net.state_dict()).eval()
    assert reader.latent_coder().fingerprint() == net.latent_coder().fingerprint()
    assert reader.latent_coder().fingerprint() != before
    _, symbols = reader.latent_coder().decode(*coded.strings, (2, 2))
    assert (symbols[0] == coded.symbols[0]).all()


@families
def test_strips_of_h_s_and_bands_change_nothing(name, monkeypatch):
    net = portable(name)
    y, z = drawn_latents(net, 9, 2)
    whole = net.latent_coder().measure(y, z)["y_hat"]
    monkeypatch.setattr(latent_coder, "_Z_BAND", 4)
    monkeypatch.setattr("compressai_hm.entropy.fixed_point._CHUNK", 1)
    assert torch.equal(net.latent_coder().measure(y, z)["y_hat"], whole)


@families
def test_winograds_way_changes_nothing(name, monkeypatch):
    net = portable(name)
    y, z = drawn_latents(net, 2, 3)
    coded = [net.latent_coder().encode(y, z).strings]
    monkeypatch.setattr("compressai_hm.entropy.fixed_point._LEAST", 0)
    coded.append(net.latent_coder().encode(y, z).strings)
    assert coded[0] == coded[1]


@families
def test_the_fingerprint_follows_every_part(name):
    net = portable(name)
    own = net.latent_coder().fingerprint()
    assert portable(name).latent_coder().fingerprint() == own
    parts = [
        key
        for key, p in net.named_parameters()
        if p.ndim == 4 and not key.startswith(("g_", "h_a", "latent_codec.hyper.h_a"))
    ]
    for key in (parts[0], parts[-1]):
        other = portable(name)
        with torch.no_grad():
            w = other.get_parameter(key)
            w[:, :, 0, 0] += 1.0  # a tap that no mask hides, or one of these
            w[:, :, 0, 1 % w.shape[3]] += 1.0
        assert other.latent_coder().fingerprint() != own
    with torch.no_grad():
        net.g_s.apply(lambda m: [p.add_(1) for p in m.parameters(recurse=False)])
    assert net.latent_coder().fingerprint() == own  # one stream, many readers


def test_streams_of_other_weights_do_not_decode():
    net = portable("hm-mbt2018")
    other = tiny("hm-mbt2018").eval()
    y, z = drawn_latents(net, 2, 2)
    strings = net.latent_coder().encode(y, z).strings
    with pytest.raises(BitstreamError, match="other weights"):
        other.latent_coder().decode(*strings, (2, 2))


@pytest.mark.gpu
@families
def test_a_gpu_decodes_what_a_cpu_coded(name):
    net = portable(name)
    y, z = drawn_latents(net, 2, 3, batch=2)
    coded = net.latent_coder().encode(y, z)
    on_gpu = copy.deepcopy(net).cuda()
    y_hat, symbols = on_gpu.latent_coder().decode(*coded.strings, (2, 3))
    assert y_hat.is_cuda
    for found, expected in zip(symbols, coded.symbols, strict=True):
        assert (found == expected).all()
    again = on_gpu.latent_coder().encode(y.cuda(), z.cuda())
    assert again.strings == coded.strings


def test_unknown_structures_are_named():
    net = portable("hm-cheng2020-anchor-checkerboard")
    net.latent_codec.latent_codec["y"] = RasterScanLatentCodec(
        nn.Identity(), nn.Identity(), nn.Conv2d(1, 1, 5)
    )
    with pytest.raises(TypeError, match="RasterScanLatentCodec"):
        net.latent_coder()


def test_contexts_without_an_order_are_named():
    net = tiny("hm-mbt2018")
    net.context_prediction = MaskedConv2d(24, 48, 7, padding=3)
    with pytest.raises(TypeError, match="no order of coding is known.*7"):
        net.latent_coder()
    net.context_prediction = CheckerboardMaskedConv2d(24, 48, 5, padding=2)
    with pytest.raises(TypeError, match="no order of coding is known"):
        net.latent_coder()
