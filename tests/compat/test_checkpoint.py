import pickle

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import load_checkpoint
from torch import nn

from compressai_hm.detection.load import fetch_checkpoint


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def test_a_runners_checkpoint_loads_with_weights_only(tmp_path):
    log = HistoryBuffer()
    log.update(np.float64(1.5))
    saved = {"state_dict": {}, "loss": log, "n": np.int64(3)}
    torch.save(saved, tmp_path / "a.pth")
    loaded = load_checkpoint(nn.Module(), str(tmp_path / "a.pth"))
    assert loaded["loss"].current() == 1.5 and loaded["n"] == 3


def test_files_with_code_are_refused(tmp_path, capsys, monkeypatch):
    path = tmp_path / "evil.pth"
    torch.save({"state_dict": {}, "x": Evil()}, path)
    with pytest.raises(pickle.UnpicklingError):
        load_checkpoint(nn.Module(), str(path))
    with pytest.raises(RuntimeError, match="evil.pth"):
        fetch_checkpoint(str(path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    path.rename(tmp_path / "checkpoints" / "evil.pth")  # as if downloaded
    with pytest.raises(pickle.UnpicklingError):
        load_checkpoint(nn.Module(), "https://localhost/evil.pth")
    assert "run" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 cut"])
def test_a_broken_file_is_named(tmp_path, content):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(RuntimeError, match="a.pth"):
        fetch_checkpoint(str(tmp_path / "a.pth"))
    with pytest.raises(FileNotFoundError, match="b.pth"):
        fetch_checkpoint(str(tmp_path / "b.pth"))
