import pickle

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

import compressai_hm.detection  # noqa: F401


def test_a_runners_checkpoint_loads_with_weights_only(tmp_path):
    log = HistoryBuffer()
    log.update(np.float64(1.5))
    torch.save({"loss": log, "n": np.int64(3)}, tmp_path / "a.pth")
    loaded = torch.load(tmp_path / "a.pth", weights_only=True)
    assert loaded["loss"].current() == 1.5


def test_files_with_code_are_still_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({"x": Evil()}, tmp_path / "a.pth")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "a.pth", weights_only=True)
