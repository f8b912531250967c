import copy
import pickle
import subprocess
import sys

import pytest
import torch
from compressai.layers import GDN, GDN1
from torch import nn

from compressai_hm import decode, encode
from compressai_hm.runtime import tiles
from compressai_hm.runtime.precision import keep_precise, without_tf32

from ..families import busy, families, tiny

HALF = (torch.bfloat16, torch.float16)


def loud(name):
    """Its y reaches hundreds, which bfloat16 rounds to halves and worse."""
    net, x = tiny(name).eval(), torch.rand(1, 3, 128, 192)
    with torch.no_grad():
        convs = [m for m in net.g_a.modules() if isinstance(m, nn.Conv2d)]
        first = max(i for i, m in enumerate(convs) if max(m.stride) > 1)
        convs[first].weight *= 400 / net.analyze(x).abs().max()
        convs[first].bias.zero_()
    return net, x


@families
@pytest.mark.parametrize("half", HALF, ids=str)
@pytest.mark.parametrize("training", [False, True])
def test_autocast_does_not_round_y(name, half, training):
    net, x = loud(name)
    net.train(training)
    keys = list(net.state_dict())
    with torch.no_grad():
        exact = net.analyze(x)
        with torch.autocast("cpu", half):
            y = net.analyze(x)
    assert exact.abs().max() > 100 and y.dtype == torch.float32
    large = y[y.abs() > 64]
    assert len(large) > 20
    # Numbers of bfloat16 are whole or half there, those of float16 in sixteenths.
    assert ((large * 16) % 1 != 0).float().mean() > 0.5
    assert list(net.state_dict()) == keys


@families
def test_without_autocast_nothing_changes(name):
    net, x = loud(name)
    with torch.no_grad():
        assert torch.equal(net.analyze(x), net.g_a(x))


def test_tiles_are_as_precise(monkeypatch):
    net, x = loud("hm-mbt2018-mean")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        whole = net.analyze(x)
        monkeypatch.setattr(tiles, "WHOLE", 2**12)
        monkeypatch.setattr(tiles, "TILE", 64)
        y = net.analyze(x)
    assert y.dtype == torch.float32
    assert torch.allclose(y, whole, rtol=1e-3, atol=1e-3)


def test_a_transform_of_another_kind_is_computed_in_full():
    class Own(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x)

    net, x = loud("hm-mbt2018-mean")
    net.g_a = Own(net.g_a)
    with torch.no_grad():
        exact = net.analyze(x)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(net.analyze(x), exact)


@pytest.mark.parametrize("kind", [GDN, GDN1])
@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("half", HALF, ids=str)
def test_gdn_of_large_values(kind, inverse, half):
    gdn = kind(8, inverse=inverse)
    keep_precise(gdn)
    x = (torch.randn(2, 8, 16, 16) * 300).to(half).requires_grad_()
    exact = copy.deepcopy(gdn)(x.detach().float())
    with torch.autocast("cpu", half):
        out = gdn(x)
    assert torch.equal(out, exact)
    out.mean().backward()
    assert x.grad.isfinite().all() and gdn.gamma.grad.isfinite().all()


def test_gdn_is_precise_in_hm_models_alone():
    script = (
        "from compressai.layers import GDN; own = GDN.forward; import compressai_hm"
    )
    script += "; assert GDN.forward is own"
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True)
    net = tiny("hm-bmshj2018-hyperprior")
    own = GDN(len(net.g_s[1].beta))
    nn.init.constant_(own.gamma, 1)
    keys = list(net.state_dict())
    net.g_s[1] = own  # of one's own
    y = 300 * torch.randn(1, net.g_s[0].in_channels, 4, 4)
    with torch.no_grad():
        exact = own(net.g_s[0](y))
        seen = []
        hook = own.register_forward_hook(lambda *args: seen.append(args[-1]))
        with torch.autocast("cpu", torch.float16):
            net.synthesize(y, (64, 64), ("human",))
        hook.remove()
    assert torch.allclose(seen[0].float(), exact, atol=0.01)
    assert isinstance(net.g_s[1], GDN) and list(net.state_dict()) == keys
    assert type(pickle.loads(pickle.dumps(net.g_s[1]))) is type(net.g_s[1])


def seen_by(net, run):
    """Whether TF32 was on, in each transform of the encoder and the decoder."""
    seen = {}
    for part in ("g_a", "h_a", "g_s"):
        getattr(net, part)[0].register_forward_hook(
            lambda *_, part=part: seen.update({part: torch.backends.cudnn.allow_tf32})
        )
    run()
    return seen


@pytest.fixture(params=[True, False])
def default(request):
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = request.param
    yield request.param
    torch.backends.cudnn.allow_tf32 = before


def test_coding_takes_no_tf32(default):
    net, x = tiny("hm-mbt2018-mean").eval(), torch.rand(1, 3, 64, 64)
    runs = (
        lambda: net(x),
        lambda: net.decompress(**net.compress(x)),
        lambda: decode(net, encode(net, x)),
    )
    for run in runs:
        seen = seen_by(net, run)
        assert seen == {"g_a": False, "h_a": False, "g_s": default}
        assert torch.backends.cudnn.allow_tf32 == default
    net.tf32 = True
    assert set(seen_by(net, runs[0]).values()) == {default}
    net.tf32 = False
    assert set(seen_by(net.train(), runs[0]).values()) == {default}


def test_tf32_comes_back_after_an_error_and_the_last_thread(default):
    net, x = tiny("hm-mbt2018-mean").eval(), torch.rand(1, 3, 64, 64)
    net.g_a[0].register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        net(x)
    assert torch.backends.cudnn.allow_tf32 == default
    first, second = without_tf32(), without_tf32()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not torch.backends.cudnn.allow_tf32
    second.__exit__(None, None, None)
    assert torch.backends.cudnn.allow_tf32 == default


@pytest.mark.skipif(
    not hasattr(torch.backends.cudnn, "conv"), reason="torch has one switch"
)
def test_the_newer_switch_of_torch(default):
    conv = torch.backends.cudnn.conv
    before = conv.fp32_precision
    conv.fp32_precision = "ieee" if default else "tf32"
    with without_tf32():
        inside = conv.fp32_precision
    after = conv.fp32_precision
    conv.fp32_precision = before
    assert (inside, after) == ("ieee", "ieee" if default else "tf32")


@pytest.mark.gpu
@families
def test_a_gpus_symbols_are_nearly_a_cpus(name):
    net, x = busy(name), torch.rand(1, 3, 256, 256)
    with torch.no_grad():
        own = net.encode_latent(net.analyze(x)).symbols[0]
        gpu = copy.deepcopy(net).cuda()
        found = gpu.encode_latent(gpu.analyze(x.cuda())).symbols[0]
    assert (found != own).mean() < 0.01
