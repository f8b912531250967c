"""Training stops where a loss is no number, on a CPU in that very step."""

import os
import subprocess
import sys

import pytest
import torch
from mmengine.runner import Runner

from compressai_hm.detection.engine.hooks import CheckLossHook

from . import (
    poison,  # noqa: F401
    tiny,
)
from .test_training import checkpoint


def poisoned(work_dir, data_root, **options):
    cfg = tiny.config(work_dir, data_root)
    cfg.train_cfg.update(max_epochs=6, val_interval=10)
    cfg.custom_hooks = [dict(type="PoisonHook", **options)]
    return cfg


def assert_whole(work_dir):
    saved = [checkpoint(work_dir, path.name) for path in work_dir.glob("*.pth")]
    assert saved
    for before in saved:
        assert before["meta"]["iter"] <= 5
        assert all(v.isfinite().all() for v in before["state_dict"].values())


def test_the_term_is_named_and_the_checkpoint_before_is_whole(tmp_path, drawn_set):
    runner = Runner.from_cfg(poisoned(tmp_path, drawn_set))
    with pytest.raises(RuntimeError, match="loss_human is nan.*in iteration 6.") as e:
        runner.train()
    assert "loss_rate is" not in str(e.value) and "loss is" not in str(e.value)
    assert_whole(tmp_path)


class Scaled:
    loss_scaler = torch.amp.GradScaler("cpu")


def test_a_skipped_step_does_not_stop(tmp_path, drawn_set):
    runner = Runner.from_cfg(poisoned(tmp_path, drawn_set))
    runner.optim_wrapper = Scaled()
    hook = CheckLossHook()

    def step(value):
        hook.after_train_iter(runner, 0, None, {"loss_rate": torch.tensor(value)})

    for _ in range(3):
        for value in [float("inf")] * 19 + [1.0]:
            step(value)
    with pytest.raises(RuntimeError, match="loss_rate is inf"):
        for _ in range(20):
            step(float("inf"))


def test_all_processes_stop(tmp_path, drawn_set):
    cfg = poisoned(tmp_path, drawn_set, rank=1)
    cfg.custom_imports.imports.append("tests.detection.poison")
    cfg.dump(tmp_path / "cfg.py")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone",
         "--nproc_per_node", "2", tiny.ROOT / "tools/train.py", tmp_path / "cfg.py",
         "--launcher", "pytorch"],
        capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(tiny.ROOT)},
    )  # fmt: skip
    assert done.returncode
    assert "loss_human is nan" in done.stderr
    assert "a loss of another rank is no number" in done.stderr
    assert_whole(tmp_path)


def test_a_training_that_has_diverged_stops(tmp_path, drawn_set):
    runner = Runner.from_cfg(tiny.config(tmp_path, drawn_set))
    hook = CheckLossHook()

    def step(**values):
        losses = {key: torch.tensor(value) for key, value in values.items()}
        hook.after_train_iter(runner, 0, None, losses)

    for _ in range(100):
        step(loss_rate=2.0, loss_aux=0.0)
    for _ in range(3):  # a strange picture, now and then
        for _ in range(49):
            step(loss_rate=3000.0, loss_aux=0.0)
        step(loss_rate=2.0, loss_aux=9.0)
    with pytest.raises(
        RuntimeError, match="diverged. loss_rate is 3000 .* about 2. Go"
    ):
        for _ in range(50):
            step(loss_rate=3000.0, loss_aux=0.0)


def test_losses_are_recorded_once(tmp_path, drawn_set):
    cfg = tiny.config(tmp_path, drawn_set)
    cfg.default_hooks.loss = dict(type="CheckLossHook")
    with pytest.raises(ValueError, match="two hooks record the losses"):
        Runner.from_cfg(cfg).train()
