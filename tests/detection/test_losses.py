"""Machine losses: parts of a config, with a detector of their own or the model's."""

import copy
import textwrap
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner
from torch import nn

from compressai_hm.detection import MachineLoss
from compressai_hm.detection.datasets import drawn
from compressai_hm.detection.losses import Decoded, base

from . import tiny
from .test_detector import losses, opened, parts_with_gradient, total
from .test_training import StopInSecondEpoch, assert_same, checkpoint, tool

NAMES = tuple(drawn.CATEGORIES.values())


# CosineFeatureLoss, as the documentation has it.
DOCUMENTED = textwrap.dedent(base.__doc__.split("::\n")[1].split("\nand in the")[0])
exec(DOCUMENTED)


def test_the_page_shows_the_same_loss():
    """But for its docstring, and the order of imports."""
    page = Path(__file__).parents[2] / "docs/tutorials/own_loss.md"
    lines = page.read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if line and '"""' not in line]
    own = [line for line in DOCUMENTED.splitlines() if line]
    own = own[own.index("@MODELS.register_module()") :]
    assert len(own) > 4 and "\n".join(own) in "\n".join(lines)


@MODELS.register_module()
class RoughnessLoss(MachineLoss):
    """Asks for no detector, holds a network, and logs."""

    compares = False

    def __init__(self, direction=1.0, **kwargs):
        super().__init__(**kwargs)
        self.filter = nn.Sequential(nn.Conv2d(3, 1, 3), nn.BatchNorm2d(1))
        nn.init.constant_(self.filter[0].weight, direction)

    def forward(self, reading):
        rough = self.filter(reading.view).square().mean()
        return {"loss_rough": rough, "rough": rough.detach()}


@pytest.fixture
def other(tmp_path):
    """A second detector's config and weights, for losses of its own."""
    torch.manual_seed(5)
    model = tiny.model(detector=tiny.yolox())
    model.init_weights()
    path = tmp_path / "other.pth"
    saved = {"state_dict": model.detector.state_dict(), "meta": {}}
    saved["meta"]["dataset_meta"] = {"classes": NAMES}
    torch.save(saved, path)
    return dict(
        detector=tiny.yolox(), checkpoint=str(path), resize=dict(scale=(64, 64))
    )


def test_a_loss_reads_at_the_size_of_its_resize(other):
    """Whatever sizes its detector was trained at."""
    other["detector"] = tiny.yolox(random_size_range=(96, 160), interval=1)
    model = tiny.model(machine_losses=[dict(type="FeatureLoss", **other)])
    detector, sizes = model.machine_losses.losses[0].detector, set()
    detector.module.backbone.register_forward_pre_hook(
        lambda m, args: sizes.add(tuple(args[0].shape[-2:]))
    )
    for i in range(8):
        MessageHub.get_current_instance().update_info("iter", i)
        losses(model)
    assert sizes == {(64, 64)}


def build(machine_losses, **kwargs):
    torch.manual_seed(0)
    kwargs.setdefault("detector", tiny.faster_rcnn())
    model = tiny.model(machine_losses=machine_losses, **kwargs)
    torch.manual_seed(0)  # whatever the losses have drawn
    model.init_weights()
    return opened(model)


def seeded(model, data):
    MessageHub.get_current_instance().update_info("iter", 0)  # YOLOX asks for it
    torch.manual_seed(1)
    return losses(model, copy.deepcopy(data))


def terms(model, view, x, samples):
    """D_m's, unweighted by λ_m, of any view."""
    decoded = Decoded(x, {}, view, samples, training=True)
    return model.machine_losses.terms(decoded, model)


def test_feature_error_compares_with_the_uncompressed_picture():
    model = tiny.model(
        detector=tiny.yolox(random_size_range=(64, 96), size_divisor=32, interval=1),
        machine_losses=dict(labels=0.5, features=2.0),
        lambda_machine=3.0,
    )
    model.init_weights()
    model.train()
    MessageHub.get_current_instance().update_info("iter", 0)  # YOLOX asks for it
    data = model.data_preprocessor(tiny.batch(), True)
    x, samples = data["inputs"], data["data_samples"]
    losses = terms(model, x, x, samples)
    assert losses["loss_features"] == 0  # the same augmentation acted on both
    worse = (x + 0.3 * torch.rand_like(x)).requires_grad_()
    losses = terms(model, worse, x, samples)
    assert losses["loss_features"] > 0
    losses["loss_features"].backward()
    assert worse.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.detector.parameters())
    assert {"loss_features", "loss_cls"} <= model.loss(x, samples).keys()


def test_object_error_is_that_inside_the_boxes():
    model = tiny.model(
        detector=tiny.faster_rcnn(), machine_losses=dict(objects=1.0), resize={}
    )
    model.init_weights()
    model.train()
    x = torch.rand(1, 3, 64, 512)

    def error(left, right, boxes=((8, 8, 56, 56),)):
        worse = x.clone()
        worse[..., left:right] = 1 - worse[..., left:right]
        sample = tiny.sample(64, 512, boxes)
        sample = model.data_preprocessor(
            dict(inputs=[x[0]], data_samples=[sample]), True
        )["data_samples"][0]
        losses = terms(model, worse, x, [sample])
        return float(losses["loss_objects"])

    assert error(0, 0) == 0
    assert error(8, 56) > 20 * error(448, 512)
    assert error(0, 512, boxes=()) == 0
    bare = DetDataSample(metainfo=dict(img_shape=(64, 512)))
    with pytest.raises(ValueError, match="objects needs annotated pictures"):
        terms(model, x, x, [bare])


@pytest.mark.parametrize("kind", ["faster_rcnn", "yolox"])
def test_what_is_found_in_the_uncompressed_picture_is_the_label(kind):
    detector = getattr(tiny, kind)()
    if kind == "yolox":  # untrained, it is sure of nothing
        detector["test_cfg"]["score_thr"] = 0.0
    model = tiny.model(
        detector=detector,
        machine_losses=[dict(type="PseudoLabelLoss", score_thr=0.0)],
    )
    model.init_weights()
    model.train()
    MessageHub.get_current_instance().update_info("iter", 0)
    data = model.data_preprocessor(tiny.batch(), True)
    x, samples = data["inputs"], data["data_samples"]
    worse = (x + 0.3 * torch.rand_like(x)).requires_grad_()
    bare = [sample.new() for sample in samples]
    for sample in bare:
        del sample.gt_instances
    torch.manual_seed(3)
    got = terms(model, worse, x, bare)
    reading = model.read(Decoded(x, {}, worse, bare, True), True)
    with torch.no_grad():
        inputs = model.view.batch(model.detector, x, samples, True)[0]
        found = model.detector.predict(inputs, reading.annotations, rescale=False)
    labels = [own.new() for own in found]
    for sample, own in zip(labels, found, strict=True):
        assert len(own.pred_instances)
        sample.gt_instances = own.pred_instances
        sample.ignored_instances = own.pred_instances[:0]
    torch.manual_seed(3)
    expected = model.detector.loss(reading.inputs, labels)
    assert set(got) == set(expected)
    assert float(total(got)) == pytest.approx(float(total(expected)), rel=1e-4)
    total(got).backward()
    assert worse.grad.abs().sum() > 0
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(total(terms(model, worse, x, bare)))


def test_a_users_loss_is_a_part_of_the_config():
    model = build(
        [dict(type="CosineFeatureLoss", weight=0.5), dict(type="RoughnessLoss")],
        lambda_machine=3.0,
        trainable=("g_t",),
    )
    data = tiny.batch()
    got = seeded(model, data)
    assert 0 < got["loss_cosine"] < 3
    assert not {"loss_cls", "loss_features"} & set(got)
    assert got["loss_rough"] == 3 * got["rough"]  # logged as is
    got["loss_cosine"].backward()
    assert parts_with_gradient(model) == {"g_t"}
    twice = seeded(build([dict(type="CosineFeatureLoss")], trainable=("g_t",)), data)
    assert torch.allclose(got["loss_cosine"], 1.5 * twice["loss_cosine"])


def test_what_a_loss_holds_is_no_part_of_the_model():
    model = build([dict(type="RoughnessLoss", direction=2.0)])
    plain = build(None)
    assert list(model.state_dict()) == list(plain.state_dict())
    (loss,) = model.machine_losses.losses
    before = copy.deepcopy(loss.state_dict())
    total(losses(model)).backward()
    assert all(p.grad is None for p in loss.parameters())
    assert_same(before, loss.state_dict())  # of its batch norm, too


def test_the_short_form_means_the_same_to_the_bit():
    data = tiny.batch()
    short = seeded(build(dict(labels=0.5, features=2.0, objects=0.3)), data)
    long = seeded(
        build(
            [
                dict(type="FeatureLoss", weight=2.0),
                dict(type="ObjectFeatureLoss", weight=0.3),
                dict(type="DetectorLoss", weight=0.5),
                dict(type="RoughnessLoss", weight=0),
            ]
        ),
        data,
    )
    assert list(short) == list(long)
    for key, value in short.items():
        for a, b in zip(listed(value), listed(long[key]), strict=True):
            assert torch.equal(a, b), key


def listed(value):
    return value if isinstance(value, list) else [value]


def test_a_loss_reads_with_a_detector_of_its_own(other):
    """As a model with that detector would, and beside the model's own."""
    data = tiny.batch()
    kwargs = dict(trainable=("g_t",), lambda_machine=2.0)
    both = build(
        [
            dict(type="FeatureLoss"),
            dict(type="FeatureLoss", weight=0.5, **other),
            dict(type="DetectorLoss", **other),
        ],
        **kwargs,
    )
    got = seeded(both, data)
    assert {"loss_features", "YOLOX.loss_features", "YOLOX.loss_cls"} <= set(got)
    alone = build(
        [dict(type="FeatureLoss"), dict(type="DetectorLoss")],
        detector=other["detector"],
        detector_checkpoint=other["checkpoint"],
        resize=other["resize"],
        **kwargs,
    )
    alone.codec.load_state_dict(both.codec.state_dict())
    expected = seeded(alone, data)
    assert torch.equal(got["YOLOX.loss_features"], 0.5 * expected["loss_features"])
    assert torch.equal(got["YOLOX.loss_bbox"], expected["loss_bbox"])
    total({"loss": got["YOLOX.loss_features"]}).backward()
    assert parts_with_gradient(both) == {"g_t"}


def test_its_detector_is_frozen_and_in_no_optimizer_and_no_checkpoint(other):
    model = build([dict(type="DetectorLoss"), dict(type="DetectorLoss", **other)])
    plain = build(None)
    assert list(model.state_dict()) == list(plain.state_dict())
    (own,) = model.machine_losses.detectors
    before = copy.deepcopy(own.module.state_dict())
    optim = build_optim_wrapper(
        model,
        dict(
            constructor="HumanMachineOptimWrapperConstructor",
            optimizer=dict(type="Adam", lr=1e-3),
        ),
    )
    MessageHub.get_current_instance().update_info("iter", 0)
    model.train().train_step(tiny.batch(), optim)
    assert own.module.training  # DETR-like losses look at it
    assert all(p.grad is None for p in own.module.parameters())
    assert_same(before, own.module.state_dict())  # and no statistics moved
    assert not model.eval().machine_losses.detectors[0].module.training


def test_its_weights_are_read_where_they_are_first_needed(other):
    loss = [dict(type="FeatureLoss", **other)]
    data = tiny.batch()
    expected = seeded(build(loss), data)["YOLOX.loss_features"]
    model = tiny.model(detector=tiny.faster_rcnn(), machine_losses=loss)
    model.load_state_dict(build(loss).state_dict())  # no init_weights of this one
    assert torch.equal(seeded(model, data)["YOLOX.loss_features"], expected)


def test_its_detector_follows_the_pictures(other):
    model = build([dict(type="FeatureLoss", **other)])
    (own,) = model.machine_losses.detectors
    device = torch.device("meta")
    module = own.on(device)
    assert {p.device for p in module.parameters()} == {device}
    assert module.data_preprocessor.device == device


def test_losses_of_one_detector_share_their_passes(other):
    same = copy.deepcopy(other)
    model = build(
        [
            dict(type="FeatureLoss"),
            dict(type="ObjectFeatureLoss"),
            dict(type="FeatureLoss", **other),
            dict(type="ObjectFeatureLoss", **same),
            dict(type="CosineFeatureLoss", **same),
        ]
    )
    (own,) = model.machine_losses.detectors
    passes = []
    for detector in (model.detector, own.module):
        detector.backbone.register_forward_hook(
            lambda m, *_, detector=detector: passes.append(type(detector).__name__)
        )
    losses(model)
    assert sorted(passes) == ["FasterRCNN"] * 2 + ["YOLOX"] * 2


def test_detectors_of_one_type_are_told_apart(other, tmp_path):
    weights = torch.load(other["checkpoint"])
    weights["state_dict"]["backbone.stem.conv.conv.weight"] *= -1
    torch.save(weights, tmp_path / "third.pth")
    third = {**other, "checkpoint": str(tmp_path / "third.pth")}
    loss = dict(type="FeatureLoss")
    got = losses(
        build([{**loss, **other}, {**loss, **third}, {**loss, "prefix": "mine"}])
    )
    named = {"YOLOX.loss_features", "YOLOX_2.loss_features", "mine.loss_features"}
    assert named == {key for key in got if "features" in key}
    assert got["YOLOX.loss_features"] != got["YOLOX_2.loss_features"]
    with pytest.raises(ValueError, match="FeatureLoss gives 'loss_features'.*prefix"):
        losses(build([loss, loss]))


def test_a_codec_without_a_detector_learns_from_a_losss(other):
    model = build([dict(type="FeatureLoss", **other)], detector=None)
    total({"loss": losses(model)["YOLOX.loss_features"]}).backward()
    assert parts_with_gradient(model) == {"g_a", "g_s", "g_t"}
    with pytest.raises(ValueError, match="there is none: give model.detector"):
        losses(build([dict(type="FeatureLoss")], detector=None))
    assert "loss_features" not in losses(build(dict(features=1.0), detector=None))


def test_mixed_precision_reaches_the_codec_through_a_losss_detector(other):
    model = build([dict(type="FeatureLoss", **other)], trainable=("g_a", "g_t"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = losses(model)["YOLOX.loss_features"]
    assert got.dtype == torch.float32
    got.backward()
    assert parts_with_gradient(model) == {"g_a", "g_t"}


def refined_with(machine_losses):
    model = build(machine_losses)
    seen = []
    inner = model._losses

    def spied(*args, **kwargs):
        seen.append(inner(*args, **kwargs))
        return seen[-1]

    model._losses = spied
    torch.manual_seed(1)
    model.eval().refine(torch.rand(1, 3, 64, 64), 1)
    return seen[0]


def test_refinement_takes_features_in_place_of_annotations(other):
    short = [
        refined_with(machine_losses)["loss_features"]
        for machine_losses in (
            dict(labels=1.0),
            dict(labels=5.0, objects=2.0),
            dict(features=1.0, objects=2.0),
        )
    ]
    assert short[0] == short[1] == short[2] > 0
    weighed = refined_with(dict(labels=1.0, features=0.5))["loss_features"]
    assert weighed == 0.5 * short[0]
    got = refined_with(
        [
            dict(type="DetectorLoss", weight=7.0),
            dict(type="RoughnessLoss"),
            dict(type="DetectorLoss", **other),
        ]
    )
    machine = {k for k in got if "loss" in k} - {"loss_rate", "loss_human"}
    assert machine == {"loss_features", "loss_rough", "YOLOX.loss_features"}
    assert got["loss_features"] == short[0]


@pytest.mark.parametrize(
    ("loss", "error", "named"),
    [
        (dict(type="FeatureLoss", weight=-1), ValueError, "FeatureLoss.weight.*-1"),
        (dict(type="FeatureLoss", checkpoint="a.pth"), ValueError, "give detector"),
        (dict(type="FeatureLoss", resize={}), ValueError, "give detector"),
        (
            dict(type="FeatureLoss", detector=tiny.yolox()),
            ValueError,
            "needs a checkpoint",
        ),
        (dict(type="FeatureLoss", prefix="loss_a"), ValueError, "without 'loss'"),
        (dict(type="L1Loss"), TypeError, "L1Loss is no MachineLoss"),
        (dict(weight=1.0), ValueError, r"takes \[dict\(type="),
    ],
)
def test_a_bad_loss_names_its_key(loss, error, named):
    with pytest.raises(error, match=named):
        build([loss])


def test_a_detector_that_trains_is_compared_with_nothing():
    kwargs = dict(trainable=("g_t", "detector"))
    with pytest.raises(ValueError, match="CosineFeatureLoss.*need a frozen detector"):
        build([dict(type="CosineFeatureLoss")], **kwargs)
    build([dict(type="RoughnessLoss"), dict(type="DetectorLoss")], **kwargs)


def test_heads_on_the_latent_have_their_own_losses_only(other):
    kwargs = dict(task_view="y_hat")
    with pytest.raises(ValueError, match="detector of DetectorLoss reads pictures"):
        build([dict(type="DetectorLoss", **other)], **kwargs)
    with pytest.raises(ValueError, match="CosineFeatureLoss needs the detector's"):
        build([dict(type="CosineFeatureLoss")], **kwargs)
    assert "loss_cls" in losses(build([dict(type="DetectorLoss")], **kwargs))


def of_own(work_dir, drawn_set, other, **changes):
    cfg = tiny.config(work_dir, drawn_set, **changes)
    cfg.model.machine_losses = [
        dict(type="DetectorLoss"),
        dict(type="DetectorLoss", weight=0.3, **other),
        dict(type="FeatureLoss", **other),
    ]
    cfg.custom_hooks.append(dict(type="EMAHook", momentum=0.5))
    return cfg


def test_a_resumed_run_reads_them_again_and_is_bit_identical(
    tmp_path, drawn_set, other
):
    straight = of_own(tmp_path / "straight", drawn_set, other)
    Runner.from_cfg(straight).train()
    stopped = Runner.from_cfg(of_own(tmp_path / "resumed", drawn_set, other))
    stopped.register_hook(StopInSecondEpoch(), "LOWEST")
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    Runner.from_cfg(of_own(tmp_path / "resumed", drawn_set, other, resume=True)).train()
    a, b = (checkpoint(tmp_path / d) for d in ("straight", "resumed"))
    assert_same(a["state_dict"], b["state_dict"])
    assert {k.split(".")[0] for k in a["state_dict"]} == {"codec", "detector"}


class Poison(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        (own,) = runner.model.machine_losses.detectors
        if runner.iter == 2:
            nn.init.constant_(own.module.backbone.stem.conv.conv.weight, float("nan"))


def test_the_term_that_is_no_number_is_named_with_its_detector(
    tmp_path, drawn_set, other
):
    cfg = of_own(tmp_path, drawn_set, other)
    cfg.model.machine_losses.pop(1)
    cfg.custom_hooks = []
    runner = Runner.from_cfg(cfg)
    runner.register_hook(Poison())
    with pytest.raises(RuntimeError, match="YOLOX.loss_features is nan in iteration 3"):
        runner.train()


def test_two_processes_wait_for_no_unused_parameter(tmp_path, drawn_set, other):
    cfg = of_own(tmp_path, drawn_set, other)
    cfg.model.trainable = ("g_t",)
    cfg.train_cfg.max_epochs = 1
    cfg.dump(tmp_path / "cfg.py")
    tool(
        *("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
        *(tiny.ROOT / "tools/train.py", tmp_path / "cfg.py"),
        *("--launcher", "pytorch", "--work-dir", tmp_path),
    )
    assert (tmp_path / "epoch_1.pth").exists()


def test_features_are_computed_once_for_all_losses(other):
    model = build(
        [dict(type="FeatureLoss"), dict(type="DetectorLoss")], trainable=("g_t",)
    )
    calls = []
    model.detector.neck.register_forward_hook(lambda *_: calls.append(1))
    both = seeded(model, tiny.batch())
    assert len(calls) == 2  # of the decoded pictures, and of the others
    assert "extract_feat" not in vars(model.detector)
    alone = seeded(build([dict(type="DetectorLoss")], trainable=("g_t",)), tiny.batch())
    assert {key for key in alone if key.startswith("loss")} < set(both)
