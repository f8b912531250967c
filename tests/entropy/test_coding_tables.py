"""What is coded is of the present weights; and coding changes no model."""

import contextlib
import copy
import os
import pickle
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from compressai.entropy_models import GaussianConditional
from compressai.zoo import image_models
from torch import nn
from torch.nn.utils import (
    parameters_to_vector,
    parametrize,
    prune,
    vector_to_parameters,
)
from torch.optim.swa_utils import AveragedModel

from compressai_hm import decode, encode, make_checkpoint
from compressai_hm.entropy import find_family
from compressai_hm.entropy.coding_tables import (
    _sum_bits,
    default_scale_table,
    digest_family,
    entropy_models,
    is_table,
)
from compressai_hm.zoo import load_checkpoint

from ..families import busy, drawn_latents, families, portable, tiny

MEAN = "hm-mbt2018-mean"


def fingerprint(net):
    return net.latent_coder().fingerprint()


def fresh(net):
    """A model of the same weights, with tables of its own."""
    weights = {k: v for k, v in net.state_dict().items() if not is_table(k)}
    return type(net).from_state_dict(copy.deepcopy(weights)).eval()


def by_data(net):
    net.h_s[0].weight.data.mul_(1.25)


def by_vector(net):
    vector = parameters_to_vector(net.parameters())
    vector_to_parameters(vector * 1.0625, net.parameters())


def by_fused_optimizer(net):
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    torch.optim.Adam(net.parameters(), 1e-2, fused=True).step()


def by_numpy(net):
    net.entropy_bottleneck.biases[0].detach().numpy()[:] += 3


def by_another_module(net):
    net.h_s = busy(MEAN).h_s


def by_one_bit(net):
    net.h_s[-1].bias.data[3] += 2**-6


@pytest.mark.parametrize(
    "change",
    [by_data, by_vector, by_fused_optimizer, by_numpy, by_another_module, by_one_bit],
)
@pytest.mark.parametrize("updated", [False, True])
def test_what_is_coded_is_of_the_present_weights(change, updated):
    net, x = busy(MEAN), torch.rand(1, 3, 64, 64)
    if updated:
        net.update()
    before = fingerprint(net)
    change(net)
    assert fingerprint(net) == fingerprint(fresh(net)) != before
    data = encode_unregistered(net, x)
    reader = type(net).from_state_dict(net.state_dict()).eval()
    assert data == encode_unregistered(reader, x)
    assert fingerprint(reader) == fingerprint(net)


def encode_unregistered(net, x):
    return net.compress(x)["strings"]


def test_a_change_of_any_entropy_weight_is_seen():
    """Swapped numbers, too: sums by place tell them apart."""
    net = portable("hm-mbt2018")

    def digest():
        return digest_family(find_family(net), net._scale_tables())

    for p in (net.h_s[2].weight, net.entropy_bottleneck.biases[1]):
        own, on_device = digest(), _sum_bits(p.detach())
        flat = p.data.view(-1)
        i = int((flat != flat[0]).nonzero()[0])
        flat[0], flat[i] = flat[i].clone(), flat[0].clone()
        assert digest() != own
        assert _sum_bits(p.detach()) != on_device
    for change in (
        lambda: net.context_prediction.mask[0, 0].zero_(),
        lambda: setattr(net.h_s[1], "negative_slope", 0.5),
        lambda: setattr(net.entropy_bottleneck, "tail_mass", 1e-6),
    ):
        own = digest()
        change()
        assert digest() != own


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_the_sum_on_other_devices_tells_scaled_weights_apart(dtype):
    x = torch.randn(4096, dtype=torch.float64).to(dtype)
    changed = (x, -x, 2 * x, 4 * x, x / 2, x.flip(0), x.roll(1), x.abs())
    assert len({int(_sum_bits(other)) for other in changed}) == len(changed)


@families
def test_coding_changes_no_model(name):
    net, x = busy(name), torch.rand(1, 3, 64, 64)

    def state():
        tensors = {**dict(net.named_parameters()), **dict(net.named_buffers())}
        modules = {n: (id(m), m.training) for n, m in net.named_modules()}
        versions = {n: t._version for n, t in tensors.items()}
        return {n: t.clone() for n, t in tensors.items()}, modules, versions

    before = state()
    net.decompress(**net.compress(x))
    net(x)
    decode(net, encode(net, x))
    values, *rest = state()
    assert rest == list(before[1:])
    assert all(torch.equal(values[n], t) for n, t in before[0].items())


@families
def test_threads_share_a_model(name):
    net = busy(name)
    sizes = [(64, 64), (40, 130), (65, 20), (100, 70)]
    pictures = [torch.rand(1, 3, *sizes[i % 4]) for i in range(25)]
    twin = copy.deepcopy(net)
    coded = [twin.compress(x) for x in pictures]
    decoded = [twin.decompress(**c)["x_bar"] for c in coded]
    made = threading.Barrier(4)  # so that they meet at the first use

    def work(job):
        i, kind = job
        if i < 2 and kind != "measure":
            made.wait(60)
        if kind == "compress":
            return net.compress(pictures[i])["strings"] == coded[i]["strings"]
        if kind == "decompress":
            return torch.equal(net.decompress(**coded[i])["x_bar"], decoded[i])
        with torch.no_grad():
            return torch.equal(net(pictures[i])["x_bar"].clamp(0, 1), decoded[i])

    kinds = ("compress", "decompress", "measure")
    jobs = [(i, kind) for i in range(len(pictures)) for kind in kinds]
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, jobs, timeout=120))


def test_threads_that_meet_at_the_first_use_build_once(monkeypatch):
    from compressai_hm.entropy import mirrored_tables as tables

    built = []
    real = tables.LatentCoder
    monkeypatch.setattr(
        tables, "LatentCoder", lambda *args: built.append(1) or real(*args)
    )
    net = busy(MEAN)
    with ThreadPoolExecutor(8) as pool:
        coders = set(pool.map(lambda _: id(net.latent_coder()), range(8)))
    assert len(coders) == len(built) == 1


def replica(net):
    """torch.nn.parallel.replicate's, with copies in place of a broadcast to GPUs."""
    modules = list(net.modules())
    place = {id(m): i for i, m in enumerate(modules)}
    replicas = [m._replicate_for_data_parallel() for m in modules]
    for module, own in zip(modules, replicas, strict=True):
        own._former_parameters = {}
        for key, child in module._modules.items():
            own._modules[key] = None
            if child is not None:
                setattr(own, key, replicas[place[id(child)]])
        for key, p in module._parameters.items():
            if p is None:
                own._parameters[key] = None
            else:
                setattr(own, key, p.clone())
                own._former_parameters[key] = getattr(own, key)
        for key, buffer in module._buffers.items():
            setattr(own, key, buffer)
    return replicas[0]


@families
@pytest.mark.parametrize("train", [False, True])
def test_replicas_of_data_parallel(name, train):
    net, x = busy(name).train(train), torch.rand(1, 3, 64, 64)
    with torch.set_grad_enabled(train):
        out = []
        for model in (replica(net), net):  # which of them makes the coder
            torch.manual_seed(0)
            out.append(model(x))
        assert torch.equal(out[0]["x_bar"], out[1]["x_bar"])
        for part in ("y", "z"):
            own, other = (o["likelihoods"][part] for o in out)
            assert torch.equal(own, other)
    if train:
        out[0]["likelihoods"]["y"].sum().backward()
        assert any(p.grad is not None and p.grad.any() for p in net.parameters())
    else:  # and the coder is made once for all
        assert net.latent_coder() is replica(net).latent_coder()


@families
def test_replicas_in_mixed_precision(name):
    net, x = busy(name).train(), torch.rand(1, 3, 64, 64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(replica(net).analyze(x), net.analyze(x))


@pytest.mark.parametrize("buffers", [False, True])
def test_averages_follow_between_evaluations(buffers):
    net, x = busy(MEAN), torch.rand(1, 3, 64, 64)
    average = AveragedModel(net, use_buffers=buffers)
    for _ in range(2):
        net.train()
        with torch.no_grad():
            for p in net.parameters():
                p.add_(0.01 * torch.rand_like(p))
        average.update_parameters(net)
        net.eval()(x)
        average.eval()(x)
        assert fingerprint(average.module) == fingerprint(fresh(average.module))
    assert fingerprint(average.module) != fingerprint(net)


def test_compiled_models_code_the_same_bytes():
    net, x = busy(MEAN), torch.rand(1, 3, 64, 128)
    expected, plain = encode(net, x), net(x)
    compiled = torch.compile(net, backend="eager")
    with torch.no_grad():
        out = compiled(x)
    torch.testing.assert_close(out["x_hat"], plain["x_hat"])
    assert encode(compiled, x) == expected
    views = decode(compiled, expected)
    assert torch.equal(views["x_hat"], plain["x_hat"].clamp(0, 1))
    with pytest.raises(TypeError, match="net must be an HM model, got torch"):
        encode(torch.nn.Linear(1, 1), x)


@families
def test_transforms_export(name):
    net, x = busy(name), torch.rand(1, 3, 64, 128)
    with torch.no_grad():
        y = net.g_a(x)
        for part, example in ((net.g_a, x), (net.g_s, y), (net.g_t, x)):
            exported = torch.export.export(part, (example,)).module()
            torch.testing.assert_close(exported(example), part(example))


def test_a_model_in_another_precision_finds_the_same_tables():
    net = portable(MEAN).bfloat16().float()
    net.update()
    net.entropy_bottleneck._quantized_cdf[0, 2] += 1  # not what this machine makes
    net = type(net).from_state_dict(net.state_dict()).eval()
    own = fingerprint(net)
    for to in (net.double, net.bfloat16, net.float):
        assert fingerprint(to()) == own
    net.double().entropy_bottleneck.biases[0].data += 1e-12
    assert fingerprint(net) != own


def loaded(weights, strict=True, hidden=False):
    net = tiny(MEAN).eval()
    net.hide_tables(hidden)
    with contextlib.suppress(RuntimeError):
        net.load_state_dict(weights, strict=strict)
    return net


@pytest.fixture
def foreign():
    """A state dict with tables that this machine does not make."""
    net = portable(MEAN)
    net.update()
    gaussian = net.gaussian_conditional
    gaussian._quantized_cdf[-1, gaussian._cdf_length[-1] // 2] += 1
    assert fingerprint(net) == fingerprint(fresh(net))  # mirrors are not read
    return net.state_dict()


@pytest.mark.parametrize("hidden", [False, True])
def test_given_tables_stand_for_as_long_as_their_weights(foreign, hidden):
    net = loaded(foreign, hidden=hidden)
    kept = fingerprint(net)
    assert kept != fingerprint(fresh(net))
    for same in (
        copy.deepcopy(net),
        pickle.loads(pickle.dumps(net)),
        net.train().eval(),
        net.double().float(),
        type(net).from_state_dict({**foreign}),
    ):
        assert fingerprint(same) == kept
    bias = net.entropy_bottleneck.biases[0]
    before = bias.detach().clone()
    bias.data += 3
    changed = fingerprint(net)
    assert changed == fingerprint(fresh(net)) != kept
    bias.data.copy_(before)  # as EMAHook swaps weights, and back
    assert fingerprint(net) == kept
    net.update(force=True)
    assert fingerprint(net) == fingerprint(fresh(net))


@pytest.mark.parametrize("strict", [False, True])
def test_tables_without_their_weights_are_not_used(foreign, strict):
    partial = {k: v for k, v in foreign.items() if "matrices.0" not in k}
    net = loaded(partial, strict)
    assert fingerprint(net) == fingerprint(fresh(net))
    again = type(net).from_state_dict(net.state_dict()).eval()
    assert fingerprint(again) == fingerprint(net)


def test_a_state_dict_says_of_which_weights_its_tables_are(tmp_path):
    net = busy(MEAN)
    assert not net.state_dict()["entropy_bottleneck._quantized_cdf"].numel()
    assert net.update() and not net.update()
    net.entropy_bottleneck.biases[0].data += 3
    stale = net.state_dict()
    for saved in ({"state_dict": stale}, {"model": stale, "epoch": 1}, stale):
        torch.save(saved, tmp_path / "net.pth")
        for reader in (
            type(net).from_state_dict(stale),
            load_checkpoint(tmp_path / "net.pth"),
            load_checkpoint(tmp_path / "net.pth", MEAN),
        ):
            assert fingerprint(reader) == fingerprint(net) == fingerprint(fresh(net))
    holder = nn.ModuleDict({"net": net})
    torch.save(holder.state_dict(), tmp_path / "holder.pth")
    other = nn.ModuleDict({"net": tiny(MEAN)})
    other.load_state_dict(torch.load(tmp_path / "holder.pth", weights_only=True))
    assert fingerprint(other["net"]) == fingerprint(net)
    assert net.update() and not net.update()
    expected = fresh(net)
    expected.update()
    for key, value in expected.state_dict().items():
        assert torch.equal(net.state_dict()[key], value), key


def test_averages_by_state_dicts_follow(foreign):
    """As timm's ModelEmaV2 does, in place, from weights that came with tables."""
    net = type(tiny(MEAN)).from_state_dict(foreign)
    average = copy.deepcopy(net).eval()
    for _ in range(2):
        with torch.no_grad():
            for p in net.train().parameters():
                p.add_(0.1 * torch.rand_like(p))
            pairs = zip(
                average.state_dict().values(), net.state_dict().values(), strict=True
            )
            for own, other in pairs:
                own.copy_(0.5 * own + 0.5 * other)
        assert fingerprint(average) == fingerprint(fresh(average))


def test_loads_that_do_not_concern_them_leave_given_tables(foreign):
    net = type(tiny(MEAN)).from_state_dict(foreign).eval()
    kept = fingerprint(net)
    assert kept != fingerprint(fresh(net))
    g_t = {k: v for k, v in net.state_dict().items() if k.startswith("g_t.")}
    net.load_state_dict(g_t, strict=False)
    assert fingerprint(net) == kept
    weights = {k: v for k, v in net.state_dict().items() if not is_table(k)}
    net.load_state_dict(weights)
    assert fingerprint(net) == kept
    both = nn.ModuleDict({"a": tiny(MEAN), "b": tiny(MEAN)})
    both.load_state_dict({f"b.{k}": v for k, v in foreign.items()}, strict=False)
    assert fingerprint(both["b"]) == kept


def test_released_weights_in_half_precision_read_the_files_of_the_others(tmp_path):
    net = image_models["hm-compact"](quality=2, pretrained=True).eval()
    own = fingerprint(net)
    torch.save(make_checkpoint(net.half()), tmp_path / "half.pth")
    assert fingerprint(net) == own
    assert fingerprint(load_checkpoint(tmp_path / "half.pth")) == own
    assert fingerprint(net.float()) == own


def test_weights_are_read_as_a_forward_would():
    net = busy(MEAN)
    before = fingerprint(net)
    prune.l1_unstructured(net.h_s[0], "weight", 0.5)
    pruned = fingerprint(net)
    prune.l1_unstructured(net.h_s[0], "weight", 0.5)
    twice = fingerprint(net)
    assert len({before, pruned, twice}) == 3
    prune.remove(net.h_s[0], "weight")
    assert fingerprint(net) == twice

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(1.0))

        def forward(self, weight):
            return self.scale * weight

    parametrize.register_parametrization(net.h_s[2], "weight", Scaled())
    assert fingerprint(net) == twice
    net.h_s[2].parametrizations.weight[0].scale.data *= 2
    assert fingerprint(net) != twice


def test_a_fork_while_a_coder_is_made_does_not_hang():
    net = busy(MEAN)
    net._coding.lock.acquire()
    try:
        child = os.fork()
        if not child:  # the thread that holds the lock is not here
            signal.alarm(20)
            os._exit(not fingerprint(net))
    finally:
        net._coding.lock.release()
    assert os.waitpid(child, 0)[1] == 0


def test_tables_are_made_under_another_default_device():
    default_scale_table.cache_clear()
    with torch.device("meta"):
        default_scale_table()
    assert fingerprint(busy(MEAN))


def test_tables_that_cannot_be_are_refused(foreign):
    for change in (
        lambda w: w["gaussian_conditional.scale_table"].fill_(float("nan")),
        lambda w: w.update(
            {k: v[:10] for k, v in w.items() if "gaussian" in k and k[-5:] == "table"}
        ),
        lambda w: w.update({k: v[:3] for k, v in w.items() if "bottleneck._" in k}),
    ):
        weights = dict(copy.deepcopy(foreign))  # which says not of what they are
        change(weights)
        net = type(tiny(MEAN)).from_state_dict(weights)
        with pytest.raises(ValueError, match="make (them anew|another) with update"):
            net.latent_coder()


@families
def test_compressais_own_model_loads_the_file(name):
    net = busy(name)
    net.update()
    weights = {k: v for k, v in net.state_dict().items() if not k.startswith("g_t.")}
    base = next(b for b in type(net).__mro__ if b.__module__.startswith("compressai."))
    if name in ("hm-compact", "hm-elic2022"):
        return  # CompressAI's does not find their widths in the weights
    other = base.from_state_dict(weights)
    assert not other.update()
    x = torch.rand(1, 3, 64, 64)
    assert other.compress(x)["strings"]


def test_hidden_tables_stay_out_of_training_frameworks():
    net = portable(MEAN)
    y, z = drawn_latents(net, 2, 2)
    expected = net.latent_coder().encode(y, z).strings
    net.hide_tables()
    assert net.update()
    assert net.latent_coder().encode(y, z).strings == expected
    for model in entropy_models(net).values():
        assert not any(b.numel() for n, b in model._buffers.items() if is_table(n))
    assert not any(map(is_table, net.state_dict()))
    assert all(map(is_table, net.tables_state()))
    net.hide_tables(False)
    net.update()
    assert fingerprint(type(net).from_state_dict(net.state_dict())) == fingerprint(net)


def test_a_scale_table_of_the_constructor_outlives_loading():
    class Mine(type(tiny(MEAN))):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.gaussian_conditional = GaussianConditional([0.2, 1.0, 5.0, 30.0])

    net = Mine(16, 24).bfloat16().float()
    own = fingerprint(net)
    assert own != fingerprint(fresh(busy(MEAN)))
    weights = {k: v for k, v in net.state_dict().items() if not is_table(k)}
    for hidden in (False, True):
        other = Mine(16, 24)
        other.hide_tables(hidden)
        other.load_state_dict(weights, strict=False)
        assert fingerprint(other) == fingerprint(other.bfloat16().float())
        assert len(other.tables_state()["gaussian_conditional.scale_table"]) == 4
    net.update(scale_table=torch.linspace(0.2, 50, 40))
    net.load_state_dict(weights)  # says nothing of scales
    assert fingerprint(net) == own


def test_scale_tables_of_ones_own_are_kept():
    net = busy(MEAN)
    own = fingerprint(net)
    net.update(scale_table=torch.linspace(0.2, 50, 40), force=True)
    changed = fingerprint(net)
    assert changed != own
    again = type(net).from_state_dict(net.state_dict()).eval()
    assert fingerprint(again) == fingerprint(copy.deepcopy(net)) == changed
    for model in (net, again):
        model.hide_tables()
        by_data(model)
    assert fingerprint(net) == fingerprint(again)
    assert net.tables_state()["gaussian_conditional.scale_table"].numel() == 40


def test_tables_do_not_depend_on_the_default_dtype():
    net = busy(MEAN)
    own = fingerprint(net)
    weights = {k: v for k, v in net.state_dict().items() if not is_table(k)}
    torch.set_default_dtype(torch.float64)
    try:
        other = type(net)(16, 24, g_t_width=8, g_t_downscale=2)
        other.load_state_dict(weights)
        assert fingerprint(other.eval()) == own
    finally:
        torch.set_default_dtype(torch.float32)
