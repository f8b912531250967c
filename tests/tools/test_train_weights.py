import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.registry import init_default_scope

from compressai_hm.codecs import ENTRIES
from compressai_hm.detection.frozen_detector import FrozenDetector

from ..codecs.families import busy
from ..detection.tiny import ROOT


@pytest.mark.parametrize("gpus, hidden", [(0, False), (1, True), (2, False)])
def test_two_processes_share_no_gpu(gpus, hidden, monkeypatch, capsys):
    tool, started = runpy.run_path(str(ROOT / "tools/train_weights.py")), []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    run = SimpleNamespace(run=lambda command, check, env: started.append(env))
    monkeypatch.setitem(tool["train"].__globals__, "subprocess", run)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    tool["train_small"]("small/base", 2)
    (env,) = started
    assert env["CUDA_VISIBLE_DEVICES"] == ("" if hidden else "7")
    assert ("train on the CPU" in capsys.readouterr().out) == hidden


def test_the_person_detector_is_the_rounded_last_checkpoint(tmp_path, monkeypatch):
    tool = runpy.run_path(str(ROOT / "tools/train_weights.py"))
    started = []
    init_default_scope("mmdet")
    monkeypatch.setitem(
        tool["person"].__globals__,
        "train",
        lambda *args, **kw: started.append(args),
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tool["released"], "WEIGHTS", tmp_path)
    config = ROOT / "mmdet_configs/person/rtmdet_mobilenetv2.py"
    own = FrozenDetector(str(config), "", None)
    own.build()
    weights = own.module.state_dict()
    weights["bbox_head.rtm_cls.0.bias"] += 0.1
    for folder, epoch in (("distilled", 18), ("448", 1), ("448", 2)):
        folder = tmp_path / f"work_dirs/person_{folder}"
        folder.mkdir(parents=True, exist_ok=True)
        saved = dict(meta=dict(iter=epoch, epoch=epoch), optimizer={}, state_dict={})
        saved["state_dict"] = weights if epoch == 2 else {}
        torch.save(saved, folder / f"epoch_{epoch}.pth")
    tool["person"]()
    assert [Path(config).stem for (config,) in started] == [
        "rtmdet_mobilenetv2_distilled",
        "rtmdet_mobilenetv2_448",
    ]
    path = tmp_path / "person_detector.pth"
    assert path.stat().st_size < 12e6
    assert path.name in (tmp_path / "SHA256SUMS").read_text()
    shipped = FrozenDetector(str(config), str(path), None)
    shipped.build()
    shipped.load()
    for key, value in shipped.module.state_dict().items():
        rounded = weights[key].half() if value.is_floating_point() else weights[key]
        assert torch.equal(value, rounded.to(value)), key


def test_a_grown_codec_computes_what_it_did(monkeypatch):
    grow = runpy.run_path(str(ROOT / "tools/train_weights.py"))["grow"]
    torch.manual_seed(0)
    old = busy("hm-mbt2018-s", g_t_width=0)
    new = ENTRIES["hm-mbt2018-vbr-s"].model(16, 32, g_t_width=0).eval()
    grow(old, new)
    x = torch.rand(1, 3, 128, 192)
    with torch.no_grad():
        y, wider = old.analyse(x), new.analyse(x)
        assert torch.allclose(wider[:, : old.M], y, rtol=1e-4, atol=1e-4)
        assert wider[:, old.M :].any()
        assert torch.allclose(new.g_s(wider), old.g_s(y), rtol=1e-4, atol=1e-4)
        before, after = (net.code_latent(own) for net, own in ((old, y), (new, wider)))
    y_hat = after["y_hat"][:, : old.M]
    assert torch.allclose(y_hat, before["y_hat"], rtol=1e-3, atol=1e-3)
