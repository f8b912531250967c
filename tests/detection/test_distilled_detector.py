import copy

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from . import tiny
from .test_training import StopInSecondEpoch, assert_same, checkpoint

TERMS = ("loss_scores", "loss_boxes", "loss_features")


def nano() -> dict:
    model = Config.fromfile(tiny.CONFIGS / "person/rtmdet_nano.py").model
    model.backbone.widen_factor = 0.0625
    model.neck.update(in_channels=[16, 32, 64], out_channels=16)
    model.bbox_head.update(in_channels=16, feat_channels=16, exp_on_reg=True)
    return model


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A teacher's, whose features, scores and boxes differ by place."""
    torch.manual_seed(0)
    init_default_scope("mmdet")
    model = MODELS.build(nano())
    for layer in (*model.bbox_head.rtm_cls, *model.bbox_head.rtm_reg):
        torch.nn.init.normal_(layer.weight, std=0.5)
        torch.nn.init.zeros_(layer.bias)
    for _ in range(20):  # statistics of its norms
        model.bbox_head(model.extract_feat(torch.randn(2, 3, 64, 96)))
    path = tmp_path_factory.mktemp("teacher") / "teacher.pth"
    torch.save(model.state_dict(), path)
    return path


def config(weights, **changes) -> dict:
    return dict(
        copy.deepcopy(nano()),
        type="DistilledRTMDet",
        teacher=nano(),
        teacher_checkpoint=str(weights),
        **changes,
    )


def build(weights, **changes):
    torch.manual_seed(1)
    model = MODELS.build(config(weights, **changes))
    model.init_weights()
    return model


def batch() -> dict:
    data = tiny.batch((64, 96), (64, 96))
    for sample in data["data_samples"]:
        del sample.gt_instances.masks  # which RTMDet's assigner would take for tensors
    return data


def losses(model):
    data = model.data_preprocessor(batch(), True)
    return model.loss(data["inputs"], data["data_samples"])


def test_who_knows_what_the_teacher_knows_learns_nothing_of_it(weights):
    model = build(weights)
    before = losses(model)
    assert all(before[term] > 0.1 for term in TERMS)
    model.load_state_dict(torch.load(weights))
    model.eval()
    found = losses(model)
    assert all(abs(found[term]) < 1e-6 for term in TERMS)
    sum(found[term] for term in TERMS).backward()
    steepest = max(p.grad.abs().max() for p in model.parameters() if p.grad is not None)
    assert steepest < 1e-5


@pytest.mark.parametrize("term", TERMS)
def test_each_term_teaches(weights, term):
    model = build(weights)
    model.load_state_dict(torch.load(weights))
    for p in model.parameters():
        p.data.mul_(1.1)
    losses(model)[term].backward()
    assert model.backbone.stem[0].conv.weight.grad.abs().sum() > 0


def test_labels_count_beside_it(weights):
    model = build(weights, teacher_weight=0.0)
    found = losses(model)
    assert all(found[term] == 0 for term in TERMS)
    sum(map(sum, (found["loss_cls"], found["loss_bbox"]))).backward()
    assert model.backbone.stem[0].conv.weight.grad.abs().sum() > 0


def test_the_teacher_rests_and_is_in_no_checkpoint(weights):
    model = build(weights)
    plain = MODELS.build(nano())
    assert model.state_dict().keys() == plain.state_dict().keys()
    teacher = model.teacher.module
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    assert_same(before, torch.load(weights))
    optim = build_optim_wrapper(
        model, dict(optimizer=dict(type="SGD", lr=0.1, weight_decay=0.1))
    )
    own = {k: v.clone() for k, v in model.state_dict().items()}
    model.train().train_step(batch(), optim)
    assert_same(teacher.state_dict(), before)
    assert not torch.equal(
        model.backbone.stem[0].conv.weight, own["backbone.stem.0.conv.weight"]
    )


def test_the_teacher_sees_pictures_as_it_was_trained(weights):
    model = build(
        weights,
        data_preprocessor=dict(
            type="DetDataPreprocessor", mean=[1, 2, 3], std=[4, 5, 6], bgr_to_rgb=True
        ),
    )
    data = batch()
    own = model.data_preprocessor(copy.deepcopy(data), True)["inputs"]
    theirs = model.teacher.module.data_preprocessor(data, True)["inputs"]
    assert torch.allclose(model._normalize_for_teacher(own), theirs, atol=1e-4)


def test_it_resumes(weights, tmp_path, drawn_set):
    def runner(folder, **changes):
        cfg = tiny.config(tmp_path / folder, drawn_set, **changes)
        cfg.model = config(weights)
        cfg.model["data_preprocessor"]["pad_size_divisor"] = 32
        cfg.optim_wrapper = dict(
            type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-3)
        )
        cfg.custom_hooks = [dict(type="ReseedHook"), dict(type="EMAHook")]
        cfg.param_scheduler = None
        cfg.train_cfg.val_begin = 3
        for loader in (cfg.train_dataloader, cfg.val_dataloader):
            loader.dataset.metainfo = dict(classes=("sports ball",))
        cfg.train_dataloader.dataset.pipeline[1].with_mask = False
        cfg.val_evaluator = [cfg.val_evaluator[0]]
        return Runner.from_cfg(cfg)

    runner("straight").train()
    stopped = runner("resumed")
    stopped.register_hook(StopInSecondEpoch(), "LOWEST")
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    runner("resumed", resume=True).train()
    a, b = (checkpoint(tmp_path / folder) for folder in ("straight", "resumed"))
    assert_same(a["state_dict"], b["state_dict"])
    assert_same(a["ema_state_dict"], b["ema_state_dict"])


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (dict(teacher_weight=-1), "teacher_weight must be 0 or more, got -1"),
        (
            dict(teacher=dict(_delete_=True, **tiny.yolox())),
            "must be an RTMDet, got YOLOX",
        ),
        (dict(bbox_head=dict(num_classes=2)), "the classes 1 and the model 2"),
        (dict(bbox_head=dict(in_channels=8)), "the channels 16 and the model 8"),
        (
            dict(bbox_head=dict(anchor_generator=dict(strides=[4, 8, 16]))),
            "has the strides .*32.* and the model .*4",
        ),
    ],
)
def test_another_kind_of_teacher_is_refused(weights, changes, named):
    cfg = Config(config(weights))
    cfg.merge_from_dict(changes)
    with pytest.raises(ValueError, match=named):
        MODELS.build(cfg.to_dict())


def test_weights_of_another_teacher_are_refused(weights, tmp_path):
    torch.save({"backbone.x": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(RuntimeError, match="other.pth is of another model"):
        build(tmp_path / "other.pth")
