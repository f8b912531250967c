"""tools/codec.py, as it is typed."""

import importlib
import io
import os
import re
import runpy
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import _command
import numpy as np
import pytest
import torch
from compressai.registry import MODELS
from PIL import Image

import compressai_hm.zoo
from compressai_hm import (
    HM_MODELS,
    Bitstream,
    DynamicAdaptation,
    LatentBackbone,
    StreamReader,
    decode,
    encode,
    make_checkpoint,
)
from compressai_hm.bitstream.reader import identify_stream
from compressai_hm.io.files import write_png
from compressai_hm.io.pictures import read_picture
from compressai_hm.zoo import load_checkpoint, load_model

from ..detection.conftest import drawn_set  # noqa: F401

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools/codec.py"
DEMO = Path(compressai_hm.zoo.__file__).parent / "weights/demo_codec.pth"


@pytest.fixture
def tool(run_tool):
    return partial(run_tool, "codec")


@pytest.fixture
def pictures(tmp_path):
    """A folder with pictures of two depths."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in (
        ("a.png", (40, 70)),
        ("b.jpg", (64, 64)),
        ("more/c.png", (9, 9)),
    ):
        smooth = rng.integers(0, 255, (3, 3, 3), dtype=np.uint8)
        picture = Image.fromarray(smooth).resize(size[::-1], Image.BICUBIC)
        picture.save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_a_folder_goes_there_and_back(tool, pictures, tmp_path):
    streams, decoded = tmp_path / "streams", tmp_path / "decoded"
    code, out, _ = tool("encode", pictures, "--checkpoint", DEMO, "--out", streams)
    assert code == 0 and "3 pictures" in out and "bpp on average" in out
    found = sorted(str(p.relative_to(streams)) for p in streams.rglob("*.*"))
    assert found == ["a.hmc", "b.hmc", "more/c.hmc"]

    code, out, _ = tool("info", streams)
    assert code == 0 and "70x40" in out and "hm-mbt2018-mean, entropy part" in out

    code, out, _ = tool("decode", streams, "--checkpoint", DEMO, "--out", decoded)
    assert code == 0
    for view in ("human", "machine"):
        again = read_picture(decoded / f"a.{view}.png")
        error = (again - read_picture(pictures / "a.png")).square().mean()
        assert -10 * error.log10() > 22

    code, _, _ = tool(
        "decode", streams / "a.hmc", "--checkpoint", DEMO, "--view", "human"
    )
    assert code == 0 and (streams / "a.human.png").exists()
    assert not (streams / "a.machine.png").exists()


def test_pipes(tool, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def piped(*args, data):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
        return tool(*args)

    own = "--checkpoint", DEMO
    code, out, _ = piped("encode", "-", *own, data=(pictures / "a.png").read_bytes())
    assert code == 0 and "stdin.hmc: " in out
    stream = (tmp_path / "stdin.hmc").read_bytes()
    tool("encode", pictures / "a.png", *own)
    assert stream == (pictures / "a.hmc").read_bytes()
    code, out, _ = piped("info", "-", data=stream)
    assert code == 0 and "70x40" in out
    code, _, _ = piped("decode", "-", *own, "--view", "human", data=stream)
    assert code == 0 and (tmp_path / "stdin.human.png").exists()

    (tmp_path / "-").write_bytes((pictures / "b.jpg").read_bytes())  # a file
    code, out, _ = piped("encode", "./-", *own, "--out", tmp_path / "dash", data=b"")
    assert code == 0 and names(tmp_path / "dash") == ["-.hmc"]

    os.mkfifo(tmp_path / "fifo")
    picture = (pictures / "a.png").read_bytes()
    writer = threading.Thread(target=(tmp_path / "fifo").write_bytes, args=(picture,))
    writer.start()
    code, _, _ = tool("encode", tmp_path / "fifo", *own, "--out", tmp_path / "out")
    writer.join()
    assert code == 0 and (tmp_path / "out/fifo.hmc").read_bytes() == stream

    code, _, err = piped("encode", "-", *own, "--out", tmp_path / "new", data=b"none")
    assert code == 2 and "stdin: not a readable picture" in err


def test_weights_for_persons(tool, pictures, tmp_path):
    streams, vbr = tmp_path / "streams", ("--model", "hm-compact")
    code, _, _ = tool(
        *("encode", pictures, "--metric", "person", "--quality", 4, "--out", streams)
    )
    assert code == 0
    assert "compact (person), entropy" in tool("info", streams)[1]
    file = streams / "a.hmc"
    net = load_model(vbr[1], 4, "person", pretrained=True).eval()
    expected = decode(net, file.read_bytes(), views=("human",))["x_hat"]
    for options in ((), (*vbr, "--quality", 4)):
        out = tmp_path / f"decoded{len(options)}"
        code, *_ = tool("decode", file, "--out", out, *options)
        assert code == 0 and names(out) == ["a.human.png"]  # for machines, the same
        again = read_picture(out / "a.human.png")
        assert (again - expected).abs().max() < 1 / 255
    both = tool("decode", file, "--view", "both", "--out", tmp_path / "both")
    assert both[0] == 0 and names(tmp_path / "both") == ["a.human.png", "a.machine.png"]
    code, _, error = tool("decode", file, *vbr, "--quality", 4, "--metric", "mse")
    assert code == 2 and "compact (person)" in error
    code, _, error = tool("encode", pictures, "--checkpoint", DEMO, "--metric", "mse")
    assert code == 2 and "--metric belongs to a zoo entry" in error
    code, _, error = tool("decode", file, "--metric", "person")
    assert code == 2 and "--metric needs --model" in error


def test_broken_files_are_reported_and_the_others_done(tool, pictures, tmp_path):
    (pictures / "broken.png").write_bytes(b"\x89PNG\r\n rubbish")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")  # the same name as another
    streams = tmp_path / "streams"
    code, out, err = tool(
        "encode", pictures, tmp_path / "a.png", "--checkpoint", DEMO, "--out", streams
    )
    assert code == 1 and "3 pictures" in out and "2 of 5 failed" in err
    assert "broken.png: not a readable picture" in err
    assert f"{pictures / 'a.png'} has the same name; give another --out" in err
    (streams / "a.png.hmc").rename(streams / "a.hmc")

    data = (streams / "a.hmc").read_bytes()
    (streams / "a.hmc").write_bytes(data[:-3])
    code, _, err = tool(
        "decode", streams, "--checkpoint", DEMO, "--out", tmp_path / "d"
    )
    assert code == 1 and "1 of 3 failed" in err and "a.hmc: the file is damaged" in err
    found = {p.name for p in (tmp_path / "d").rglob("*.png")}
    assert found == {f"{n}.{v}.png" for n in "bc" for v in ("human", "machine")}


def test_the_weights_a_file_needs_are_said(tool, pictures, tmp_path):
    tool("encode", pictures / "a.png", "--checkpoint", DEMO)
    code, _, err = tool("decode", pictures / "a.hmc")
    assert code == 2 and "give the weights with --checkpoint: hm-mbt2018-mean" in err
    other = HM_MODELS["hm-mbt2018-mean"](8, 12)
    torch.save({"state_dict": other.state_dict()}, tmp_path / "other.pth")
    code, _, err = tool(
        "decode", pictures / "a.hmc", "--checkpoint", tmp_path / "other.pth"
    )
    assert code == 2 and "coded with other weights: it needs hm-mbt2018-mean" in err


def test_a_file_of_a_zoo_entry_finds_its_weights(tool, tmp_path, monkeypatch):
    """The header's model and quality choose the weights."""
    asked = []

    def load_model(*args, **kwargs):
        asked.append((args, kwargs))
        torch.manual_seed(0)
        return HM_MODELS["hm-mbt2018-mean"](8, 12)

    monkeypatch.setattr("compressai_hm.zoo.load_model", load_model)
    data = encode(load_model().eval(), torch.rand(1, 3, 20, 20), 4, "ms-ssim")
    (tmp_path / "x.hmc").write_bytes(data)
    code, *_ = tool("decode", tmp_path / "x.hmc")
    assert code == 0 and (tmp_path / "x.machine.png").exists()
    assert asked[1] == (("hm-mbt2018-mean", 4, "ms-ssim"), {"pretrained": "base"})


def test_another_runtime_computes_the_transforms(tool, pictures, tmp_path):
    for package in ("onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    demo, streams = ("--checkpoint", DEMO), tmp_path / "streams"
    other, human = ("--runtime", "onnxruntime"), ("--view", "human")
    code, out, _ = tool("encode", pictures, *demo, *other, "--out", streams)
    assert code == 0 and "3 pictures" in out
    views = []
    for name, runtime in (("torch", ()), ("other", other)):
        folder = tmp_path / name
        code, _, _ = tool("decode", streams, *demo, *human, *runtime, "--out", folder)
        assert code == 0
        views.append(read_picture(folder / "a.human.png"))
    assert (views[0] - views[1]).abs().max() < 1.1 / 255  # roundings of halves
    error = (views[1] - read_picture(pictures / "a.png")).square().mean()
    assert -10 * error.log10() > 22
    code, _, err = tool(
        "encode", pictures, *demo, *other, "--refine", 2, "--config", "x.py"
    )
    assert code == 2 and "--refine computes in torch" in err


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["encode", "x.png", "--model", "hm-mbt2018"], "--model and --quality"),
        (["encode", "x.png", "--model", "mbt", "--quality", 1], "hm-mbt2018-mean"),
        (["encode", "x.png", "--checkpoint", "none.pth"], "none.pth: there is no such"),
        (["decode", "x.hmc", "--quality", 1], "go together"),
        (["decode", "none.hmc"], "none.hmc"),
        (["info", "."], "no .hmc files in ."),
        (["encode", "empty", "--checkpoint", DEMO], "no pictures in empty"),
        (["encode", "x.png", "--checkpoint", "x.png"], "x.png"),
        (["encode", "x.png", "--checkpoint", DEMO, "--max-pixels", 0], "1 or more"),
        (
            ["encode", "x.png", "--checkpoint", DEMO, "--max-pixels", 63],
            "max_pixels=63",
        ),
    ],
)
def test_wrong_arguments_are_explained(tool, args, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("x.png")
    Path("empty").mkdir()
    code, _, err = tool(*args)
    assert code == 2 and named in err
    *usage, told = err.splitlines()
    assert named in told and not any(line.startswith("error") for line in usage)


def test_ctrl_c_leaves_whole_files(tmp_path):
    for i in range(200):
        Image.new("RGB", (256, 256), (i, 0, 0)).save(tmp_path / f"{i:03}.png")
    out = tmp_path / "out"
    command = [sys.executable, TOOL, "encode", tmp_path, "--checkpoint", DEMO]
    with subprocess.Popen(
        [*command, "--out", out],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        # A shell may have told background jobs, such as these tests, to ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        deadline = time.monotonic() + 120
        while not list(out.glob("*.hmc")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "every file written so far is whole" in err
    assert "Traceback" not in err
    files = list(out.iterdir())
    assert 0 < len(files) < 200 and all(p.suffix == ".hmc" for p in files)


def test_readers_are_listed_and_chosen(tool, pictures, tmp_path):
    codec = load_checkpoint(DEMO).eval()
    torch.manual_seed(0)
    g_t = DynamicAdaptation(8, downscale=2)
    torch.nn.init.normal_(g_t.layers[-1].weight, std=0.1)
    backbone = LatentBackbone(64, [8, 8], [8, 16], widths=[16], depths=[1])
    for reader in (
        StreamReader("boxes", "x_hat", identify_stream(codec, "x_hat"), g_t),
        StreamReader("latent", "y_hat", identify_stream(codec, "y_hat"), backbone),
    ):
        reader.save(tmp_path / f"{reader.name}.reader")
    code, out, _ = tool("readers", tmp_path)
    assert code == 0
    assert "boxes: reads x_hat of" in out and "latent: reads y_hat of" in out

    streams, humans = tmp_path / "streams", []
    tool("encode", pictures / "a.png", "--checkpoint", DEMO, "--out", streams)
    for choice in ([], ["boxes.reader"], ["latent.reader"]):
        options = ["--reader", tmp_path / choice[0]] if choice else []
        out = tmp_path / "-".join(["out", *choice])
        code, *_ = tool("decode", streams, "--checkpoint", DEMO, "--out", out, *options)
        assert code == 0
        humans.append((out / "a.human.png").read_bytes())
    assert humans[0] == humans[1] == humans[2]
    assert (tmp_path / "out-boxes.reader/a.boxes.png").is_file()
    with np.load(tmp_path / "out-latent.reader/a.latent.npz") as pyramid:
        assert pyramid["stride_8"].shape == (8, 6, 10)
        assert pyramid["stride_16"].shape == (8, 3, 5)

    (tmp_path / "bad.reader").write_text("x")
    code, out, err = tool("readers", tmp_path)
    assert code == 1 and "bad.reader is no reader" in err and "boxes" in out
    code, _, err = tool(
        "decode", streams, "--checkpoint", DEMO, "--reader", tmp_path / "bad.reader"
    )
    assert code != 0 and "bad.reader is no reader" in err


def names(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*.*"))


def test_pictures_of_one_name_are_kept_apart(tool, tmp_path):
    folder, options = tmp_path / "in", ("--checkpoint", DEMO)
    (folder / "more").mkdir(parents=True)
    colors = {"a.jpg": "red", "a.png": "blue", "a.png.gif": "lime", "b.png": "white"}
    for name, color in colors.items():
        Image.new("RGB", (16, 16), color).save(folder / name)
    (folder / "b.txt").write_text("no picture")
    Image.new("RGB", (16, 16)).save(folder / "more/a.bmp")
    expected = ["a.jpg.hmc", "a.png.gif.hmc", "a.png.hmc", "b.hmc"]

    code, *_ = tool("encode", folder, *options, "--out", tmp_path / "s")
    assert code == 0 and names(tmp_path / "s") == [*expected, "more/a.hmc"]
    for name in colors:  # the same names by one command each
        code, *_ = tool("encode", folder / name, *options, "--out", tmp_path / "t")
        assert code == 0
    assert names(tmp_path / "t") == expected
    for name in expected:
        same = [(tmp_path / f / name).read_bytes() for f in "st"]
        assert same[0] == same[1]

    code, *_ = tool("decode", tmp_path / "s", *options, "--view", "human")
    assert code == 0
    for name in ("a.jpg.human.png", "a.png.human.png", "a.png.gif.human.png"):
        assert (tmp_path / "s" / name).is_file()


def test_pictures_of_two_folders_are_kept_apart(tool, tmp_path):
    for name in ("x/a.png", "y/a.jpg"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (16, 16)).save(tmp_path / name)
    given = tmp_path / "x", tmp_path / "y", tmp_path / "x/../x/a.png"
    options = "--checkpoint", DEMO, "--out", tmp_path / "s"
    code, *_ = tool("encode", *given, *options)
    assert code == 0 and names(tmp_path / "s") == ["a.jpg.hmc", "a.png.hmc"]


def test_no_file_is_replaced_unasked(tool, tmp_path):
    options = "--checkpoint", DEMO, "--out", tmp_path / "s"
    for i, folder in enumerate(("x", "y")):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (16, 16), (255 * i, 0, 0)).save(tmp_path / folder / "a.png")
    tool("encode", tmp_path / "x/a.png", *options)
    before = (tmp_path / "s/a.hmc").read_bytes()
    code, _, err = tool("encode", tmp_path / "y/a.png", *options)
    assert code == 2 and "a.hmc exists: --overwrite" in err
    assert (tmp_path / "s/a.hmc").read_bytes() == before
    code, *_ = tool("encode", tmp_path / "y/a.png", *options, "--overwrite")
    assert code == 0 and (tmp_path / "s/a.hmc").read_bytes() != before

    Image.new("RGB", (4, 4)).save(tmp_path / "s/a.machine.png")  # somebody's own
    code, _, err = tool("decode", tmp_path / "s/a.hmc", *options)
    assert code == 2 and "a.machine.png exists" in err
    assert not (tmp_path / "s/a.human.png").exists()
    code, *_ = tool("decode", tmp_path / "s/a.hmc", *options, "--overwrite")
    assert code == 0 and Image.open(tmp_path / "s/a.machine.png").size == (16, 16)


def test_export_replaces_no_file_unasked(tool, tmp_path):
    (tmp_path / "g_s.onnx").write_text("somebody's own")
    own = "export", "--checkpoint", DEMO, "--out", tmp_path
    code, _, err = tool(*own)
    assert code == 2 and "g_s.onnx exists: --overwrite" in err
    assert names(tmp_path) == ["g_s.onnx"]
    code, *_ = tool(*own, "--overwrite")
    assert code == 0 and names(tmp_path) == ["g_a.onnx", "g_s.onnx", "g_t.onnx"]
    assert (tmp_path / "g_s.onnx").stat().st_size > 1000


def test_a_picture_is_never_its_own_stream(tool, tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "a.hmc", "PNG")
    code, *_ = tool("encode", tmp_path, "--checkpoint", DEMO)
    assert code == 0 and names(tmp_path) == ["a.hmc", "a.hmc.hmc"]


@pytest.mark.parametrize(
    "name",
    [
        b"x" * 251 + b".png",
        "ü".encode() * 125 + b".tiff",
        b"x" * 255,
        b"\xff\xfe.png",
        b"new\nline\x1b[31m.png",
        b"-a.png",
        b" .png",
        b"a b'\"*?.png",
    ],
)
def test_names_may_be_anything(tool, tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path(os.fsdecode(name))
    Image.new("RGB", (16, 16)).save(tmp_path / "p.png")
    (tmp_path / "p.png").rename(path)
    code, out, err = tool("encode", "--checkpoint", DEMO, "--out", "s", "--", path)
    assert code == 0 and len(out.splitlines()) == 1 and "\x1b[31m" not in err
    (stream,) = Path("s").iterdir()
    assert stream.suffix == ".hmc"
    code, out, _ = tool("decode", "s", "--checkpoint", DEMO, "--out", "d")
    assert code == 0 and len(list(Path("d").iterdir())) == 2
    code, out, _ = tool("info", stream)
    assert code == 0 and len(out.splitlines()) == 1
    stream.write_bytes(b"HMC")
    code, _, err = tool("decode", "s", "--checkpoint", DEMO, "--out", "d")
    assert code == 2 and len(err.splitlines()) == 1


def test_what_was_not_read_is_said(tool, tmp_path):
    frames = [Image.new("RGB", (16, 16), c) for c in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    code, _, err = tool("encode", tmp_path, "--checkpoint", DEMO)
    assert code == 0 and "a.gif: holds more than one picture" in err.splitlines()[-1]


def test_hidden_streams_are_left_out(tool, tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    tool("encode", tmp_path, "--checkpoint", DEMO)
    (tmp_path / "._a.hmc").write_bytes(b"of a file system")
    code, out, _ = tool("info", tmp_path)
    assert code == 0 and len(out.splitlines()) == 1


def test_bpp_is_of_the_file(tool, tmp_path):
    Image.new("RGB", (50, 40)).save(tmp_path / "a.png")
    _, out, _ = tool("encode", tmp_path, "--checkpoint", DEMO)
    size = (tmp_path / "a.hmc").stat().st_size
    assert f"{size} bytes, {8 * size / 2000:.4f} bpp" in out
    for command in (["--help"], ["encode", "--help"], ["info", "--help"]):
        _, out, _ = tool(*command)
        assert "its header included" in " ".join(out.split())


def test_the_trace_is_shown_when_asked_for(tool, tmp_path, monkeypatch, capsys):
    path = tmp_path / "a.png"
    path.write_bytes(b"")
    argv = ["codec.py", "encode", str(path), "--checkpoint", str(DEMO)]
    for options, expected in (([], False), (["--debug"], True)):
        monkeypatch.setattr(sys, "argv", [*argv, *options])
        with pytest.raises(SystemExit) as stop:
            _command.run(runpy.run_path(str(TOOL))["main"])
        err = capsys.readouterr().err
        assert stop.value.code == 2 and ("Traceback" in err) == expected
        assert err.splitlines()[-1].startswith(f"error: {path}: not a readable picture")
    code, out, err = tool("--help")
    assert code == 0 and "--debug" in out and not err


OWN_CODEC = """
from compressai.models import MeanScaleHyperprior
from compressai.registry import register_model
from compressai_hm import HumanMachineMixin

@register_model("hm-own-codec")
class HMOwnCodec(HumanMachineMixin, MeanScaleHyperprior):
    pass
"""


def test_a_codec_of_ones_own_is_imported(tool, pictures, tmp_path, monkeypatch):
    module = tmp_path / "own_codec.py"
    module.write_text(OWN_CODEC)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    net = importlib.import_module("own_codec").HMOwnCodec(8, 12, g_t_width=4)
    torch.save(make_checkpoint(net), tmp_path / "net.pth")

    def forget():
        MODELS.pop("hm-own-codec", None)
        sys.modules.pop("own_codec", None)

    forget()
    picture, weights = pictures / "a.png", ("--checkpoint", tmp_path / "net.pth")
    code, _, err = tool("encode", picture, *weights, "--out", tmp_path)
    assert code == 2 and "'hm-own-codec', which is not registered" in err
    own = (*weights, "--import", module, "--out", tmp_path)
    assert tool("encode", picture, *own)[0] == 0
    forget()
    assert tool("decode", tmp_path / "a.hmc", *own)[0] == 0
    assert (tmp_path / "a.human.png").is_file()
    forget()
    code, _, err = tool("encode", picture, *weights, "--import", "none.py")
    assert code == 2 and "--import none.py: there is no such file" in err


def test_a_size_is_asked_for(tool, pictures, tmp_path):
    weights = ("--checkpoint", DEMO)
    for option, value, most in (("--bpp", 2, None), ("--bytes", 900, 900)):
        out = tmp_path / option.strip("-")
        code, shown, _ = tool(
            "encode", pictures / "a.png", *weights, option, value, "--out", out
        )
        size = len((out / "a.hmc").read_bytes())
        most = most or 2 * 40 * 70 // 8
        assert code == 0 and f"{size} bytes" in shown and 0.9 * most <= size <= most
    code, shown, _ = tool("info", tmp_path / "bpp")
    assert re.search(r", step \d\.\d\d\d, hm-mbt2018-mean", shown)
    decoded = tool("decode", tmp_path / "bpp", *weights, "--out", tmp_path / "out")
    assert decoded[0] == 0


@pytest.mark.parametrize(("step", "warned"), [(6, False), (8, True)])
def test_a_step_beyond_training_is_told(tool, pictures, tmp_path, step, warned):
    options = ("--step", step, "--out", tmp_path)
    code, _, error = tool("encode", pictures / "b.jpg", *options)
    assert code == 0
    assert ("step 8 is coarser than 6, the coarsest that its" in error) == warned


def test_the_quality_follows_the_size(tool, pictures, tmp_path, monkeypatch):
    def with_steps(name, quality, metric, pretrained):
        net = load_checkpoint(DEMO)
        net.step = 4.0 / quality
        return net

    monkeypatch.setattr(compressai_hm.zoo, "load_model", with_steps)
    sizes = {}
    for quality in (1, 4):
        own = ("--model", "hm-mbt2018-mean", "--quality", quality, "--out", tmp_path)
        tool("encode", pictures / "b.jpg", *own, "--overwrite")
        sizes[quality] = (tmp_path / "b.hmc").stat().st_size
    for quality, size in sizes.items():
        own = ("--model", "hm-mbt2018-mean", "--bytes", size + 4, "--out", tmp_path)
        assert tool("encode", pictures / "b.jpg", *own, "--overwrite")[0] == 0
        assert f"quality {quality}" in tool("info", tmp_path / "b.hmc")[1]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--step", 17), "step must lie from 0.125 to 16, got 17"),
        (("--step", "nan"), "got nan"),
        (("--bytes", 40), "does not fit into 40 bytes: .* it has"),
        (("--bytes", 0), "--bytes 0: give more than 0"),
        (("--bpp", -1), "--bpp -1.0: give more than 0"),
        (("--bpp", 1, "--bytes", 9), "not allowed with"),
    ],
)
def test_a_step_or_size_that_cannot_be_is_told(tool, pictures, options, named):
    code, _, err = tool("encode", pictures / "a.png", "--checkpoint", DEMO, *options)
    assert code == 2 and re.search(named, err)
    assert not (pictures / "a.hmc").exists()


def test_gradient_steps_buy_quality_at_a_size(tool, tmp_path):
    """On a photograph, by a codec of photographs; no training config is needed."""
    x = read_picture(ROOT / "tools/pictures/kodim14.png")[..., 150:342, 200:456]
    write_png(x, tmp_path / "x.png")
    errors = []
    for steps in (0, 10):
        out = tmp_path / str(steps)
        options = ("--bytes", 2000, "--refine", steps)
        assert tool("encode", tmp_path / "x.png", *options, "--out", out)[0] == 0
        assert 1900 < (out / "x.hmc").stat().st_size <= 2000
        assert tool("decode", out / "x.hmc", "--view", "human")[0] == 0
        decoded = read_picture(out / "x.human.png")
        errors.append(float((decoded - x).square().mean()))
    assert errors[1] < 0.985 * errors[0]


def test_bits_go_where_they_matter(tool, tmp_path):
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 255, (16, 24, 3), dtype=np.uint8))
    picture, weights = tmp_path / "a.png", ("--checkpoint", DEMO)
    smooth.resize((256, 192), Image.BICUBIC).save(picture)
    mask = Image.new("L", (256, 192))
    mask.paste(255, (0, 0, 96, 192))
    mask.save(tmp_path / "mask.png")
    errors = {}
    for name, roi in (
        ("mask", ("--roi", tmp_path / "mask.png")),
        ("box", ("--roi", "-5,0,96,192")),
        ("none", ()),
    ):
        out = tmp_path / name
        own = (*weights, *roi, "--roi-gain", 4, "--bytes", 1500, "--out", out)
        assert tool("encode", picture, *own)[0] == 0
        assert tool("decode", out, *weights, "--out", out)[0] == 0
        error = read_picture(out / "a.human.png") - read_picture(picture)
        errors[name] = [e.square().mean() for e in (error[..., :80], error[..., 160:])]
    streams = [(tmp_path / name / "a.hmc").read_bytes() for name in ("mask", "box")]
    assert streams[0] == streams[1]
    assert errors["mask"][0] < 0.8 * errors["none"][0]
    assert errors["mask"][1] > 1.2 * errors["none"][1]

    code, shown, _ = tool("info", tmp_path / "mask", "--map-png")
    assert code == 0 and re.search(r"steps .* to .* by a map of \d+ bytes", shown)
    shades = read_picture(tmp_path / "mask/a.map.png")
    assert shades.shape == (1, 3, 192, 256)
    assert shades[0, 0, 50, 50] > shades[0, 0, 50, 200] + 0.2
    (tmp_path / "mask/a.map.png").write_bytes(b"mine")
    code, _, err = tool("info", tmp_path / "mask", "--map-png")
    assert code == 2 and "a.map.png exists: --overwrite" in err
    assert (tmp_path / "mask/a.map.png").read_bytes() == b"mine"
    assert tool("info", tmp_path / "mask", "--map-png", "--overwrite")[0] == 0
    assert (read_picture(tmp_path / "mask/a.map.png") == shades).all()


def test_what_is_transparent_is_outside_of_a_region(tool, tmp_path):
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 255, (8, 12, 3), dtype=np.uint8))
    smooth.resize((192, 128), Image.BICUBIC).save(tmp_path / "a.png")
    gray = Image.new("L", (192, 128))
    gray.paste(255, (0, 0, 64, 128))
    clear = Image.new("RGBA", (192, 128), (255, 255, 255, 0))
    clear.paste((255, 255, 255, 255), (0, 0, 64, 128))
    labels = gray.point(lambda value: value // 255)
    for name, mask in (("gray", gray), ("clear", clear), ("labels", labels)):
        mask.save(tmp_path / f"{name}.png")
        roi = ("--checkpoint", DEMO, "--roi", tmp_path / f"{name}.png")
        out = tmp_path / name
        code, _, err = tool("encode", tmp_path / "a.png", *roi, "--out", out)
        remark = "labels.png: as a mask it has nothing inside; its brightest value is 1"
        assert code == 0 and (remark in err) == (name == "labels")
    streams = [(tmp_path / n / "a.hmc").read_bytes() for n in ("gray", "clear")]
    assert streams[0] == streams[1]


def test_pictures_that_no_size_fits_do_not_stop_the_others(tool, tmp_path):
    Image.new("RGB", (3, 2), "red").save(tmp_path / "tiny.png")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "wide.png")
    for weights in (("--checkpoint", DEMO), ()):
        code, out, err = tool("encode", tmp_path, *weights, "--bpp", 0.5, "--overwrite")
        assert code == 1 and "wide.hmc: " in out and "1 of 2 failed" in err
        assert "tiny.png: the picture does not fit into 0 bytes" in err
    for value in ("inf", "nan", "-1"):
        code, _, err = tool("encode", tmp_path, f"--bpp={value}")
        assert code == 2 and f"--bpp {float(value)}: give more than 0" in err


@pytest.fixture
def drawn_picture(drawn_set, tmp_path):  # noqa: F811
    source = sorted((drawn_set / "val2017").iterdir())[0]
    picture = tmp_path / "drawn/a.png"
    picture.parent.mkdir()
    Image.open(source).save(picture)
    return picture


def test_a_detector_sends_bits_to_what_is_found(tool, drawn_picture, tmp_path):
    detector = ROOT / "mmdet_configs/demo/detector.py"
    regions = "--roi-detector", f"{detector},compressai_hm://demo_detector.pth"
    out = "--step", 1, "--out", tmp_path
    code, out, _ = tool("encode", drawn_picture, *regions, *out)
    assert code == 0
    assert out.count("\n") == 1  # a line of the file alone
    code, shown, _ = tool("info", tmp_path / "a.hmc")
    assert code == 0 and re.search(r"steps 0.707 to 1.000 by a map of \d+ bytes", shown)
    code, _, _ = tool("encode", drawn_picture, *regions,
                      "--roi-detector-gain", 16, "--bytes", 2000,
                      "--out", tmp_path / "large")  # fmt: skip
    steps = Bitstream.read((tmp_path / "large/a.hmc").read_bytes()).steps()
    assert code == 0 and steps.offsets.min() == -16
    code, _, _ = tool("encode", drawn_picture, *regions,
                      "--roi-detector-gain", 4, "--roi", "0,0,16,16", "--roi-gain", 8,
                      "--bytes", 2000, "--out", tmp_path / "both")  # fmt: skip
    assert code == 0 and (tmp_path / "both/a.hmc").stat().st_size <= 2000
    steps = Bitstream.read((tmp_path / "both/a.hmc").read_bytes()).steps()
    assert steps.offsets[0, 0] == steps.offsets.min() == steps.offsets.max() - 12
    assert steps.offsets.max() - 8 in steps.offsets


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("DEMO",), "detector.py? Give CONFIG,CHECKPOINT"),
        (("DEMO,none.pth",), "none.pth"),
        (("none.py",), "none.py"),
        (("DEMO,compressai_hm://demo_codec.pth",), "is of another model"),
        (
            ("DEMO,compressai_hm://demo_detector.pth", "--roi-detector-gain", 0),
            "gain must be",
        ),
        (
            ("DEMO,compressai_hm://demo_detector.pth", "--roi-class", "person"),
            "no detector knows ['person'], but",
        ),
    ],
)
def test_what_is_no_detector_is_told(tool, pictures, options, named):
    first, *rest = options
    regions = first.replace("DEMO", str(ROOT / "mmdet_configs/demo/detector.py"))
    code, _, err = tool(
        "encode",
        pictures / "a.png",
        "--checkpoint",
        DEMO,
        "--roi-detector",
        regions,
        *rest,
    )
    assert code == 2 and named in err and not (pictures / "a.hmc").exists()


@pytest.mark.parametrize(
    ("roi", "named"),
    [
        (("--roi", "mask.png"), "mask has 8x8 pixels, the picture 70x40"),
        (("--roi", "5,5,2,9"), "a box must be left, top, right, bottom"),
        (("--roi", "none.png"), "none.png: there is no such file"),
        (("--roi", "0,0,9,9", "--roi-gain", 0.5), "gain must be 1 or from 1.1 on"),
    ],
)
def test_what_is_no_region_is_told(tool, pictures, roi, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("L", (8, 8)).save("mask.png")
    code, _, err = tool("encode", pictures / "a.png", "--checkpoint", DEMO, *roi)
    assert code == 2 and named in err


def test_regions_are_found_in_the_latent(tool, tmp_path):
    photo = ROOT / "tools/pictures/kodim14.png"
    options = ("--roi-detector", "latent", "--out", tmp_path)
    code, out, _ = tool("encode", photo, *options, "--bpp", 0.1)
    assert code == 0 and 5 <= int(re.search(r"(\d+)% of it finer", out)[1]) <= 60
    code, _, err = tool("encode", photo, *options, "--checkpoint", DEMO)
    assert code == 2 and "no reader of people for the latents of these" in err
