"""Heads on the latent: the class, and which config builds it."""

import copy

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from compressai_hm.detection import (
    DetectorView,
    HumanMachineDetector,
    LatentHumanMachineDetector,
)
from compressai_hm.detection.build import build_model
from compressai_hm.detection.reading import Decoded

from . import tiny
from .test_detector import losses
from .test_distilled_detector import nano
from .test_training import StopInSecondEpoch, assert_same, checkpoint

LATENT = dict(codec=tiny.CODEC, latent_backbone=dict(widths=[16], depths=[1]))


def test_a_class_of_its_own_reads_the_latent():
    init_default_scope("mmdet")
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
        kept = model.detector.state_dict()
        assert key in kept or key.startswith("backbone."), key
        if key in kept:
            assert torch.equal(kept[key], value), key
    losses(model)["loss_rpn_cls"][0].backward()
    assert model.detector.backbone.latent.stem[0].weight.grad.abs().sum() > 0


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


@pytest.fixture(params=["yolox", "rtmdet"])
def detector(request, tmp_path):
    """A detector's config, and its weights, whose scores differ by place."""
    cfg = tiny.yolox() if request.param == "yolox" else nano()
    torch.manual_seed(0)
    init_default_scope("mmdet")
    net = MODELS.build(copy.deepcopy(cfg))
    net.init_weights()
    for layer in net.bbox_head.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.normal_(layer.weight, std=0.3)
    for _ in range(20):  # statistics of its norms
        net.bbox_head(net.extract_feat(torch.randn(2, 3, 64, 96)))
    torch.save(net.state_dict(), tmp_path / "teacher.pth")
    return dict(detector=cfg, detector_checkpoint=str(tmp_path / "teacher.pth"))


TAUGHT = [dict(type="FeatureLoss"), dict(type="HeadLoss")]
TERMS = {"loss_features", "loss_scores", "loss_boxes"}
FROZEN = dict(
    task_view="y_hat",
    lambda_human=0,
    trainable=("latent_backbone", "detector"),
    resize=dict(scale=(96, 96), pad_to_square=True, pad_val=114),
)


def batch() -> dict:
    data = tiny.batch((60, 64), (64, 90))
    for sample in data["data_samples"]:
        del sample.gt_instances.masks
    return data


def test_the_detector_on_the_picture_teaches(detector):
    model = tiny.model(machine_losses=TAUGHT, **detector, **FROZEN, **LATENT)
    model.init_weights()
    before = copy.deepcopy(model.teacher.module.state_dict())
    found = losses(model, batch())
    assert set(found) > TERMS and all(found[term] > 0 for term in TERMS)
    sum(found[term] for term in TERMS).backward()
    assert model.detector.backbone.latent.stem[0].weight.grad.abs().sum() > 0
    assert all(p.grad is not None for p in model.detector.neck.parameters())
    assert not any(key.startswith("teacher") for key in model.state_dict())
    for key, value in model.teacher.module.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_who_sees_what_the_teacher_sees_learns_nothing(detector, monkeypatch):
    """The student gets the teacher's backbone and pictures in place of latents."""
    model = tiny.model(machine_losses=TAUGHT, **detector, **FROZEN, **LATENT)
    model.init_weights()

    def prepare(_, view, y_hat, samples, ratio):
        return view.batch(model.teacher.module, x, samples, training=False, ratio=ratio)

    monkeypatch.setattr("compressai_hm.detection.reading.prepare_latents", prepare)
    model.detector.backbone = model.teacher.module.backbone
    model.ratio_range = (0.5, 1.5)
    model.train()
    data = model.data_preprocessor(batch(), True)
    x = data["inputs"]
    found = model.loss(x, data["data_samples"])
    assert all(abs(found[term]) < 1e-5 for term in TERMS - {"loss_scores"})
    assert found["loss_scores"] < 1e-5


def test_both_read_at_the_same_size(detector):
    model = tiny.model(machine_losses=TAUGHT, **detector, **FROZEN, **LATENT)
    model.init_weights()
    for size in ((1, 1), (17, 33), (60, 250), (300, 40)):
        data = model.data_preprocessor(tiny.batch(size, size), True)
        samples, x = data["data_samples"], data["inputs"]
        latent, _ = model._code(x, samples)
        decoded = Decoded(x, {}, latent["y_hat"], samples, training=True)
        for ratio in (2 / 3, 1.0, 2.0):
            model.view.draw_ratio = lambda low, high, ratio=ratio: ratio
            reading = model.read(decoded, compares=True)
            shapes = [f.shape for f in reading.features]
            assert shapes == [f.shape for f in reading.reference]
            _, pictures = model.view.batch(
                model.teacher.module, x, samples, True, ratio
            )
            for ours, theirs in zip(reading.annotations, pictures, strict=True):
                for key in ("img_shape", "scale_factor", "batch_input_shape"):
                    assert tuple(getattr(ours, key)) == tuple(getattr(theirs, key))
                ours, theirs = ours.gt_instances.bboxes, theirs.gt_instances.bboxes
                torch.testing.assert_close(ours, theirs)


def test_two_stages_have_no_scores_at_all_places(tmp_path):
    source = tiny.model(detector=tiny.faster_rcnn()).detector
    torch.save(source.state_dict(), tmp_path / "d.pth")
    model = tiny.model(
        detector=tiny.faster_rcnn(),
        detector_checkpoint=str(tmp_path / "d.pth"),
        machine_losses=[dict(type="HeadLoss")],
        **{**FROZEN, "resize": dict(scale=(96, 96))},
        **LATENT,
    )
    model.init_weights()
    with pytest.raises(TypeError, match="needs a detector with one stage, got Faster"):
        losses(model)


def test_latents_are_kept_and_are_those_of_files(detector):
    options = dict(
        latent_cache=dict(variants=2), steps=dict(low=1, high=4, regions=0.5)
    )
    model = tiny.model(machine_losses=TAUGHT, **detector, **FROZEN, **LATENT, **options)
    model.init_weights()
    model.train()
    calls = []
    analyze = model.codec.analyze
    model.codec.analyze = lambda x, **kw: calls.append(1) or analyze(x, **kw)
    data = model.data_preprocessor(batch(), True)
    samples, x = data["data_samples"], data["inputs"]
    for i, sample in enumerate(samples):
        sample.set_metainfo({"img_path": f"{i}.png"})
    drawn, draw = [], model.steps.draw
    model.steps.draw = lambda *args: drawn.append(draw(*args)) or drawn[-1]
    for _ in range(20):
        latent, _ = model._code(x, samples)
    assert len(calls) == 4  # two pictures, two variants
    picture = x[:1, :, :60, :64]
    for (path, *_), (y_hat, bits) in model._cache._kept.items():
        if path != "0.png":
            continue
        found = []
        for steps in drawn:
            if steps[0].offsets is not None and steps[0].offsets.shape != (4, 4):
                continue  # of the other picture
            strings = model.codec.compress(picture, steps[0])["strings"]
            real, _ = model.codec.decode_latent(strings, (60, 64), steps)
            found.append(torch.equal(y_hat, real[0].half()))
        assert any(found) and bits > 0
    before = [y_hat.float() for y_hat, _ in model._cache._kept.values()]
    model._cache = type(model._cache)(variants=2, bytes=0)  # nothing fits
    for _ in range(9):
        latent, _ = model._code(x, samples)
        assert any(torch.equal(latent["y_hat"][1], y_hat) for y_hat in before)


def test_ratios_of_a_square_fit_the_neck():
    view = DetectorView(scale=(448, 448), pad_to_square=True)
    sides = {round(448 * view.draw_ratio(0.5, 1.0)) for _ in range(200)}
    assert sides <= set(range(224, 449, 32)) and len(sides) > 5


def test_a_taught_detector_resumes(detector, drawn_set, tmp_path):
    def runner(folder, **changes):
        cfg = tiny.config(tmp_path / folder, drawn_set, **changes)
        options = dict(latent_cache=dict(variants=2), steps=dict(low=1, high=4))
        losses = [*TAUGHT, dict(type="DetectorLoss")]
        cfg.model = dict(
            type="LatentHumanMachineDetector",
            machine_losses=losses,
            ratio_range=(0.7, 1.0),
            **{k: v for k, v in FROZEN.items() if k != "task_view"},
            **detector,
            **LATENT,
            **options,
        )
        cfg.optim_wrapper.optimizer = dict(type="AdamW", lr=1e-3)
        cfg.custom_hooks = [dict(type="ReseedHook")]
        cfg.param_scheduler = None
        cfg.train_cfg.val_begin = 3
        return Runner.from_cfg(cfg)

    if detector["detector"]["type"] == "RTMDet":
        pytest.skip("of one class, unlike the drawn set")
    runner("straight").train()
    stopped = runner("resumed")
    stopped.register_hook(StopInSecondEpoch(), "LOWEST")
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    runner("resumed", resume=True).train()
    a, b = (checkpoint(tmp_path / folder) for folder in ("straight", "resumed"))
    assert_same(a["state_dict"], b["state_dict"])
