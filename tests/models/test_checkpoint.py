"""Weights as other programs save them, and files that are none."""

import pickle

import numpy as np
import pytest
import torch
from compressai.models import MeanScaleHyperprior
from compressai.registry import MODELS, register_model
from PIL import Image
from torch.optim.swa_utils import AveragedModel

from compressai_hm import HumanMachineMixin, make_checkpoint, read_checkpoint
from compressai_hm.zoo import load_checkpoint

from ..families import busy, families, tiny

MEAN = "hm-mbt2018-mean"


def prefixed(prefix):
    return lambda net: {f"{prefix}{k}": v for k, v in net.state_dict().items()}


SAVED = {
    "bare": lambda net: net.state_dict(),
    "state_dict": lambda net: {"epoch": 3, "state_dict": net.state_dict()},
    "model_state_dict": lambda net: {"model_state_dict": net.state_dict(), "loss": 0.5},
    "model": lambda net: {"optimizer": {}, "model": net.state_dict()},
    "network": lambda net: {"network": net.state_dict()},
    "module.": lambda net: {"state_dict": prefixed("module.")(net)},
    "_orig_mod.": lambda net: {"model": prefixed("_orig_mod.")(net)},
    "both": lambda net: {"model": prefixed("module._orig_mod.")(net)},
    "average": lambda net: AveragedModel(net).state_dict(),
    "compiled": lambda net: torch.compile(net, backend="eager").state_dict(),
    "detector": lambda net: {
        "meta": {},
        "state_dict": {**prefixed("codec.")(net), "detector.x": torch.zeros(1)},
    },
    "ours": make_checkpoint,
}


@pytest.mark.parametrize("kind", SAVED)
def test_weights_are_found_however_they_were_saved(kind, tmp_path):
    net = busy(MEAN)
    torch.save(SAVED[kind](net), tmp_path / "net.pth")
    found = load_checkpoint(tmp_path / "net.pth")
    assert type(found) is type(net)
    x = torch.rand(1, 3, 64, 64)
    assert found.eval().compress(x) == net.compress(x)


@families
def test_checkpoints_say_what_makes_their_model(name, tmp_path):
    net = tiny(name)
    torch.save(make_checkpoint(net), tmp_path / "net.pth")
    found = read_checkpoint(tmp_path / "net.pth")
    assert found.architecture == name
    again = load_checkpoint(tmp_path / "net.pth")
    assert (again.g_t.width, again.g_t.downscale) == (8, 2)
    for key, value in net.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)


def test_a_registered_codec_of_ones_own_is_made_of_its_file_alone(tmp_path):
    @register_model("hm-mine")
    class HMMine(HumanMachineMixin, MeanScaleHyperprior):
        def __init__(self, depth, **kwargs):
            super().__init__(8, 12, **kwargs)
            self.more = torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(depth))

    net = HMMine(depth=3, g_t_width=4)
    torch.save(make_checkpoint(net), tmp_path / "net.pth")
    try:
        found = load_checkpoint(tmp_path / "net.pth")
        assert type(found) is HMMine and len(found.more) == 3 and found.g_t.width == 4
    finally:
        del MODELS["hm-mine"]
    with pytest.raises(ValueError, match="'hm-mine', which is not registered.*import"):
        load_checkpoint(tmp_path / "net.pth")


def registered(name):
    """As @register_model, and gone after the test."""

    def add(model):
        MODELS[name] = model
        return model

    return add


@pytest.fixture(autouse=True)
def forget():
    before = dict(MODELS)
    yield
    for name in set(MODELS) - set(before):
        del MODELS[name]


@pytest.mark.parametrize("named", [False, True])
def test_files_of_codecs_of_ones_own_load_as_they_were_made(named, tmp_path):
    @registered("hm-inside")
    class Inside(HumanMachineMixin, MeanScaleHyperprior):
        def __init__(self):  # which takes no g_t_width
            super().__init__(8, 12, g_t_width=4)

    @registered("hm-named")
    class Named(HumanMachineMixin, MeanScaleHyperprior):
        def __init__(self, *, channels):
            super().__init__(*channels)
            self.codec = torch.nn.Linear(1, 1)  # a part of that name

    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.scale * x

    @registered("hm-own-g-t")
    class OwnGT(HumanMachineMixin, MeanScaleHyperprior):
        def __init__(self, **kwargs):
            super().__init__(8, 12, **kwargs)
            self.g_t = Own()

    for name, net in (
        ("hm-inside", Inside()),
        ("hm-named", Named(channels=[8, 12])),
        ("hm-own-g-t", OwnGT()),
    ):
        torch.save(make_checkpoint(net), tmp_path / "net.pth")
        found = load_checkpoint(tmp_path / "net.pth", name if named else None)
        for key, value in net.state_dict().items():
            assert torch.equal(found.state_dict()[key], value)


def test_forged_options_allocate_nothing(tmp_path):
    content = make_checkpoint(tiny(MEAN))
    for args in ([20000, 24], [16, [10**9]], ["x", 3]):
        content["options"] = {"args": args, "kwargs": {}}
        torch.save(content, tmp_path / "net.pth")
        with pytest.raises(ValueError, match=rf"net\.pth: not the weights of {MEAN}"):
            load_checkpoint(tmp_path / "net.pth")


def test_architectures_of_other_programs_are_passed_over(tmp_path):
    net = tiny(MEAN)
    base = {k: v for k, v in net.state_dict().items() if not k.startswith("g_t.")}
    saved = {"architecture": "mbt2018-mean", "state_dict": base}
    torch.save(saved, tmp_path / "net.pth")
    assert type(load_checkpoint(tmp_path / "net.pth")) is type(net)


def test_options_that_are_no_plain_values_are_left_out():
    class Mine(HumanMachineMixin, MeanScaleHyperprior):
        def __init__(self, layer, **kwargs):
            super().__init__(8, 12, **kwargs)

    net = pickle.loads(pickle.dumps(tiny(MEAN)))
    assert "options" in make_checkpoint(net)
    assert "options" not in make_checkpoint(Mine(torch.nn.Linear(1, 1)))


class Harmful:
    def __reduce__(self):
        return exec, ("raise SystemExit('ran')",)


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda p: Image.new("RGB", (8, 8)).save(p, "PNG"), "it is a PNG picture"),
        (lambda p: Image.new("RGB", (8, 8)).save(p, "JPEG"), "it is a JPEG picture"),
        (lambda p: p.write_bytes(b""), "it is empty"),
        (lambda p: p.write_bytes(b"<!DOCTYPE html>"), "it is a web page"),
        (lambda p: p.write_bytes(b"HMC\1"), "it is a coded picture"),
        (lambda p: p.write_bytes(b"PK\3\4 cut off"), "not a checkpoint"),
        (lambda p: p.write_bytes(np.random.default_rng(0).bytes(999)), "not a"),
        (lambda p: torch.save(tiny(MEAN), p), r"Python objects \(.*state_dict\(\)"),
        (lambda p: p.write_bytes(pickle.dumps(Harmful())), "Python objects|damaged"),
        (lambda p: torch.save([1], p), "it holds a list, not weights by name"),
        (lambda p: torch.save({"epoch": 1}, p), "no weights, but 'epoch'"),
    ],
)
def test_what_is_no_checkpoint_is_told(write, reason, tmp_path):
    path = tmp_path / "net.pth"
    write(path)
    with pytest.raises(ValueError, match=rf"net\.pth: .*({reason})") as error:
        load_checkpoint(path)
    assert "weights_only" not in str(error.value)


def test_weights_that_do_not_fit_are_told(tmp_path):
    path = tmp_path / "net.pth"
    for change, reason in (
        (lambda w: w.update(extra=torch.zeros(1)), 'Unexpected key.*"extra"'),
        (lambda w: w.pop("h_s.0.bias"), 'Missing key.*"h_s.0.bias"'),
        (lambda w: w.update({"h_s.2.bias": torch.zeros(5)}), "size mismatch.*h_s.2"),
    ):
        weights = tiny(MEAN).state_dict()
        change(weights)
        torch.save(weights, path)
        with pytest.raises(ValueError, match=f"--model; nearest is {MEAN}, {reason}"):
            load_checkpoint(path)
        with pytest.raises(ValueError, match=reason):
            load_checkpoint(path, MEAN)
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "absent.pth")
