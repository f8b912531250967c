import io
import os
import sys
import tempfile

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from compressai.registry import MODELS
from PIL import Image, features

from compressai_hm import BitstreamError
from compressai_hm.classical import CLASSICAL, find_classical
from compressai_hm.classical.parameter_sets import read_stream_size

REFERENCE = ("hevc-hm", "vvc-vtm")
INSTALLED = [name for name in CLASSICAL if name not in REFERENCE]
PILLOW = ["jpeg", "webp", "jpeg2000", "avif"]
FFMPEG = [name for name in INSTALLED if name not in PILLOW]

ENCODER = """#!{python}
import sys
options = dict(zip(sys.argv[1:-1], sys.argv[2:]))
assert "--InputChromaFormat=444" in sys.argv
assert open(options["-c"]).read() == "all intra"
samples = open(options["-i"], "rb").read()
assert len(samples) == 3 * int(options["-wdt"]) * int(options["-hgt"])
open(options["-b"], "wb").write(b"QP" + options["-q"].encode() + samples)
"""
DECODER = """#!{python}
import sys
options = dict(zip(sys.argv[1:-1], sys.argv[2:]))
stream = open(options["-b"], "rb").read()
if stream[:2] != b"QP":
    sys.exit("starting\\nno parameter set")
open(options["-o"], "wb").write(stream[4:])
"""


def smooth(height, width):
    down = torch.linspace(0.1, 0.9, height)[:, None].expand(height, width)
    right = torch.linspace(0.1, 0.9, width).expand(height, width)
    return torch.stack((right, down, (1 - right + down) / 2))[None]


def busy(height, width):
    coarse = torch.rand(1, 3, height // 6 + 4, width // 6 + 4)
    fine = 0.15 * torch.randn(1, 1, height, width)
    x = F.interpolate(coarse, (height, width), mode="bicubic") + fine
    return x.clamp(0, 1)


def psnr(a, b):
    return -10 * (a - b).square().mean().log10().item()


def best(name):
    cls = CLASSICAL[name]
    return cls(cls.limits[cls.qualities[-1] > cls.qualities[0]])


def middle(name):
    return CLASSICAL[name](CLASSICAL[name].qualities[3])


@pytest.fixture
def tools(tmp_path):
    """Stands in for the binaries of HM and VTM: what it codes is lossless."""
    paths = {}
    for part, text in (("encoder", ENCODER), ("decoder", DECODER)):
        paths[part] = tmp_path / part
        paths[part].write_text(text.format(python=sys.executable))
        paths[part].chmod(0o755)
    paths["config"] = tmp_path / "intra.cfg"
    paths["config"].write_text("all intra")
    return paths


@pytest.fixture
def temp(tmp_path, monkeypatch):
    folder = tmp_path / "temp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_every_name_is_registered():
    assert {name: MODELS[name] for name in CLASSICAL} == CLASSICAL
    for cls in CLASSICAL.values():
        assert len(cls.qualities) >= 5
        assert not list(cls(cls.qualities[0]).parameters())


@pytest.mark.parametrize("name", INSTALLED)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (17, 33), (64, 64)])
def test_any_size_comes_back(name, size):
    x = smooth(*size)
    coded = best(name).compress(x)
    assert coded["shape"] == size and len(coded["strings"]) == 1
    out = best(name).decompress(**coded)
    assert set(out) == {"x_hat", "x_bar"} and out["x_hat"].shape == x.shape
    assert torch.equal(out["x_hat"], out["x_bar"])
    assert psnr(out["x_hat"], x) > (40 if min(size) > 8 else 28)


@pytest.mark.parametrize("name", INSTALLED)
def test_saturated_colors_come_back(name):
    colors = torch.tensor([[i & 1, i >> 1 & 1, i >> 2] for i in range(8)]).float()
    x = colors.T[None, :, None].repeat_interleave(64, 2).repeat_interleave(16, 3)
    x_hat = best(name).decompress(**best(name).compress(x))["x_hat"]
    # Far from the edges, so that 4:2:0 makes no difference.
    error = (x_hat - x).abs().unflatten(3, (8, 16))[..., 6:10]
    assert error.max() * 255 < 4


@pytest.mark.parametrize("name", INSTALLED)
def test_more_rate_is_more_quality(name):
    x, cls = busy(64, 96), CLASSICAL[name]
    lengths, qualities = [], []
    for quality in cls.qualities[::2]:
        codec = cls(quality)
        coded = codec.compress(x)
        lengths.append(len(coded["strings"][0][0]))
        qualities.append(psnr(codec.decompress(**coded)["x_hat"], x))
    assert lengths == sorted(set(lengths)) and qualities == sorted(set(qualities))
    assert lengths[-1] > 2 * lengths[0] - 400 and qualities[-1] > qualities[0] + 2


@pytest.mark.parametrize("name", INSTALLED)
def test_bytes_depend_on_the_picture_alone(name):
    x = torch.cat((busy(24, 40), busy(24, 40)))
    codec = middle(name)
    strings = codec.compress(x)["strings"]
    assert strings == codec.compress(x.double())["strings"]
    assert strings[0][1:] == codec.compress(x[1:])["strings"][0]
    both = codec.decompress(strings, (24, 40), views=("machine",))
    alone = codec.decompress([strings[0][1:]], (24, 40))
    assert set(both) == {"x_bar"} and torch.equal(both["x_bar"][1:], alone["x_hat"])


@pytest.mark.parametrize("name", PILLOW)
def test_files_are_what_pillow_reads(name):
    coded = middle(name).compress(busy(30, 50))
    with Image.open(io.BytesIO(coded["strings"][0][0])) as image:
        picture = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    assert image.format == middle(name).format
    assert torch.equal(picture, middle(name).decompress(**coded)["x_hat"])


@pytest.mark.parametrize(
    ("name", "start", "container"),
    [
        ("jpeg", b"\xff\xd8", lambda file: 18),  # JFIF
        ("webp", b"RIFF", lambda file: 20 + file[16] % 2),
        ("jpeg2000", b"\xff\x4f\xff\x51", lambda file: len(comment(file))),
        ("avif", b"\x00\x00\x00\x20ftypavif", lambda file: file.find(b"mdat") + 4),
        ("hevc", b"\x00\x00\x00\x01\x40", lambda file: 0),
        ("vvc", b"\x00\x00\x00\x01", lambda file: 0),
        ("av1", b"\x12\x00\x0a", lambda file: 2),  # temporal delimiter
        ("jpegxl", b"\xff\x0a", lambda file: 0),
    ],
)
def test_the_container_is_named_apart(name, start, container):
    codec = middle(name)
    (file,) = codec.compress(busy(48, 48))["strings"][0]
    assert file.startswith(start) and b"x265" not in file and b"Lavc" not in file
    assert codec.overhead(file) == container(file) < len(file)


def comment(file):
    start = file.index(b"\xff\x64")
    return file[start : file.index(b"\xff\x90")]


@pytest.mark.parametrize("name", ["hevc", "hevc-420"])
def test_a_map_of_steps_moves_hevcs_qp(name):
    """Six for an octave, where the map says so; for pictures of any size."""
    x, codec = busy(115, 173), find_classical(name)(37)
    steps = torch.ones(8, 11)
    steps[:5, 6:] = 0.5
    decoded = {}
    for key, step in (("none", None), ("flat", torch.ones(8, 11)), ("map", steps)):
        data = codec.encode(x, step)
        decoded[key] = codec.decode(data, (115, 173))["x_hat"]
    inside = slice(0, 72), slice(104, 173)
    outside = slice(88, 115), slice(0, 88)
    for (rows, cols), low, high in ((inside, 2.5, 7), (outside, -0.7, 0.7)):
        values = [
            psnr(decoded[key][..., rows, cols], x[..., rows, cols])
            for key in ("none", "flat", "map")
        ]
        assert abs(values[1] - values[0]) < 0.5
        assert low < values[2] - values[1] < high
    with pytest.raises(ValueError, match=r"a map \(8, 11\) .* got \(8, 10\)"):
        codec.encode(x, steps[:, 1:])


def test_streams_spend_little_on_a_picture_of_nothing():
    for name in ("hevc", "hevc-420", "vvc", "av1", "jpegxl"):
        (string,) = middle(name).compress(torch.full((1, 3, 64, 64), 0.5))["strings"][0]
        assert len(string) < 150


def test_chroma_is_kept_in_444_only():
    x = torch.zeros(1, 3, 64, 64)
    x[:, 0, :, ::2] = 1
    kept = {
        n: psnr(best(n).decompress(**best(n).compress(x))["x_hat"], x) > 35
        for n in INSTALLED
    }
    assert {n for n in kept if not kept[n]} == {"jpeg", "webp", "hevc-420", "vvc"}


@pytest.mark.parametrize("name", INSTALLED)
def test_broken_files_are_errors(name, temp):
    codec = middle(name)
    coded = codec.compress(busy(40, 64))
    (string,) = coded["strings"][0]
    for broken in (b"", b"no picture " * 30, bytes(200), string[:20]):
        with pytest.raises(BitstreamError, match="40x64|64x40"):
            codec.decompress([[broken]], (40, 64))
    for shape in ((64, 40), (16, 160), (40, 128), (24, 64)):
        with pytest.raises(BitstreamError, match=f"{shape[1]}x{shape[0]}"):
            codec.decompress(**{**coded, "shape": shape})
    if not name.startswith("hevc"):  # its decoder conceals what is cut off
        with pytest.raises(BitstreamError):
            codec.decompress([[string[: len(string) // 2]]], (40, 64))
    with pytest.raises(BitstreamError, match="file per picture"):
        codec.decompress([[string], [string]], (40, 64))
    assert not list(temp.iterdir())


def test_wrong_arguments_are_named():
    for quality in (0, 101, 50.0, "50"):
        with pytest.raises(ValueError, match=r"JPEG .*from 1 to 100"):
            CLASSICAL["jpeg"](quality)
    with pytest.raises(ValueError, match="QP, an integer from 0 to 51; got 52"):
        CLASSICAL["hevc"](52)
    codec = middle("jpeg")
    for x in (torch.rand(3, 8, 8), torch.rand(1, 1, 8, 8), torch.rand(1, 3, 0, 8)):
        with pytest.raises(ValueError, match=r"\(N, 3, H, W\)"):
            codec.compress(x)
    with pytest.raises(ValueError, match="divide 8-bit pictures by 255"):
        codec.compress(255 * torch.rand(1, 3, 8, 8))
    with pytest.raises(ValueError, match="views must be among .* got .'robot'"):
        codec.decompress(**codec.compress(smooth(8, 8)), views=("robot",))


def test_what_is_missing_is_named(monkeypatch):
    codec, x = middle("hevc"), smooth(16, 16)
    codec.encoder = "libnone"
    with pytest.raises(RuntimeError, match="without libnone: .*IMAGEIO_FFMPEG_EXE"):
        codec.compress(x)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(RuntimeError, match="pip install imageio-ffmpeg"):
        middle("vvc").compress(x)
    monkeypatch.setattr(features, "check", lambda feature: False)
    with pytest.raises(RuntimeError, match="without avif: pip install"):
        middle("avif").compress(x)


@pytest.mark.parametrize("name", REFERENCE)
def test_reference_software_is_run_from_its_paths(name, tools, temp, monkeypatch):
    codec, x = CLASSICAL[name](32, **tools), busy(17, 33)
    coded = codec.compress(x)
    (string,) = coded["strings"][0]
    assert string[:4] == b"QP32" and len(string) == 4 + 3 * 24 * 40
    assert psnr(codec.decompress(**coded)["x_hat"], x) > 45
    with pytest.raises(BitstreamError, match="no parameter set$"):
        codec.decompress([[b"hello"]], (17, 33))
    with pytest.raises(BitstreamError, match="40x24"):
        codec.decompress([[b"QP32hello"]], (17, 33))
    tools["config"].write_text("random access")
    with pytest.raises(RuntimeError, match="did not code the picture: AssertionError"):
        codec.compress(x)
    assert not list(temp.iterdir())

    tool = codec.tool
    monkeypatch.delenv(f"{tool}_ENCODER", raising=False)
    with pytest.raises(RuntimeError, match=f"encoder=<path>, or set {tool}_E"):
        CLASSICAL[name](32).compress(x)
    tools["config"].write_text("all intra")
    for part, path in tools.items():
        monkeypatch.setenv(f"{tool}_{part.upper()}", str(path))
    assert CLASSICAL[name](32).compress(x) == coded


def test_what_reference_software_says_is_told(tools):
    x = busy(17, 33)
    say = (
        "#!{}\nimport sys\nprint('{}')\nprint('done', file=sys.stderr)\nsys.exit({})\n"
    )
    for part, text, status in (
        ("encoder", "Error: QP must be less than 52", 1),
        ("decoder", "nothing to do", 0),
    ):
        tools[part].write_text(say.format(sys.executable, text, status))
    codec = CLASSICAL["hevc-hm"](32, **tools)
    with pytest.raises(RuntimeError, match="the picture: Error: QP must be less"):
        codec.compress(x)
    with pytest.raises(BitstreamError, match="HM finds no picture in the stream"):
        codec.decompress([[b"QP32"]], (17, 33))


@pytest.mark.parametrize(
    ("coder", "name"),
    [("hevc", "hevc-hm"), ("hevc-420", "hevc-hm"), ("vvc", "vvc-vtm")],
)
@pytest.mark.parametrize("size", [(64, 96), (96, 64), (16, 128)])
def test_a_stream_of_another_shape_is_refused(coder, name, size, tools):
    stream = CLASSICAL[coder](40).encode(busy(*size))
    codec = CLASSICAL[name](32, **tools)
    assert read_stream_size(stream, codec.standard) == size
    said = f"{size[1]}x{size[0]} samples, not {size[0]}x{size[1]}"
    with pytest.raises(BitstreamError, match=said):
        codec.decompress([[stream]], size[::-1])
    assert read_stream_size(b"QP32", codec.standard) is None
    for end in range(0, 80, 3):  # cut off
        assert read_stream_size(stream[:end], codec.standard) in (size, None)


@pytest.mark.parametrize("name", ["jpeg", "hevc"])
def test_a_file_is_coded_as_evaluation_asks(name):
    codec, x = middle(name), busy(32, 48)
    coded, data = codec.compress(x), codec.encode(x)
    assert [[data]] == coded["strings"] and codec.overhead(data) < len(data)
    views = codec.decode(data, (32, 48), ("human",))
    assert set(views) == {"x_hat"}
    assert torch.equal(views["x_hat"], codec.decompress(**coded)["x_hat"])


@pytest.mark.parametrize("name", FFMPEG)
def test_an_encoder_that_fails_is_named(name, temp):
    codec = middle(name)
    codec.options = "-pix_fmt none"
    with pytest.raises(RuntimeError, match=f"{codec.encoder} did not code"):
        codec.compress(smooth(16, 16))
    assert not list(temp.iterdir()) and os.environ["TMPDIR"] == str(temp)
