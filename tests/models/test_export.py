"""Transforms in other runtimes."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from compressai_hm import decode, encode
from compressai_hm.models.export import RUNTIMES, export_transforms, use_runtime
from compressai_hm.zoo import load_checkpoint, load_model

from ..families import busy

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[2] / "docs/decode_with_onnxruntime.py"


def difference(path, net, x):
    """Of an exported transform from torch's, relative to what it gives."""
    transform = getattr(net, path.stem)
    given = net.g_a(x) if path.stem == "g_s" else x
    if path.suffix == ".pt2":
        out = torch.export.load(path).module()(given)
    else:
        session = pytest.importorskip("onnxruntime").InferenceSession(str(path))
        out = torch.from_numpy(session.run(None, {"input": given.numpy()})[0])
    own = transform(given)
    return float((out - own).abs().max() / own.abs().max().clamp(min=1))


@torch.no_grad()
def test_any_size_comes_out_as_from_torch(tmp_path):
    net = load_checkpoint("compressai_hm://demo_codec.pth").eval()  # with GDN
    pytest.importorskip("onnxscript")
    for kind in ("onnx", "torch"):
        files = export_transforms(net, tmp_path / kind, kind)
        assert {path.stem for path in files} == {"g_a", "g_s", "g_t"}
        for size in ((64, 64), (192, 128)):
            for path in files:
                assert difference(path, net, torch.rand(1, 3, *size)) < 1e-4


@torch.no_grad()
def test_attention_and_unequal_groups_come_out_alike(tmp_path):
    """ELIC's; in ONNX, which is made of torch's program. 14 s."""
    pytest.importorskip("onnxscript")
    net = busy("hm-elic2022")
    for path in export_transforms(net, tmp_path):
        assert difference(path, net, torch.rand(1, 3, 128, 64)) < 1e-4


def test_without_g_t_there_is_none(tmp_path):
    net = busy("hm-mbt2018-mean", g_t_width=0).train()
    files = export_transforms(net, tmp_path, "torch")
    assert [path.name for path in files] == ["g_a.pt2", "g_s.pt2"] and net.training
    with pytest.raises(ValueError, match="onnx, torch, got 'tflite'"):
        export_transforms(net, tmp_path, "tflite")


@pytest.mark.parametrize("runtime", RUNTIMES)
@torch.no_grad()
def test_a_runtime_decodes_to_the_same_symbols(runtime):
    for package in ("onnxscript", runtime):
        pytest.importorskip(package)
    net, other = (load_model("hm-compact", 2, pretrained=True).eval() for _ in range(2))
    x = torch.rand(1, 3, 12, 15)
    x = torch.nn.functional.interpolate(x, (150, 190), mode="bicubic").clamp(0, 1)
    before = net.analyze(x)
    use_runtime(other, runtime, "g_a")
    y = other.analyze(x)
    assert 0 < (y - before).abs().max() < 1e-4 * before.abs().max()  # it is another
    use_runtime(other, runtime, "g_s")
    for data in (encode(net, x, 2), encode(other, x, 2)):
        ours, theirs = (decode(n, data)["x_hat"] for n in (net, other))
        assert 0 < (ours - theirs).abs().max() < 1e-4
    with pytest.raises(ValueError, match="one of onnxruntime, openvino: 'tflite'"):
        use_runtime(other, "tflite", "g_a")


def test_the_example_decodes_a_file(tmp_path):
    for package in ("onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    net, x = (
        load_model("hm-compact", 2, pretrained=True).eval(),
        torch.rand(1, 3, 70, 90),
    )
    export_transforms(net, tmp_path)
    data = encode(net, x, quality=2)
    (tmp_path / "x.hmc").write_bytes(data)
    paths = (tmp_path / name for name in ("x.hmc", "g_s.onnx", "x.png"))
    runpy.run_path(str(EXAMPLE))["main"](*map(str, paths))
    own = (decode(net, data)["x_hat"][0] * 255).round().permute(1, 2, 0).numpy()
    decoded = np.asarray(Image.open(tmp_path / "x.png")).astype(float)
    assert np.abs(decoded - own).max() <= 1  # of 255: roundings of halves
