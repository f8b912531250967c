"""Detectors and hooks on a device: what they give, and how often the host waits.

Forward passes alone: without a driver, autograd refuses CUDA's devices.
"""

import contextlib
import copy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.hooks import CheckpointHook, LoggerHook
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData

from compressai_hm.detection import DetectorRegions, RateDistortionMetric
from compressai_hm.detection.datasets import drawn
from compressai_hm.detection.engine.hooks import (
    CheckLossHook,
    DrawViewsHook,
    ExportCodecHook,
    HoldRateHook,
    SaveTablesHook,
)
from compressai_hm.detection.losses.feature_loss import inside_boxes

from ..simulated_device import DEVICE, simulated_device
from . import tiny

BACKBONE = dict(task_view="y_hat", latent_backbone=dict(widths=[16], depths=[1]))
SQUARE = dict(scale=(96, 96), pad_to_square=True, pad_val=(114, 114, 114))
FEATURES = dict(
    machine_losses=dict(features=1.0, objects=1.0),
    trainable=("g_a", "g_s", "entropy", "g_t"),
    resize=SQUARE,
)

MODELS = {
    "codec": (None, {}),
    "labels": (tiny.faster_rcnn, dict(quantizer="ste")),
    "masks": (tiny.mask_rcnn, dict(task_view="x_hat", coding="forward")),
    "yolox": (tiny.yolox, dict(step=2.0)),
    "features": (tiny.faster_rcnn, FEATURES),
    "g_t": (tiny.faster_rcnn, FEATURES | dict(trainable=("g_t",), reader="mine")),
    "latent": (tiny.faster_rcnn, BACKBONE),
    "steps": (tiny.faster_rcnn, dict(steps=dict(low=0.5, high=4, regions=1.0))),
}
COMPACT = dict(type="hm-compact", N=24, M=16, g_t_width=0)


def build(name, **kwargs):
    detector, own = MODELS[name]
    return tiny.model(tiny.CODEC, detector and detector(), **own, **kwargs)


def losses_of(model, batch):
    torch.manual_seed(1)
    np.random.seed(1)
    model.train()
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    return model.parse_losses(model.loss(**_named(data)))[1]


def _named(data):
    return {f"batch_{key}": value for key, value in data.items()}


@pytest.mark.parametrize("float64", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_a_device_finds_what_the_cpu_finds(name, float64):
    model, batch = build(name), tiny.batch()
    expected = losses_of(model, batch)
    coded = model.eval().test_step(copy.deepcopy(batch))
    with simulated_device(float64):
        model.to(DEVICE)
        for key, value in losses_of(model, batch).items():
            assert value.device == DEVICE
            torch.testing.assert_close(value.cpu(), expected[key], msg=key)
        again = model.eval().test_step(copy.deepcopy(batch))
        for sample, other in zip(again, coded, strict=True):
            assert sample.bits == pytest.approx(other.bits)
            assert torch.equal(sample.x_hat.cpu(), other.x_hat)
            if model.detector is not None:
                found = sample.pred_instances.bboxes
                assert found.device == DEVICE
                torch.testing.assert_close(found.cpu(), other.pred_instances.bboxes)


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("codec", 0),
        ("compact", 4),  # steps and what they weigh are sent; nothing comes back
        ("features", 4),  # MMEngine's channel order, of pictures and decoded ones
        ("g_t", 2 + 4),  # are the weights what they were, is z finite?
    ],
)
def test_a_training_pass_seldom_waits(name, most):
    """MMDetection's labels wait 80 times."""
    if name == "compact":
        model = tiny.model(COMPACT, steps=dict(low=0.35, high=6, regions=0.5)).train()
    else:
        model = build(name).train()
    batch = tiny.batch(boxes=((8, 10, 40, 30), (1, 2, 30, 40), (5, 5, 9, 9)))
    with simulated_device() as device:
        data = _named(model.to(DEVICE).data_preprocessor(batch, True))
        model.loss(**data)  # makes the coder
        waits = device.waits
        model.loss(**data)
        assert device.waits - waits <= most


@pytest.fixture
def runner(tmp_path):
    def of(model):
        return SimpleNamespace(
            model=model, work_dir=str(tmp_path), epoch=1, iter=20, hooks=[],
            visualizer=SimpleNamespace(dataset_meta={}), optim_wrapper=None,
            message_hub=MessageHub(tmp_path.name), max_iters=99,
            train_dataloader=range(99),
        )  # fmt: skip

    return of


@contextlib.contextmanager
def waits_at_most(device, count):
    before = device.waits
    yield
    assert device.waits - before <= count


@pytest.mark.parametrize("float64", [True, False])
def test_hooks_and_metrics(runner, tmp_path, float64):
    model, batch = build("labels"), tiny.batch()
    with simulated_device(float64) as device:
        model.to(DEVICE)
        runner = runner(model)
        logged = losses_of(model, batch)
        hold = HoldRateHook(bpp=0.5)
        hold.before_train(runner)
        hold.before_train_iter(runner, 0)
        hold.after_train_iter(runner, 0, batch, logged)
        assert model.training
        runner.iter += 1
        with waits_at_most(device, 1):
            hold.after_train_iter(runner, 0, batch, logged)
        runner.hooks = [LoggerHook(interval=1)]
        with waits_at_most(device, 1):
            CheckLossHook().after_train_iter(runner, 0, batch, logged)
        with pytest.raises(RuntimeError, match="loss_rate is nan"):
            lost = {"loss_rate": logged["loss_rate"] * float("nan")}
            CheckLossHook().after_train_iter(runner, 0, batch, lost)

        coded = model.eval().test_step(copy.deepcopy(batch))
        metric = RateDistortionMetric()
        metric.process(batch, [sample.to_dict() for sample in coded])
        assert metric.results[0]["psnr_x_hat"] > 0
        DrawViewsHook().after_test_iter(runner, 0, batch, coded)
        assert (tmp_path / "views/a.png").stat().st_size

        checkpoint = dict(state_dict=model.state_dict())
        ExportCodecHook().before_save_checkpoint(runner, checkpoint)
        model.trainable = ("g_t",)
        SaveTablesHook().before_save_checkpoint(runner, checkpoint)
        assert "codec.gaussian_conditional._offset" in checkpoint["state_dict"]
    saved = torch.load(Path(tmp_path) / "codec.pth.tar", weights_only=True)
    assert all(value.is_cpu for value in saved["state_dict"].values())


def test_losses_are_recorded_without_waiting_in_every_step(runner):
    with simulated_device() as device:
        runner, hook = runner(None), CheckLossHook()
        runner.iter, runner.max_iters, runner.train_dataloader = 0, 99, range(24)
        save = CheckpointHook(interval=9, by_epoch=False)
        runner.hooks = [LoggerHook(interval=20), save]
        losses = [torch.tensor(i + 0.5).to(DEVICE) for i in range(24)]

        def step():
            own = {"loss_rate": losses[runner.iter], "other": torch.tensor(1.0)}
            hook.after_train_iter(runner, runner.iter, None, own)
            runner.iter += 1

        def recorded():
            return runner.message_hub.get_scalar("train/loss_rate").data[0].tolist()

        for looks, last in ((1, 9), (2, 18), (3, 20), (4, 24)):  # 24: the epoch's end
            with waits_at_most(device, 1):
                while runner.iter < last:
                    step()
            assert recorded() == [i + 0.5 for i in range(last)], looks
        losses[10] = losses[10] / 0
        runner.iter = 9
        with pytest.raises(RuntimeError, match="loss_rate is inf in iteration 11"):
            while runner.iter < 18:
                step()


@pytest.mark.parametrize("float64", [True, False])
def test_attention(float64):
    pixels, *_ = drawn.draw(np.random.default_rng(0), ellipses=False)
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    regions = DetectorRegions(
        [
            dict(
                config=str(tiny.CONFIGS / "demo/detector.py"),
                checkpoint="compressai_hm://demo_detector.pth",
            )
        ]
    )
    expected = regions.step_map(x, 2.0)
    assert expected.min() < expected.max()
    with simulated_device(float64):
        assert torch.equal(regions.step_map(x.to(DEVICE), 2.0), expected)


def test_boxes_are_found_where_they_are():
    """Without waiting for them."""
    samples = [tiny.sample(8, 12, boxes=()) for _ in range(2)]
    boxes = [[1.4, 2.6, 5.5, 6.0], [-3, -3, 2, 1], [9, 7, 99, 99], [6, 1, 6, 4]]
    samples[0].gt_instances = InstanceData(bboxes=torch.tensor(boxes))
    expected = torch.zeros(2, 1, 8, 12)
    expected[0, 0, 3:6, 1:6] = expected[0, 0, :1, :2] = expected[0, 0, 7:, 9:] = 1
    assert torch.equal(inside_boxes(samples, (8, 12)), expected)
    with simulated_device() as device:
        for sample in samples:
            boxes = sample.gt_instances.bboxes.to(DEVICE)
            sample.gt_instances = InstanceData(bboxes=boxes)
        with waits_at_most(device, 0):
            inside = inside_boxes(samples, (8, 12))
        assert torch.equal(inside.cpu(), expected)
