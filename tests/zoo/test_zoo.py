import compressai.zoo
import pytest
import torch
from compressai.registry import MODELS
from compressai.zoo.image import model_architectures, model_urls
from PIL import Image

import compressai_hm
from compressai_hm import HM_MODELS, eval_model

image_models = compressai.zoo.image_models


def test_all_are_everywhere():
    assert len(HM_MODELS) == 8
    for name, cls in HM_MODELS.items():
        assert MODELS[name] is cls
        assert model_architectures[name] is cls
        assert name in image_models and name in compressai.zoo.models


@pytest.mark.parametrize(
    ("name", "quality", "channels"),
    [
        ("hm-bmshj2018-hyperprior", 1, (128, 192)),
        ("hm-mbt2018-mean", 8, (192, 320)),
        ("hm-mbt2018", 5, (192, 320)),
        ("hm-cheng2020-anchor", 3, (128, 128)),
        ("hm-cheng2020-attn", 4, (192, 192)),
        ("hm-cheng2020-anchor-checkerboard", 6, (192,)),
        ("hm-elic2022", 1, (192, 320)),
        ("hm-compact", 4, (192, 256)),
    ],
)
def test_channels_are_the_bases(name, quality, channels):
    net = image_models[name](quality, g_t_width=8)
    widths = [p.shape[0] for p in net.g_a.parameters() if p.ndim == 4]
    assert (widths[0], widths[-1]) == (channels[0], channels[-1])


@pytest.mark.parametrize(
    ("name", "kwargs", "named"),
    [
        ("hm-mbt2018", {"quality": 9}, "quality 9"),
        ("hm-cheng2020-anchor", {"quality": 7}, "1 to 6"),
        ("hm-mbt2018", {"quality": 1, "metric": "psnr"}, "psnr"),
        ("hm-mbt2018", {"quality": 1, "pretrained": "bases"}, "bases"),
    ],
)
def test_bad_arguments_are_named(name, kwargs, named):
    with pytest.raises(ValueError, match=named):
        image_models[name](**kwargs)


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match="hm-mbt2018-mean"):
        compressai_hm.zoo.load_model("hm-mbt2019", 1)


def test_base_weights_load_by_their_url(tmp_path, monkeypatch):
    base = compressai.zoo.mbt2018_mean(1)
    path = tmp_path / "mbt2018-mean-1.pth.tar"
    torch.save(base.state_dict(), path)
    monkeypatch.setitem(model_urls["mbt2018-mean"]["mse"], 1, path.as_uri())
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    net = image_models["hm-mbt2018-mean"](1, pretrained="base", progress=False)
    for key, value in base.state_dict().items():
        assert torch.equal(net.state_dict()[key], value)
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(net.g_t(x), x)


def test_offline_says_where_the_file_may_be_put(tmp_path, monkeypatch):
    url = (tmp_path / "nowhere.pth.tar").as_uri()
    monkeypatch.setitem(model_urls["mbt2018"]["mse"], 1, url)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(RuntimeError, match="nowhere.pth.tar") as e:
        image_models["hm-mbt2018"](1, pretrained="base")
    assert str(tmp_path / "hub" / "checkpoints") in str(e.value)


@pytest.mark.parametrize(
    ("name", "pretrained"), [("hm-elic2022", "base"), ("hm-mbt2018", True)]
)
def test_weights_that_do_not_exist_are_an_error(name, pretrained):
    with pytest.raises(RuntimeError, match="no "):
        image_models[name](1, pretrained=pretrained)


def test_eval_model_knows_the_names(tmp_path, capsys):
    Image.effect_noise((200, 180), 60).convert("RGB").save(tmp_path / "a.png")
    net = HM_MODELS["hm-mbt2018-mean"](8, 12, g_t_width=4)
    torch.save({"state_dict": net.state_dict()}, tmp_path / "net.pth")
    eval_model.main(
        ["checkpoint", str(tmp_path), "-a", "hm-mbt2018-mean", "-p",
         str(tmp_path / "net.pth"), "-d", str(tmp_path)]
    )  # fmt: skip
    printed = capsys.readouterr().out
    assert '"hm-mbt2018-mean' in printed and '"psnr-rgb"' in printed


def test_checkpoints_tell_their_model(tmp_path):
    path = tmp_path / "x.pth"
    for name in ("hm-cheng2020-attn", "hm-cheng2020-anchor", "hm-mbt2018"):
        net = HM_MODELS[name](8) if "cheng" in name else HM_MODELS[name](8, 12)
        torch.save({"state_dict": net.state_dict()}, path)
        assert type(compressai_hm.zoo.load_checkpoint(path)) is type(net)
    with pytest.raises(ValueError, match="not the weights of hm-mbt2018-mean"):
        compressai_hm.zoo.load_checkpoint(path, "hm-mbt2018-mean")
    with pytest.raises(ValueError, match="'mbt2018' is no HM model"):
        compressai_hm.zoo.load_checkpoint(path, "mbt2018")
    for rubbish in ([1], {1: 2}, {"state_dict": [1]}, torch.zeros(2)):
        torch.save(rubbish, path)
        with pytest.raises(ValueError, match=r"x\.pth: (it holds|not a checkpoint)"):
            compressai_hm.zoo.load_checkpoint(path)
