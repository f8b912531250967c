"""Heads on the latent: the class, and which config builds it."""

import copy

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config

from compressai_hm.detection import HumanMachineDetector, LatentHumanMachineDetector
from compressai_hm.detection.build import build_model

from . import tiny
from .test_detector import losses

LATENT = dict(codec=tiny.CODEC, latent_backbone=dict(width=16, depth=1))


def test_a_class_of_its_own_reads_the_latent():
    cfg = dict(type="LatentHumanMachineDetector", detector=tiny.faster_rcnn(), **LATENT)
    new = MODELS.build(copy.deepcopy(cfg))
    for model in (new, copy.deepcopy(new)):
        assert type(model) is LatentHumanMachineDetector
        assert model.task_view == "y_hat"
    with pytest.raises(ValueError, match='type="LatentHumanMachineDetector"'):
        HumanMachineDetector(tiny.CODEC, task_view="y_hat")
    assert type(build_model(Config(dict(model=cfg)))) is LatentHumanMachineDetector
    with pytest.raises(ValueError, match=r"task_view knows \['y_hat'\], got"):
        MODELS.build(dict(cfg, task_view="x_bar"))


def test_it_starts_from_the_detectors_checkpoint_but_for_the_backbone(tmp_path):
    source = tiny.model(detector=tiny.faster_rcnn()).detector
    torch.save(source.state_dict(), tmp_path / "detector.pth")
    model = tiny.model(
        detector=tiny.faster_rcnn(),
        task_view="y_hat",
        detector_checkpoint=str(tmp_path / "detector.pth"),
        **LATENT,
    )
    model.init_weights()
    for key, value in source.state_dict().items():
        if not key.startswith("backbone."):
            assert torch.equal(model.detector.state_dict()[key], value), key
    losses(model)["loss_rpn_cls"][0].backward()
    assert model.detector.backbone.stem[0].weight.grad.abs().sum() > 0


def test_people_are_shown_nothing_in_training_where_they_do_not_count():
    got = [
        losses(
            tiny.model(
                detector=tiny.faster_rcnn(), task_view="y_hat", lambda_human=h, **LATENT
            )
        )
        for h in (0, 0.01)
    ]
    assert "psnr" not in got[0] and {"psnr", "loss_human"} <= set(got[1])
    assert "loss_cls" in got[0]
