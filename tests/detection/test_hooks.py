import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from compressai_hm.detection.engine.hooks import DecayHook, HoldRateHook, ReseedHook
from compressai_hm.entropy import mirrored_tables as tables

from . import tiny


def runner(model=None):
    return SimpleNamespace(
        model=model,
        train_loop=None,
        train_dataloader=[None] * 10,
        seed=3,
        epoch=0,
        iter=0,
    )


def rates(length, seen, hook, groups=None):
    """The rates of two groups in some iterations of a training of this length."""
    run = runner()
    run.train_loop = SimpleNamespace(max_iters=length)
    groups = groups or [dict(lr=1.0), dict(lr=10.0)]
    run.optim_wrapper = SimpleNamespace(param_groups=groups)
    hook.before_train(run)
    found = []
    for run.iter in seen:
        hook.before_train_iter(run, 0)
        found.append(groups[0]["lr"])
        assert groups[1]["lr"] == pytest.approx(10 * groups[0]["lr"])
    return found, groups


def test_the_rate_is_held_and_falls_at_the_end():
    hook = DecayHook(share=0.25, warmup=3)
    found, groups = rates(200, [0, 3, 149, 150, 175, 199], hook)
    assert found == pytest.approx([0.25, 1, 1, 1, 0.5, 0.02])
    # Resumed for longer, as the groups come back from a checkpoint: at the full rate.
    assert rates(800, [200, 599, 700], hook, groups)[0] == pytest.approx([1, 1, 0.5])
    # And for shorter.
    assert rates(200, [175], hook, groups)[0] == pytest.approx([0.5])
    assert rates(10, [9], DecayHook(0, 0))[0] == [1]
    for wrong in (dict(share=1.5), dict(warmup=-1)):
        with pytest.raises(ValueError, match="DecayHook"):
            DecayHook(**wrong)


def draws(epoch, seed=3):
    run = runner()
    run.train_dataloader = SimpleNamespace(num_workers=0, persistent_workers=False)
    run.epoch, run.seed = epoch, seed
    ReseedHook().before_train_epoch(run)
    return torch.rand(1).item(), np.random.rand(), run.train_dataloader.worker_init_fn


def test_an_epochs_numbers_depend_on_seed_and_epoch_alone():
    assert draws(1)[:2] == draws(1)[:2]
    assert len({draws(1)[0], draws(2)[0], draws(1, seed=4)[0]}) == 3
    numbers = set()
    for epoch in (0, 1):
        for worker in (0, 1):
            draws(epoch)[2](worker)
            numbers.add(np.random.rand())
    assert len(numbers) == 4


def test_persistent_workers_are_refused():
    run = runner()
    run.train_dataloader = SimpleNamespace(num_workers=1, persistent_workers=True)
    with pytest.raises(ValueError, match="persistent_workers"):
        ReseedHook().before_train_epoch(run)


def test_the_rate_is_held_by_both_lambdas(monkeypatch):
    model = tiny.model(lambda_human=0.01, lambda_machine=0.5, detector=tiny.yolox())
    hook, run = HoldRateHook(bpp=0.2), runner(model)
    info = {}
    run.message_hub = SimpleNamespace(
        runtime_info=info,
        update_info=info.__setitem__,
        update_scalar=lambda name, value: None,
    )
    # A codec whose files have 0.8 of the estimate, which follows λ.
    rate = torch.tensor(0.4)
    monkeypatch.setattr(hook, "_code_batch", lambda batch: 0.8 * rate)
    hook.before_train(run)
    for run.iter in range(400):
        hook.before_train_iter(run, 0)
        rate = torch.tensor(0.4 * (model.lambda_human / 0.01) ** 0.5)
        hook.after_train_iter(run, 0, None, {"loss_rate": rate})
    assert 0.8 * float(rate) == pytest.approx(0.2, rel=0.02)
    assert model.lambda_machine / model.lambda_human == pytest.approx(50)
    hook.after_train(run)
    assert (model.lambda_human, model.lambda_machine) == (0.01, 0.5)
    hook.after_train_iter(run, 0, None, {"loss_rate": torch.tensor(float("inf"))})
    assert 0 < info["hold_rate/bpp"] < 1
    with pytest.raises(ValueError, match="bpp must be positive, got 0"):
        HoldRateHook(bpp=0)
    run.model = tiny.model(trainable=("g_s",))
    with pytest.raises(ValueError, match="the stream is frozen"):
        hook.before_train(run)


def test_the_held_rate_is_that_of_files():
    model = tiny.model(detector=tiny.faster_rcnn())
    model.init_weights()
    model.train()
    hook, data = HoldRateHook(bpp=0.2), tiny.batch((64, 96), (60, 70))
    hook.model = model
    coded = float(hook._code_batch(data))
    assert model.codec.training and not model.detector.backbone.bn1.training
    model.eval()
    inputs = model.data_preprocessor(data)["inputs"]
    found = model.predict(inputs, data["data_samples"])
    pixels = (64 * 96, 60 * 70)
    bpp = [s.bits / p for s, p in zip(found, pixels, strict=True)]
    assert coded == pytest.approx(np.mean(bpp), abs=0.06)  # two flushes of the coder


def test_the_coder_is_made_once_where_the_entropy_part_stays(monkeypatch):
    built, real = [], tables.LatentCoder
    monkeypatch.setattr(
        tables, "LatentCoder", lambda *args: built.append(1) or real(*args)
    )
    codec = dict(type="hm-mbt2018", N=8, M=12)
    model = tiny.model(codec, trainable=("g_a", "g_s"))
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], 1e-3
    )
    hook, data = HoldRateHook(bpp=0.2), tiny.batch((64, 64))
    hook.model = model.train()
    for _ in range(3):
        hook._code_batch(copy.deepcopy(data))
        x = model.data_preprocessor(copy.deepcopy(data), True)
        losses = model.loss(x["inputs"], x["data_samples"])
        sum(v for k, v in losses.items() if "loss" in k).backward()
        optimizer.step()
    assert len(built) == 1
