import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmcv.cnn.bricks import DropPath
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from torch import nn

from compressai_hm import QuantSteps, picture_bits
from compressai_hm.detection import DetectorView
from compressai_hm.detection.engine.hooks import HoldRateHook
from compressai_hm.detection.models import detector

from . import tiny

ALL = ("g_a", "g_s", "entropy", "g_t", "detector")


def losses(model, data=None):
    model.train()
    data = model.data_preprocessor(data or tiny.batch(), training=True)
    return model.loss(data["inputs"], data["data_samples"])


def total(losses):
    return sum(
        sum(v) if isinstance(v, (list, tuple)) else v
        for k, v in losses.items()
        if "loss" in k
    )


def opened(model):
    """g_t after its first step: its zero last convolution blocks all before it."""
    nn.init.normal_(model.codec.g_t.layers[-1].weight, std=0.01)
    return model


def parts_with_gradient(model) -> set[str]:
    return {
        part
        for part, parameters in model.part_parameters().items()
        if any(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters)
    }


@pytest.mark.parametrize(
    "trainable",
    [
        ALL,
        ("g_a", "g_s", "entropy", "g_t"),
        ("g_t",),
        ("g_s", "g_t"),
        ("g_a",),
        ("entropy",),
        ("detector",),
    ],
)
def test_gradients_reach_exactly_the_parts_set_to_train(trainable):
    model = opened(tiny.model(detector=tiny.faster_rcnn(), trainable=trainable))
    total(losses(model)).backward()
    expected = set(trainable)
    if "entropy" in trainable:
        expected.add("quantiles")
    assert parts_with_gradient(model) == expected


@pytest.mark.parametrize(
    ("term", "reached"),
    [
        ("loss_rate", {"g_a", "entropy"}),
        ("loss_human", {"g_a", "g_s"}),
        ("loss_rpn_cls", {"g_a", "g_s", "g_t", "detector"}),
        ("loss_aux", {"quantiles"}),
    ],
)
def test_each_loss_reaches_its_parts(term, reached):
    model = opened(tiny.model(detector=tiny.faster_rcnn(), trainable=ALL))
    total({term: losses(model)[term]}).backward()
    assert parts_with_gradient(model) == reached


@pytest.mark.parametrize(
    ("kwargs", "frozen"),
    [
        (dict(task_view="x_hat"), {"g_t"}),
        (dict(lambda_machine=0.0), {"g_t", "detector"}),
        (dict(lambda_machine=0.0, lambda_human=0.0), {"g_s", "g_t", "detector"}),
    ],
)
def test_parts_that_no_loss_reaches_are_frozen(kwargs, frozen):
    model = tiny.model(detector=tiny.faster_rcnn(), trainable=ALL, **kwargs)
    assert set(ALL) - set(model.trainable) == frozen
    total(losses(model)).backward()
    for part, parameters in model.part_parameters().items():
        for p in parameters:
            assert p.requires_grad == (part not in frozen)
            if p.requires_grad:
                assert p.grad is not None  # DDP never waits for an unused one


def test_without_a_detector_the_codec_trains_alone():
    model = tiny.model(detector=None)
    got = losses(model)
    assert set(got) == {"loss_rate", "loss_human", "loss_aux", "psnr"}
    total(got).backward()
    assert parts_with_gradient(model) == {"g_a", "g_s", "entropy", "quantiles"}


def test_loss_aux_is_absent_where_the_entropy_part_is_frozen():
    model = tiny.model(detector=tiny.faster_rcnn(), trainable=("g_a", "g_t"))
    assert "loss_aux" not in losses(model)


def test_a_frozen_detector_keeps_its_statistics_but_is_training():
    model = tiny.model(detector=tiny.faster_rcnn())
    before = copy.deepcopy(model.detector.state_dict())
    losses(model)
    assert model.detector.training
    for key, value in model.detector.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_a_frozen_detectors_dropout_is_off():
    attention = nn.MultiheadAttention(8, 2, dropout=0.5)
    others = nn.Sequential(nn.Dropout(0.5), DropPath(0.5), attention)
    model = tiny.model(detector=tiny.faster_rcnn())
    model.detector.neck.add_module("extra", others)
    model.train()
    x = torch.rand(4, 1, 8)
    outs = [others[1](others[0](attention(x, x, x)[0])) for _ in range(2)]
    assert torch.equal(*outs)


def test_a_frozen_stream_is_the_coded_one():
    """No noise where nothing of the stream trains."""
    model = tiny.model(detector=tiny.faster_rcnn(), trainable=("g_t",))
    data = tiny.batch()
    first = losses(model, copy.deepcopy(data))["loss_rate"]
    assert torch.equal(first, losses(model, data)["loss_rate"])
    noisy = tiny.model(detector=tiny.faster_rcnn())
    assert noisy.train().codec.training


def test_mixed_precision_trains_every_part():
    model = opened(tiny.model(detector=tiny.faster_rcnn()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = losses(model)
    assert got["loss_rate"].dtype == got["loss_human"].dtype == torch.float32
    total(got).backward()
    expected = {"g_a", "g_s", "entropy", "quantiles", "g_t"}
    assert parts_with_gradient(model) == expected


def test_lambdas_weigh_their_losses():
    data = tiny.batch()
    a, b = (
        tiny.model(detector=tiny.faster_rcnn(), lambda_human=h, lambda_machine=m)
        for h, m in ((0.01, 1.0), (0.02, 3.0))
    )
    b.load_state_dict(a.state_dict())
    results = []
    for model in (a, b):
        torch.manual_seed(0)
        results.append(losses(model, copy.deepcopy(data)))
    one, other = results
    assert torch.equal(one["loss_rate"], other["loss_rate"])
    for key, factor in (("loss_human", 2), ("loss_cls", 3)):
        assert torch.allclose(other[key], factor * one[key])
    assert other["acc"] == one["acc"]


def test_errors_are_weighed_against_bits_by_place():
    """λ_h / Δ², for each place of each picture of a padded batch."""
    model = tiny.model(lambda_human=0.01, steps=dict(low=1, high=1))
    offsets = np.zeros((4, 8), np.int8)
    offsets[:, 2:] = -4  # half the step
    drawn = [QuantSteps(96, offsets), QuantSteps(-96)]
    model.steps.draw = lambda count, size: drawn
    model.codec.synthesize = lambda y_hat, size, views: {"x_hat": x + error}
    data = tiny.batch((50, 100), (64, 128))
    x = model.data_preprocessor(copy.deepcopy(data), True)["inputs"]
    error = 0.1 * torch.rand_like(x)
    found = losses(model, data)["loss_human"]
    squares = 0.01 * 255**2 * error.square()
    squares[0, :, :, :32] /= 2**2
    squares[1] /= 0.5**2
    expected = (squares[0, :, :50, :100].mean() + squares[1].mean()) / 2
    assert torch.allclose(found, expected)


@pytest.mark.parametrize("view", ["x_bar", "y_hat"])
def test_what_machines_read_is_weighed_for_the_codec_alone(view, monkeypatch):
    """As by another λ_m where the step is the same everywhere."""
    model = tiny.model(
        detector=tiny.faster_rcnn(),
        task_view=view,
        lambda_human=0,
        steps=dict(low=0.5, high=0.5),
        trainable=(*ALL[:-2], "g_t" if view == "x_bar" else "latent_backbone", ALL[-1]),
    )
    data, gradients = tiny.batch(), []
    for weighed in (True, False):
        if not weighed:
            monkeypatch.setattr(
                detector, "_weight_gradients", lambda view, weight: view
            )
        torch.manual_seed(0)
        model.zero_grad()
        found = losses(opened(model), copy.deepcopy(data))
        found["loss_cls"].backward()
        own = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
        gradients.append(own)
    assert any(gradients[1][k].any() for k in gradients[1] if k.startswith("codec.g_a"))
    for key, plain in gradients[1].items():
        reads = key.startswith("detector.") and "backbone" not in key
        factor = 4 if key.startswith("codec.") else 1
        if reads or factor == 4:
            own = gradients[0][key]
            assert torch.allclose(own, factor * plain, rtol=1e-3, atol=1e-7), key


def test_a_training_for_many_rates_holds_none():
    model = tiny.model(steps=dict(low=0.5, high=2))
    runner = SimpleNamespace(model=model, hooks=[])
    with pytest.raises(ValueError, match="model.steps trains for many"):
        HoldRateHook(0.2).before_train(runner)


def test_bpp_counts_original_pixels_and_no_padding():
    """A padded batch has the mean bpp of its pictures alone, of any size."""
    model = tiny.model(trainable=("g_s",))  # a frozen stream: no noise
    small, large = tiny.batch((50, 33)), tiny.batch((70, 100))
    both = {k: small[k] + large[k] for k in small}
    alone = [losses(model, copy.deepcopy(d))["loss_rate"] for d in (small, large)]
    together = losses(model, both)["loss_rate"]
    assert together == pytest.approx(float(sum(alone)) / 2, rel=0.05)
    x = model.data_preprocessor(small)["inputs"]
    bits = picture_bits(model.codec(x)["likelihoods"], [(50, 33)])
    assert torch.allclose(alone[0], bits / (50 * 33))


@pytest.mark.parametrize("size", [(64, 64), (50, 33), (1, 1)])
def test_bits_are_the_streams(size):
    model = tiny.model().eval()
    data = model.data_preprocessor(tiny.batch(size, boxes=()))
    (sample,) = model.predict(**renamed(data))
    coded = model.codec.compress(data["inputs"])
    assert sample.bits == 8 * sum(len(s) for p in coded["strings"] for s in p)
    assert sample.x_hat.shape == (3, *size) and sample.x_hat.dtype == torch.uint8


def renamed(data):
    return dict(batch_inputs=data["inputs"], batch_data_samples=data["data_samples"])


LETTERBOX = dict(scale=(96, 96), pad_to_square=True, pad_val=114)


@pytest.mark.parametrize(
    ("detector", "resize"),
    [
        (tiny.faster_rcnn, dict(scale=(120, 80))),
        (tiny.mask_rcnn, dict(scale=(120, 80))),
        (tiny.yolox, LETTERBOX),
    ],
    ids=["faster_rcnn", "mask_rcnn", "yolox"],
)
def test_a_lossless_codec_changes_nothing(detector, resize):
    init_default_scope("mmdet")
    model = tiny.model(dict(type="hm-test-lossless"), detector(), resize=resize).eval()
    plain = MODELS.build(ConfigDict(detector())).eval()
    plain.load_state_dict(model.detector.state_dict())
    data = tiny.batch((61, 90), (90, 43))
    found = model.test_step(copy.deepcopy(data))
    view = DetectorView(**resize)
    for picture, sample, ours in zip(*data.values(), found, strict=True):
        rgb = picture.flip(0).float() / 255
        packed = view.prepare_testing(rgb, sample)
        (theirs,) = plain.test_step({k: [v] for k, v in packed.items()})
        assert len(theirs.pred_instances.bboxes)
        for key, value in theirs.pred_instances.items():
            got = ours.pred_instances[key]
            same = torch.equal if isinstance(value, torch.Tensor) else _equal
            assert same(got, value), key


def _equal(a, b):
    return all((x == y).all() for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("detector", [tiny.faster_rcnn, tiny.mask_rcnn, tiny.yolox])
def test_detectors_train_and_predict(detector):
    resize = LETTERBOX if detector is tiny.yolox else None
    model = tiny.model(detector=detector(), resize=resize or dict(scale=(96, 96)))
    loss = total(losses(model, tiny.batch(ignored=((50, 10, 60, 20),))))
    assert loss.isfinite()
    loss.backward()
    (found,) = model.eval().test_step(tiny.batch((61, 90)))
    assert {"bboxes", "scores", "labels"} <= set(found.pred_instances.keys())
    if detector is tiny.mask_rcnn:
        assert found.pred_instances.masks.shape[1:] == (61, 90)


def test_batch_augmentations_act_on_the_decoded_view():
    model = tiny.model(
        detector=tiny.yolox(random_size_range=(64, 128), interval=1),
        resize=LETTERBOX,
        trainable=ALL,
    )
    sizes = set()
    model.detector.backbone.register_forward_pre_hook(
        lambda m, args: sizes.add(args[0].shape[-1])
    )
    for i in range(8):
        MessageHub.get_current_instance().update_info("iter", i)
        total(losses(model)).backward()
    assert len(sizes) > 1
    assert model.codec.g_a[0].weight.grad.abs().sum() > 0


def test_coding_forward_needs_no_bytes():
    model = tiny.model(coding="forward").eval()
    (sample,) = model.test_step(tiny.batch((64, 64)))
    assert sample.bits > 0 and sample.x_bar.shape == (3, 64, 64)


def test_tables_reach_no_state_dict_and_follow_the_weights():
    model = tiny.model().eval()
    model.test_step(tiny.batch((64, 64)))
    assert not any("cdf" in key or "scale_table" in key for key in model.state_dict())
    assert all(b.numel() == 0 for n, b in model.named_buffers() if "cdf" in n)
    first = model.codec.latent_coder()
    model.train().eval()
    model.load_state_dict(model.state_dict())
    assert model.codec.latent_coder().fingerprint() == first.fingerprint()
    model.codec.entropy_bottleneck.biases[0].data += 3
    assert model.codec.latent_coder().fingerprint() != first.fingerprint()


@pytest.mark.parametrize(
    ("kwargs", "error", "named"),
    [
        (dict(lambda_human=-1.0), ValueError, "lambda_human.*-1"),
        (dict(lambda_machine=-0.5), ValueError, "lambda_machine.*-0.5"),
        (dict(lambda_machine=float("nan")), ValueError, "lambda_machine.*nan"),
        (dict(task_view="y"), ValueError, "task_view.*'y'"),
        (dict(trainable=("g_x",)), ValueError, "trainable.*g_x"),
        (dict(resize=dict(size=3), detector=True), ValueError, "size"),
        (
            dict(codec=dict(tiny.CODEC, pretrained="base")),
            ValueError,
            "needs model.codec.quality",
        ),
        (dict(codec=dict(type="hm-none")), ValueError, "hm-none.*hm-mbt2018"),
        (dict(codec=dict(type="mbt2018", N=8, M=8)), ValueError, "hm-mbt2018"),
        (dict(codec=dict(type="hm-mbt2018", quality=9)), ValueError, "quality 9"),
        (
            dict(
                codec=dict(type="hm-elic2022", N=8, M=16, groups=[4, 4, 8]),
                quantizer="ste",
            ),
            ValueError,
            "quantizer='ste'.* 'noise' only",
        ),
    ],
)
def test_a_bad_config_names_its_key(kwargs, error, named):
    if kwargs.get("detector"):
        kwargs["detector"] = tiny.faster_rcnn()
    with pytest.raises(error, match=named):
        tiny.model(**kwargs)


def test_a_config_without_codec():
    init_default_scope("mmdet")
    with pytest.raises(TypeError, match="model.codec is missing"):
        MODELS.build(dict(type="HumanMachineDetector"))


def test_a_resize_in_the_pipeline_is_refused():
    data = tiny.batch((64, 64))
    data["data_samples"][0].set_metainfo(dict(scale_factor=(0.5, 0.5)))
    with pytest.raises(ValueError, match="model.resize"):
        tiny.model().data_preprocessor(data)


def test_checkpoints_of_another_model_are_refused(tmp_path):
    model = tiny.model(detector=tiny.faster_rcnn())
    other = tiny.model(dict(tiny.CODEC, N=12))
    for name, net in (
        ("hm", other),
        ("codec", other.codec),
        ("plain", nn.Linear(2, 2)),
    ):
        torch.save({"state_dict": net.state_dict()}, tmp_path / f"{name}.pth")
        with pytest.raises(RuntimeError, match="another model"):
            load_checkpoint(model, str(tmp_path / f"{name}.pth"))
        started = tiny.model(dict(tiny.CODEC, checkpoint=str(tmp_path / f"{name}.pth")))
        with pytest.raises(RuntimeError, match="another model"):
            started.init_weights()
        started = tiny.model(
            detector=tiny.faster_rcnn(),
            detector_checkpoint=str(tmp_path / f"{name}.pth"),
        )
        with pytest.raises(RuntimeError, match="another model"):
            started.init_weights()


def test_a_checkpoint_with_another_detector_is_refused(tmp_path):
    other = tiny.model(detector=tiny.faster_rcnn())
    torch.save({"state_dict": other.state_dict()}, tmp_path / "other.pth")
    model = tiny.model(detector=tiny.mask_rcnn())
    with pytest.raises(RuntimeError, match="MaskRCNN.*detector.roi_head.mask_head"):
        load_checkpoint(model, str(tmp_path / "other.pth"))


def test_a_codec_trained_alone_is_tested_with_the_configs_detector(tmp_path):
    alone = tiny.model()
    torch.save({"state_dict": alone.state_dict()}, tmp_path / "alone.pth")
    source = tiny.model(detector=tiny.faster_rcnn()).detector
    torch.save(source.state_dict(), tmp_path / "detector.pth")
    model = tiny.model(
        detector=tiny.faster_rcnn(), detector_checkpoint=str(tmp_path / "detector.pth")
    )
    load_checkpoint(model, str(tmp_path / "alone.pth"))
    for key, value in source.state_dict().items():
        assert torch.equal(model.detector.state_dict()[key], value)
    with pytest.raises(RuntimeError, match="detector"):
        load_checkpoint(
            tiny.model(detector=tiny.faster_rcnn()), str(tmp_path / "alone.pth")
        )


def test_starting_weights_are_loaded(tmp_path):
    source = tiny.model(detector=tiny.faster_rcnn())
    torch.save({"state_dict": source.state_dict()}, tmp_path / "hm.pth")
    torch.save({"state_dict": source.codec.state_dict()}, tmp_path / "codec.pth")
    torch.save(source.detector.state_dict(), tmp_path / "detector.pth")
    for codec, own in (("hm", "hm"), ("codec", "detector")):
        model = tiny.model(
            dict(tiny.CODEC, checkpoint=str(tmp_path / f"{codec}.pth")),
            tiny.faster_rcnn(),
            detector_checkpoint=str(tmp_path / f"{own}.pth"),
        )
        model.init_weights()
        for key, value in source.state_dict().items():
            assert torch.equal(model.state_dict()[key], value), key


def test_an_anchor_stands_in_for_the_codec():
    """Tested like a learned codec, with its files' bits; it does not train."""
    codec = dict(type="jpeg", quality=30)
    model = tiny.model(codec=codec, detector=tiny.faster_rcnn()).eval()
    batch = tiny.batch((50, 33))
    x = model.data_preprocessor(copy.deepcopy(batch))["inputs"]
    (sample,) = model.test_step(batch)
    coded = model.codec.compress(x)
    assert sample.bits == 8 * len(coded["strings"][0][0]) > 0
    view = model.codec.decompress(**coded)["x_hat"][0]
    assert torch.equal(sample.x_hat, (view * 255).round().byte())
    assert torch.equal(sample.x_hat, sample.x_bar)
    assert "pred_instances" in sample
    with pytest.raises(ValueError, match="quality of JPEG .* got 300"):
        tiny.model(codec=dict(type="jpeg", quality=300))
    with pytest.raises(TypeError, match="JPEG does not train"):
        model.train().loss(x, batch["data_samples"])
