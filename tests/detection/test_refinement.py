import numpy as np
import pytest
import torch
from mmengine.config import Config

from compressai_hm import decode, encode, refine
from compressai_hm.detection.build import build_model
from compressai_hm.detection.datasets import drawn

from . import tiny


@pytest.fixture(scope="module")
def model():
    return build_model(str(tiny.CONFIGS / "hm_faster_rcnn_demo.py"))


@pytest.fixture(scope="module")
def picture():
    picture, *_ = drawn.draw(np.random.default_rng(11), ellipses=True)
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255


def test_it_lowers_the_coded_loss_and_leaves_the_decoder_alone(model, picture):
    seen = []
    losses = model._losses

    def spied(*args, **kwargs):
        out = losses(*args, **kwargs)
        terms = [float(v.detach()) for k, v in out.items() if "loss" in k]
        seen.append((sum(terms), set(out)))
        return out

    before = {k: v.clone() for k, v in model.state_dict().items()}
    print_of = model.codec.latent_coder().fingerprint()
    trainable = [p.requires_grad for p in model.parameters()]
    model._losses = spied
    try:
        y = model.refine(picture, 20)
    finally:
        del model._losses
    assert len(seen) == 21 and seen[-1][0] < seen[0][0]
    assert seen[0][1] >= {"loss_rate", "loss_human", "loss_features"}

    assert model.codec.latent_coder().fingerprint() == print_of
    assert [p.requires_grad for p in model.parameters()] == trainable
    assert not model.codec.training
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert torch.equal(model.refine(picture, 20), y)  # a file can be made again

    plain, refined = encode(model.codec, picture), encode(model.codec, picture, y=y)
    assert plain != refined
    mse = [
        float((decode(model.codec, d)["x_hat"] - picture).square().mean())
        for d in (plain, refined)
    ]
    assert len(refined) < len(plain) or mse[1] < mse[0]


def test_no_steps_change_nothing(model, picture):
    assert torch.equal(model.refine(picture, 0), model.codec.analyze(picture))


def test_random_augmentations_stay_out_of_it():
    augment = dict(random_size_range=(64, 96), size_divisor=32, interval=1)
    model = tiny.model(detector=tiny.yolox(**augment), trainable=("g_a", "detector"))
    model.init_weights()
    model.train()
    x = torch.rand(1, 3, 65, 33)
    assert torch.equal(model.refine(x, 3), model.refine(x, 3))
    assert model.codec.training and all(p.grad is None for p in model.parameters())


def test_a_stopped_refinement_leaves_the_codec_as_it_was():
    codec = tiny.model().codec.train()
    trainable = [p.requires_grad for p in codec.parameters()]
    seen = []

    def loss(latent):
        seen.append(latent)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return latent["y_hat"].sum()

    with pytest.raises(KeyboardInterrupt):
        refine(codec, torch.rand(1, 3, 64, 64), loss, 2)
    assert codec.training
    assert [p.requires_grad for p in codec.parameters()] == trainable


def test_what_cannot_be_refined_is_said(tmp_path):
    model = tiny.model(detector=tiny.faster_rcnn(), task_view="y_hat")
    with pytest.raises(ValueError, match="LatentHumanMachineDetector has none"):
        model.refine(torch.rand(1, 3, 64, 64), 1)
    with pytest.raises(ValueError, match="for model.step=1"):
        tiny.model(step=2.0).refine(torch.rand(1, 3, 64, 64), 1)
    with pytest.raises(ValueError, match="0 or more, got -1"):
        tiny.model().eval().refine(torch.rand(1, 3, 64, 64), -1)
    with pytest.raises(ValueError, match="is not of a picture of"):
        encode(tiny.model().codec, torch.rand(1, 3, 64, 64), y=torch.zeros(1, 12, 8, 8))
    with pytest.raises(ValueError, match="JPEG has no latent"):
        tiny.model(dict(type="jpeg", quality=9)).refine(torch.rand(1, 3, 64, 64), 1)
    with pytest.raises(ValueError, match="is no HumanMachineDetector"):
        build_model(Config(dict(model=dict(type="FasterRCNN"))))
