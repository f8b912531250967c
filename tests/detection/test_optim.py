import contextlib
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import build_optim_wrapper

from . import tiny

ADAM = dict(type="Adam", lr=1e-4, weight_decay=0.1)


def wrapper(model, type="OptimWrapper", optimizer=ADAM, **paramwise):
    return build_optim_wrapper(
        model,
        dict(
            type=type,
            constructor="HumanMachineOptimWrapperConstructor",
            optimizer=optimizer,
            paramwise_cfg=paramwise,
        ),
    )


def test_each_part_that_trains_has_a_group():
    model = tiny.model(detector=tiny.faster_rcnn())
    groups = wrapper(model, lr_mult=dict(g_t=10)).optimizer.param_groups
    assert [g["name"] for g in groups] == ["g_a", "g_s", "entropy", "g_t", "quantiles"]
    lr = {g["name"]: g["lr"] for g in groups}
    assert lr["g_t"] == pytest.approx(1e-3) and lr["g_s"] == pytest.approx(1e-4)
    grouped = sum(len(g["params"]) for g in groups)
    assert grouped == sum(p.requires_grad for p in model.parameters())
    assert groups[-1]["weight_decay"] == 0


def test_the_quantiles_rate_is_constant_and_norms_are_clipped_by_part():
    model = tiny.model()
    optim = wrapper(model, max_norm=0.5, quantiles_lr=2e-3)
    groups = optim.optimizer.param_groups
    for group in groups:
        group["lr"] = 0.0  # as a scheduler would
        for p in group["params"]:
            p.grad = torch.ones_like(p) * 7
    quantiles = model.codec.entropy_bottleneck.quantiles
    before = quantiles.detach().clone()
    optim.step()
    moved = (quantiles - before).abs()
    assert torch.allclose(moved, torch.full_like(moved, 2e-3), rtol=1e-2)
    assert (quantiles.grad == 7).all()
    for group in groups[:-1]:
        norm = torch.stack([p.grad.norm() for p in group["params"]]).norm()
        assert norm == pytest.approx(0.5, rel=1e-3)


def moves(optimizer, scaler=None, broken=False, unscaled=False):
    """How parameters move in one step whose gradients are clipped, by group."""
    torch.manual_seed(0)
    model = tiny.model()
    optim = wrapper(model, max_norm=0.5, optimizer=optimizer).optimizer
    before = [[p.detach().clone() for p in g["params"]] for g in optim.param_groups]
    scale = scaler.scale(torch.ones(())) if scaler else 1.0
    for group in optim.param_groups:
        for p in group["params"]:
            p.grad = torch.randn_like(p) * 100 * scale
    if broken:
        p.grad[:] = float("inf")
    if unscaled:
        scaler.unscale_(optim)
    scaler.step(optim) if scaler else optim.step()
    if scaler:
        scaler.update()
    return [
        torch.cat([(p.detach() - b).flatten() for p, b in zip(*pair, strict=True)])
        for pair in zip((g["params"] for g in optim.param_groups), before, strict=True)
    ]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("type", ["SGD", "Adam", "AdamW", "Adagrad"])
def test_norms_are_clipped_of_unscaled_gradients(type, fused):
    optimizer = dict(type=type, lr=1e-3, fused=fused)
    expected = moves(optimizer)
    # Beyond the largest of half precision; squares of such gradients are infinite.
    for scale in (2.0**16, 2.0**70):
        for unscaled in (False, True):
            scaler = torch.amp.GradScaler("cpu", init_scale=scale)
            found = moves(optimizer, scaler, unscaled=unscaled)
            for a, b in zip(found, expected, strict=True):
                assert torch.allclose(a, b, rtol=1e-3, atol=1e-7)
                assert a.abs().max() > 1e-6


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_overflows_is_left_out(fused):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    found = moves(dict(type="Adam", lr=1e-3, fused=fused), scaler, broken=True)
    assert not any(moved.any() for moved in found)
    assert scaler.get_scale() == 2.0**15


def test_one_optimizer_equals_compressais_two():
    """Same gradients, same Adam: main and quantiles apart, as in CompressAI."""
    one, two = tiny.model(), tiny.model()
    two.load_state_dict(one.state_dict())
    optim = build_optim_wrapper(
        one,
        dict(
            constructor="HumanMachineOptimWrapperConstructor",
            optimizer=dict(type="Adam", lr=1e-3),
            paramwise_cfg=dict(max_norm=None),
        ),
    )
    parts = two.part_parameters()
    quantiles = parts.pop("quantiles")
    main = [p for ps in parts.values() for p in ps if p.requires_grad]
    net, aux = torch.optim.Adam(main, 1e-3), torch.optim.Adam(quantiles, 1e-3)
    for i in range(3):
        data = tiny.batch()
        for model in (one, two):
            model.train()
            torch.manual_seed(i)
            x = model.data_preprocessor(data)
            losses = model.loss(x["inputs"], x["data_samples"])
            if model is one:
                loss = sum(v for k, v in losses.items() if "loss" in k)
                optim.update_params(loss)
            else:
                net.zero_grad()
                aux.zero_grad()
                (losses["loss_rate"] + losses["loss_human"]).backward()
                net.step()
                losses["loss_aux"].backward()
                aux.step()
    for (name, a), b in zip(one.named_parameters(), two.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6), name


@pytest.mark.parametrize("paramwise", [dict(custom_keys={}), dict(lr_mult=dict(g_x=1))])
def test_unknown_options_are_named(paramwise):
    with pytest.raises(ValueError, match=r"custom_keys|g_x"):
        wrapper(tiny.model(), **paramwise)


def test_mixed_precision_on_a_cpu():
    model = tiny.model()
    optim = wrapper(model, type="BFloat16OptimWrapper")
    before = model.codec.g_a[0].weight.detach().clone()
    dtypes = {}
    parts = {
        "g_a": model.codec.g_a[0],
        "y": model.codec.g_a[-1],
        "h_a": model.codec.h_a,
    }
    for name, part in parts.items():
        part.register_forward_hook(
            lambda m, args, out, name=name: dtypes.update({name: out.dtype})
        )
    losses = model.train().train_step(tiny.batch((64, 64)), optim)
    full = torch.float32
    assert dtypes == {"g_a": torch.bfloat16, "y": full, "h_a": full}
    assert torch.isfinite(losses["loss"])
    after = model.codec.g_a[0].weight
    assert after.dtype == torch.float32 and not torch.equal(before, after)


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_mixed_precision_is_of_the_models_device(device, monkeypatch):
    model, asked = tiny.model(), []
    optim = wrapper(model, type="BFloat16OptimWrapper")

    def autocast(device, dtype):
        asked.append((device, dtype))
        return contextlib.nullcontext()

    monkeypatch.setattr(torch, "autocast", autocast)
    weight = SimpleNamespace(device=torch.device(device))
    monkeypatch.setattr(model, "parameters", lambda: iter([weight]))
    with optim.optim_context(model):
        assert asked == [(device, torch.bfloat16)]
