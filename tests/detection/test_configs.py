"""Every shipped config builds its model."""

import pytest
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope

from compressai_hm.detection import HumanMachineDetector

from . import tiny

SHIPPED = sorted(
    p.relative_to(tiny.CONFIGS)
    for p in tiny.CONFIGS.rglob("*.py")
    if not {"_base_", "rate_accuracy"} & set(p.parts)
)


@pytest.mark.parametrize("path", SHIPPED, ids=str)
def test_it_builds(path):
    cfg = Config.fromfile(tiny.CONFIGS / path)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    optim = build_optim_wrapper(model, cfg.optim_wrapper)
    for scheduler in cfg.param_scheduler:
        scheduler.pop("convert_to_iter_based", None)
        PARAM_SCHEDULERS.build(scheduler, default_args=dict(optimizer=optim))
    if not isinstance(model, HumanMachineDetector):
        return
    assert cfg.default_hooks.checkpoint.max_keep_ckpts >= 2
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        steps = [step["type"] for step in loader.dataset.pipeline]
        assert not any("Resize" in step for step in steps)
    if model.detector is not None:
        assert "detector" not in model.trainable
        assert cfg.model.backbone == {}  # for mmdet.apis.init_detector


@pytest.mark.parametrize(
    ("name", "view"),
    [("hm_faster_rcnn.py", (1333, 800)), ("hm_mask_rcnn.py", (1333, 800))],
)
def test_the_papers_detectors_read_their_own_size(name, view):
    cfg = Config.fromfile(tiny.CONFIGS / name)
    model = MODELS.build(cfg.model)
    assert model.view.scale == view and model.view.keep_ratio
    assert model.codec.N == 128  # quality 3


def test_mmdet_datasets_is_honoured(monkeypatch, tmp_path):
    monkeypatch.setenv("MMDET_DATASETS", str(tmp_path))
    cfg = Config.fromfile(tiny.CONFIGS / "hm_faster_rcnn.py")
    assert cfg.train_dataloader.dataset.data_root == str(tmp_path)
    assert cfg.val_evaluator[0].ann_file.startswith(str(tmp_path))
