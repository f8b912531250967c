"""Training goes on from the newest checkpoint, whatever its name and its loop."""

import _launch
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from . import tiny
from .test_training import assert_same, checkpoint


def save(path, iterations, **state):
    path.parent.mkdir(parents=True, exist_ok=True)
    saved = {"meta": {"iter": iterations, "epoch": 0}, "state_dict": {}, **state}
    torch.save(saved, path)


def test_the_longest_training_is_newest_whatever_its_name(tmp_path):
    assert _launch.latest_checkpoint(tmp_path / "none") is None
    assert _launch.latest_checkpoint(tmp_path) is None
    for name, iterations in (("epoch_2", 20), ("iter_9", 9), ("x-10", 30), ("x-9", 27)):
        save(tmp_path / f"{name}.pth", iterations, optimizer={})
    save(tmp_path / "best_coco_bbox_mAP_iter_40.pth", 40)  # no optimizer in it
    torch.save({"g_a.0.weight": torch.zeros(1)}, tmp_path / "codec.pth")
    (tmp_path / ".epoch_9.pth.part").write_bytes(b"PK")
    (tmp_path / "last_checkpoint").write_text("")
    assert _launch.latest_checkpoint(tmp_path) == str(tmp_path / "x-10.pth")


def test_the_hooks_own_names_and_folder_are_looked_at(tmp_path, drawn_set):
    cfg = tiny.config(tmp_path / "run", drawn_set)
    cfg.default_hooks.checkpoint.update(filename_tmpl="step-{}.tar", out_dir="out")
    assert _launch.checkpoint_to_resume(cfg) is None
    cfg.default_hooks.checkpoint.out_dir = str(tmp_path / "out")
    save(tmp_path / "out/run/step-7.tar", 7)
    assert _launch.checkpoint_to_resume(cfg) == str(tmp_path / "out/run/step-7.tar")
    cfg.default_hooks.checkpoint.out_dir = "s3://bucket"
    with pytest.raises(ValueError, match="s3://bucket cannot be searched"):
        _launch.checkpoint_to_resume(cfg)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"rubbish"])
def test_a_broken_checkpoint_stops(tmp_path, content):
    save(tmp_path / "epoch_1.pth", 4, optimizer={})
    (tmp_path / "epoch_2.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"epoch_2.pth is broken.*--resume CHECKPOINT"):
        _launch.latest_checkpoint(tmp_path)


def test_weights_alone_stop(tmp_path, drawn_set):
    torch.save({"state_dict": {}}, tmp_path / "mine.pth")
    with pytest.raises(ValueError, match="mine.pth.*or take another --work-dir"):
        _launch.latest_checkpoint(tmp_path)
    cfg = tiny.config(tmp_path, drawn_set)
    with pytest.raises(ValueError, match="nothing to go on from.*load_from="):
        _launch.checkpoint_to_resume(cfg, str(tmp_path / "mine.pth"))


class StopAfter(Hook):
    priority = "LOWEST"

    def __init__(self, iterations):
        self.iterations = iterations

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.iterations:
            raise KeyboardInterrupt


def by_iteration(work_dir, data_root):
    cfg = tiny.config(work_dir, data_root)
    cfg.train_cfg = dict(type="IterBasedTrainLoop", max_iters=6, val_interval=2)
    cfg.train_dataloader.sampler = dict(type="InfiniteSampler", shuffle=True)
    cfg.train_dataloader.batch_sampler = None
    cfg.default_hooks.checkpoint.update(
        interval=2, by_epoch=False, filename_tmpl="step-{}.pth"
    )
    cfg.log_processor.by_epoch = False
    cfg.param_scheduler = [dict(type="LinearLR", by_epoch=False, end=6)]
    cfg.custom_hooks.append(dict(type="HoldRateHook", bpp=0.2))
    return cfg


def test_a_loop_by_iterations_goes_on(tmp_path, drawn_set):
    straight = by_iteration(tmp_path / "straight", drawn_set)
    Runner.from_cfg(straight).train()
    views = {p.name[:6] for p in (tmp_path / "straight/views").iterdir()}
    assert views == {"iter_2", "iter_4", "iter_6"}

    cfg = by_iteration(tmp_path / "resumed", drawn_set)
    stopped = Runner.from_cfg(cfg)
    stopped.register_hook(StopAfter(5), "LOWEST")
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    cfg.load_from = _launch.checkpoint_to_resume(cfg)
    assert cfg.load_from.endswith("step-4.pth")
    cfg.resume = True
    resumed = Runner.from_cfg(cfg)
    resumed.train()
    a, b = (checkpoint(tmp_path / d, "step-6.pth") for d in ("straight", "resumed"))
    assert a["meta"]["iter"] == b["meta"]["iter"] == 6
    if not hasattr(resumed.train_loop.dataloader_iterator, "skip_iter"):
        return  # MMEngine reads what it skips: another augmentation
    assert_same(a["state_dict"], b["state_dict"])
    for i, state in a["optimizer"]["state"].items():
        assert_same(state, b["optimizer"]["state"][i])


def test_a_loop_by_iterations_without_checkpoints_is_told(tmp_path, drawn_set):
    cfg = by_iteration(tmp_path, drawn_set)
    cfg.custom_hooks = []
    cfg.default_hooks.checkpoint.by_epoch = True
    runner = _launch.build_runner(cfg)
    runner.register_hook(StopAfter(1))
    with pytest.raises(KeyboardInterrupt):
        runner.train()
    log = next(tmp_path.rglob("*.log")).read_text(encoding="utf-8")
    assert "default_hooks.checkpoint.by_epoch=False" in log
