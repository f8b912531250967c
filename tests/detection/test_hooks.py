from types import SimpleNamespace

import numpy as np
import pytest
import torch

from compressai_hm.detection.hooks import LambdaScheduleHook, ReseedHook

from . import tiny


def runner(model=None):
    return SimpleNamespace(
        model=model, train_dataloader=[None] * 10, seed=3, epoch=0, iter=0
    )


def test_lambda_rises_to_its_value():
    model = tiny.model(lambda_human=0.01)
    hook, run = LambdaScheduleHook("lambda_human", 0.2, epochs=2), runner(model)
    hook.before_train(run)
    seen = []
    for run.iter in (0, 10, 20, 30):
        hook.before_train_iter(run, 0)
        seen.append(model.lambda_human)
    assert seen == pytest.approx([0.002, 0.006, 0.01, 0.01])
    hook.before_train_iter(run, 0)
    hook.after_train(run)
    assert model.lambda_human == 0.01


@pytest.mark.parametrize(
    "args", [("lambda", 0.1, 1), ("lambda_human", 0.0, 1), ("lambda_human", 0.1, 0)]
)
def test_bad_schedules_are_refused(args):
    with pytest.raises(ValueError):
        LambdaScheduleHook(*args)


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
