import runpy
from types import SimpleNamespace

import pytest
import torch

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
