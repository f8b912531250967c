"""Every shipped config builds its model, trains and is tested."""

import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope
from mmengine.runner import Runner

from compressai_hm.detection import HumanMachineDetector
from compressai_hm.detection.configs import detector_config

from . import tiny

SHIPPED = sorted(
    p.relative_to(tiny.CONFIGS)
    for p in tiny.CONFIGS.rglob("*.py")
    if not {"_base_", "sweeps"} & set(p.parts)
)
shipped = pytest.mark.parametrize("path", SHIPPED, ids=str)


def parts(loader) -> list:
    """A dataloader's dataset, or those it is put together from."""
    return loader.dataset.get("datasets", [loader.dataset]) if loader else []


@shipped
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
    for loader in (cfg.train_dataloader, cfg.get("test_dataloader")):
        for dataset in parts(loader):
            assert not any("Resize" in step["type"] for step in dataset.pipeline)
    assert cfg.model.backbone == {}  # for mmdet.apis.init_detector
    if model.detector is not None:
        latent = model.task_view == "y_hat"
        assert ("detector" in model.trainable) == latent


def shrink(cfg) -> None:
    """A detector's config: random weights, the drawn set's labels, a few boxes."""
    for value in cfg.values() if isinstance(cfg, dict) else cfg:
        if isinstance(value, (dict, list)):
            shrink(value)
    if not isinstance(cfg, dict):
        return
    if "checkpoint" in (cfg.get("init_cfg") or {}):
        cfg["init_cfg"] = None
    if cfg.get("num_classes") == 80:
        cfg["num_classes"] = 8
    # Something must be found, or there is no mAP; of random boxes few.
    for key, value in (("score_thr", 0.0), ("min_bbox_size", -1), ("max_per_img", 50)):
        if key in cfg:
            cfg[key] = min(cfg[key], value)


def small(path, drawn_set, work_dir) -> Config:
    """A shipped config on the drawn set, which runs in seconds without downloads."""
    cfg = Config.fromfile(tiny.CONFIGS / path)
    cfg.work_dir = str(work_dir)
    model = cfg.model
    if not model.type.endswith("HumanMachineDetector"):
        shrink(model)
        if model.get("teacher"):
            teacher = MODELS.build(detector_config(model.teacher, None)[0])
            model.teacher_checkpoint = str(work_dir / "teacher.pth")
            torch.save(teacher.state_dict(), model.teacher_checkpoint)
    else:
        without_g_t = model.codec.get("g_t_width") == 0
        model.codec = {**tiny.CODEC, **(dict(g_t_width=0) if without_g_t else {})}
        model.detector_checkpoint = None
        losses = model.get("machine_losses") or []
        if isinstance(losses, dict):
            losses = []
        for i, loss in enumerate(loss for loss in losses if "detector" in loss):
            loss.detector, _ = detector_config(loss.detector, loss.resize)
            shrink(loss.detector)
            loss.checkpoint = str(work_dir / f"loss_{i}.pth")
            own = MODELS.build(loss.detector)
            torch.save(own.state_dict(), loss.checkpoint)
        if model.get("detector") is not None:
            model.detector, resize = detector_config(
                model.detector, model.get("resize")
            )
            shrink(model.detector)
            if resize.get("scale"):
                resize["scale"] = tuple(min(side, 128) for side in resize["scale"])
            model.resize = resize
            if model.type == "LatentHumanMachineDetector":  # it teaches
                model.detector_checkpoint = str(work_dir / "detector.pth")
                teacher = MODELS.build(model.detector)
                torch.save(teacher.state_dict(), model.detector_checkpoint)

    # Two upright pictures and two wide ones to train on.
    for split, indices in (("train", [0, 2, 3, 4]), ("val", [0, 1])):
        loader = cfg.get(f"{split}_dataloader")
        if loader is None:
            continue
        loader.update(num_workers=0, persistent_workers=False)
        datasets = parts(loader)
        for i, dataset in enumerate(datasets):
            share = len(indices) // len(datasets)
            dataset.indices = indices[i * share : (i + 1) * share]
            if dataset.type == "PictureFolder":
                dataset.folders = [str(drawn_set / f"{split}2017")]
                continue
            dataset.update(
                type="DrawnCocoDataset",
                data_root=str(drawn_set),
                num_train=8,
                num_val=4,
                filter_cfg=datasets[0].get("filter_cfg"),  # the indices are of these
                ann_file=f"annotations/instances_{split}2017.json",
                data_prefix=dict(img=f"{split}2017/"),
            )
            people = "person" in str(path) or dataset.get("metainfo")
            if people:
                dataset.metainfo = dict(classes=("sports ball",))
    cfg.load_from = None
    cfg.train_dataloader.batch_size = 2
    cfg.train_cfg.max_epochs = 1
    if cfg.get("val_dataloader"):
        cfg.train_cfg.val_begin = 2  # never: it is tested instead
        cfg.test_dataloader = cfg.val_dataloader
        if not isinstance(cfg.val_evaluator, list):
            cfg.val_evaluator = [cfg.val_evaluator]
        for metric in cfg.val_evaluator:
            if metric.type == "CocoMetric":
                metric.ann_file = str(drawn_set / "annotations/instances_val2017.json")
        cfg.test_evaluator = cfg.val_evaluator
    cfg.default_hooks.checkpoint.save_optimizer = False
    if not model.get("reader"):
        cfg.default_hooks.checkpoint = None  # up to 0.5 GB
    return cfg


class KeepLosses(Hook):
    def __init__(self):
        self.kept = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.kept.append(outputs)


@shipped
def test_it_trains_and_is_tested(path, drawn_set, tmp_path, monkeypatch):
    monkeypatch.setattr(Config, "pretty_text", "")  # takes seconds
    cfg = small(path, drawn_set, tmp_path)
    runner = Runner.from_cfg(cfg)
    losses = KeepLosses()
    runner.register_hook(losses)
    runner.train()
    assert len(losses.kept) == 2
    for kept in losses.kept:
        assert all(torch.as_tensor(value).isfinite().all() for value in kept.values())
    reader = cfg.model.get("reader")
    assert not reader or (tmp_path / f"{reader}.reader").exists()
    if "val_dataloader" not in cfg:
        return
    figures = runner.test()
    with_codec = cfg.model.type.endswith("HumanMachineDetector")
    assert ("codec/bpp" in figures) == with_codec
    if not with_codec or cfg.model.get("detector") is not None:
        assert "coco/bbox_mAP" in figures
    if path.stem in ("hm_mask_rcnn", "hm_rtmdet_ins"):
        assert "coco/segm_mAP" in figures


def test_masks_and_boxes_reach_the_detector_together(drawn_set, tmp_path, monkeypatch):
    cfg = small("hm_mask_rcnn.py", drawn_set, tmp_path)
    cfg.model.detector = tiny.mask_rcnn()
    cfg.model.resize.scale = (120, 75)
    init_default_scope("mmdet")
    model = MODELS.build(cfg.model).train()
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    data = pseudo_collate([dataset[i] for i in range(4)])
    data = model.data_preprocessor(data, training=True)
    reached = []
    monkeypatch.setattr(
        model.detector, "loss", lambda *args: reached.extend(args) or {}
    )
    model.loss(data["inputs"], data["data_samples"])
    inputs, samples = reached
    assert inputs.shape == (4, 3, 128, 128)
    for before, sample in zip(data["data_samples"], samples, strict=True):
        assert sample.img_shape in {(75, 113), (113, 75)}
        found = sample.gt_instances
        scale = torch.tensor(sample.scale_factor * 2)
        assert torch.allclose(found.bboxes, before.gt_instances.bboxes * scale)
        assert found.masks.masks.shape == (len(found), 128, 128)
        extents = found.masks.get_bboxes(HorizontalBoxes).tensor
        beyond = (extents - found.bboxes) * torch.tensor([-1, -1, 1, 1])
        assert beyond.min() > -2  # thin tips are lost
        assert beyond.max() <= 1


@pytest.mark.parametrize(
    ("name", "view"),
    [("hm_faster_rcnn.py", (1333, 800)), ("hm_mask_rcnn.py", (1333, 800))],
)
def test_the_papers_detectors_read_their_own_size(name, view):
    cfg = Config.fromfile(tiny.CONFIGS / name)
    model = MODELS.build(cfg.model)
    assert model.view.scale == view and model.view.keep_ratio
    assert model.codec.N == 128  # quality 3


def test_mmdet_datasets_is_honored(monkeypatch, tmp_path):
    monkeypatch.setenv("MMDET_DATASETS", str(tmp_path))
    cfg = Config.fromfile(tiny.CONFIGS / "hm_faster_rcnn.py")
    assert cfg.train_dataloader.dataset.data_root == str(tmp_path)
    assert cfg.val_evaluator[0].ann_file.startswith(str(tmp_path))
