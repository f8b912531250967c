"""Readers trained on a frozen stream, from config to decoding."""

import copy

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from compressai_hm import decode, encode, load_reader
from compressai_hm.detection.view import prepare_latents
from compressai_hm.entropy.coding_tables import is_table
from compressai_hm.zoo import load_checkpoint

from . import tiny
from .test_training import tool

READERS = {
    "boxes": dict(trainable=("g_t",)),
    "latent": dict(
        type="LatentHumanMachineDetector",
        trainable=("latent_backbone", "detector"),
        latent_backbone=dict(widths=[16], depths=[1]),
    ),
    "unlabeled": dict(trainable=("g_t",), machine_losses=dict(labels=0, features=1)),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A codec whose tables are not those that its weights would give here."""
    path = tmp_path_factory.mktemp("codec") / "codec.pth.tar"
    torch.manual_seed(3)
    net = tiny.model().codec
    net.hide_tables(False)
    net.update(force=True)
    tables = net.gaussian_conditional
    tables._quantized_cdf[-1, tables._cdf_length[-1] // 2] += 1
    torch.save({"state_dict": net.state_dict()}, path)
    return path


def config(work_dir, drawn_set, checkpoint, name):
    cfg = tiny.config(work_dir, drawn_set)
    cfg.model.update(copy.deepcopy(READERS[name]), reader=name)
    cfg.model.codec = dict(tiny.CODEC, checkpoint=str(checkpoint))
    cfg.model.lambda_human = 0
    cfg.custom_hooks.append(dict(type="EMAHook", momentum=0.5))
    return cfg


@pytest.fixture(scope="module", params=READERS)
def trained(request, tmp_path_factory, drawn_set, checkpoint):
    name, work_dir = request.param, tmp_path_factory.mktemp(request.param)
    cfg = config(work_dir, drawn_set, checkpoint, name)
    cfg.dump(work_dir / "reader.py")
    Runner.from_cfg(cfg).train()
    return name, work_dir


def test_frozen_means_frozen(trained, checkpoint):
    name, work_dir = trained
    before = torch.load(checkpoint)["state_dict"]
    after = torch.load(work_dir / "codec.pth.tar")["state_dict"]
    assert after.keys() == before.keys()
    tables = [k for k in before if is_table(k)]
    assert len(tables) == 7
    for key, value in before.items():
        if name == "latent" or not key.startswith("g_t."):
            assert torch.equal(after[key], value), key


def test_the_reader_reads_streams_of_the_codec(trained, checkpoint):
    name, work_dir = trained
    reader = load_reader(work_dir / f"{name}.reader")
    codec = load_checkpoint(checkpoint).eval()
    x = torch.rand(1, 3, 40, 72)
    data = encode(codec, x)
    out = decode(codec, data, reader=reader)
    assert torch.equal(out["x_hat"], decode(codec, data)["x_hat"])
    adapted = load_checkpoint(work_dir / "codec.pth.tar").eval()
    assert encode(adapted, x) == data
    if name == "latent":
        assert [f.shape[1] for f in out["features"]] == [8, 16]  # strides 4 and 8
    else:
        assert torch.equal(out["x_bar"], decode(adapted, data)["x_bar"])
        assert not torch.equal(out["x_bar"], out["x_hat"])


def test_its_run_is_tested_on_the_same_streams(trained, checkpoint):
    """From MMEngine's checkpoint alone, as tools/test.py does."""
    name, work_dir = trained
    cfg = config(work_dir / "test", work_dir, checkpoint, name)
    del cfg.model.codec["checkpoint"]
    cfg.model.setdefault("resize", dict(scale=(96, 96)))
    model = MODELS.build(cfg.model)
    from mmengine.runner import load_checkpoint as load

    load(model, str(work_dir / "epoch_2.pth"))
    x = torch.rand(1, 3, 40, 72)
    own = load_checkpoint(checkpoint).eval()
    assert model.eval().codec.compress(x)["strings"] == own.compress(x)["strings"]


@pytest.mark.parametrize("trained", ["latent"], indirect=True)
def test_two_processes_train_a_reader(trained, tmp_path):
    """DDP stops at parameters without gradients: find_unused_parameters stays off."""
    name, work_dir = trained
    tool(
        *("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
        *(tiny.ROOT / "tools/train.py", work_dir / "reader.py"),
        *("--launcher", "pytorch", "--work-dir", tmp_path),
    )
    assert load_reader(tmp_path / f"{name}.reader").name == name
    before = torch.load(work_dir / "codec.pth.tar")["state_dict"]
    after = torch.load(tmp_path / "codec.pth.tar")["state_dict"]
    for key, value in before.items():
        if not key.startswith("g_t."):
            assert torch.equal(after[key], value), key


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (dict(reader="r"), "frozen stream"),
        (dict(reader="r", trainable=("g_s", "g_t")), "frozen stream"),
        (dict(reader="a/b", trainable=("g_t",)), "is no name for a reader"),
        (
            dict(reader="r", trainable=("g_t",), codec={**tiny.CODEC, "g_t_width": 0}),
            "there is no g_t",
        ),
        (dict(trainable="g_t"), "must be a list, got 'g_t'"),
        (dict(codec=dict(type="jpeg", quality=9), task_view="y_hat"), "no latent"),
        (
            dict(task_view="y_hat", latent_backbone=dict(dept=1)),
            r"takes widths and depths, got \['dept'\]",
        ),
        (dict(machine_losses=dict(boxes=1)), "knows .*features.*got"),
        (dict(machine_losses=dict(features=-1)), "must be 0 or more"),
        (
            dict(machine_losses=dict(features=1), task_view="y_hat"),
            "weights to teach: give model.detector_checkpoint",
        ),
        (dict(task_view="y_hat", ratio_range=(2, 1)), r"ratio_range must be \(low"),
        (
            dict(task_view="y_hat", latent_cache={}),
            "latent_cache needs a frozen stream",
        ),
        (
            dict(machine_losses=dict(objects=1), trainable=("g_t", "detector")),
            "need a frozen detector",
        ),
    ],
)
def test_contradictions_are_refused(changes, named):
    with pytest.raises(ValueError, match=named):
        tiny.model(detector=tiny.faster_rcnn(), **changes)


def test_a_folder_of_pictures_trains_without_labels(tmp_path, drawn_set):
    losses = {}

    class Seen(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            losses.update(outputs)

    cfg = tiny.config(tmp_path, drawn_set)
    cfg.model.machine_losses = dict(features=1.0)
    cfg.train_dataloader.dataset = dict(
        type="PictureFolder",
        folders=f"{drawn_set}/train2017",
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="RandomDownscale", low=0.5),
            dict(type="RandomCrop", crop_size=(64, 64)),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PackDetInputs"),
        ],
    )
    cfg.train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=1, val_interval=9)
    runner = Runner.from_cfg(cfg)
    runner.register_hook(Seen())
    runner.train()
    assert np.isfinite(float(losses["loss"]))
    assert {"loss_rate", "loss_human", "loss_features", "loss_aux"} <= losses.keys()


def test_pictures_of_a_batch_keep_their_own_size_in_the_latent():
    model = tiny.model(
        detector=tiny.mask_rcnn(), task_view="y_hat", resize=dict(scale=None)
    )
    data = model.data_preprocessor(tiny.batch((60, 64), (64, 250)), True)
    y_hat = model.codec.analyze(data["inputs"])
    inputs, samples = prepare_latents(
        model.detector, model.view, y_hat, data["data_samples"]
    )
    assert inputs.shape[-2:] == (8, 32)
    assert [s.pad_shape for s in samples] == [(60, 64), (64, 250)]
    for s in samples:
        assert s.batch_input_shape == (64, 256)
        assert s.gt_instances.masks.masks.shape[1:] == (64, 256)
        assert torch.equal(
            s.gt_instances.bboxes, torch.tensor([[8.0, 10.0, 40.0, 30.0]])
        )
    assert data["data_samples"][0].gt_instances.masks.masks.shape[1:] == (60, 64)


def test_a_codec_alone_has_no_latent_backbone():
    alone = tiny.model().state_dict()
    model = tiny.model(detector=tiny.faster_rcnn(), task_view="y_hat")
    with pytest.raises(RuntimeError, match="holds no latent backbone"):
        model.load_state_dict(alone)
