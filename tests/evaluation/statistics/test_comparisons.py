import numpy as np
import pytest
import torch

from compressai_hm.evaluation.statistics.comparisons import differences
from compressai_hm.evaluation.sweep import Sweep
from compressai_hm.zoo import load_checkpoint

from ..conftest import finish


def test_differences_are_of_means_over_points(cfg, tmp_path):
    (weights,) = cfg.codecs[2].checkpoints
    state = torch.load(weights, weights_only=True)
    state = {k: v for k, v in state["state_dict"].items() if "g_t." not in k}
    torch.save(state, tmp_path / "plain.pth")
    net = load_checkpoint(weights)
    list(net.g_t.parameters())[-1].data += 0.1  # the last bias
    torch.save(net.state_dict(), tmp_path / "other.pth")
    cfg.codecs = [
        cfg.codecs[0],
        dict(name="g_t", checkpoints=[weights, str(tmp_path / "other.pth")]),
        dict(name="plain", checkpoints=[str(tmp_path / "plain.pth")]),
    ]
    cfg.differences = [dict(of="g_t", against="plain")]
    _, curves, *_ = finish(cfg, tmp_path / "w")
    rows = differences(curves, cfg.differences)
    found = {(r["set"], r["metric"]): r for r in rows}
    assert found["people", "bpp"]["value"] == 0  # g_t changes no byte
    psnr = {c.codec: c.metrics["psnr"] for c in curves if c.view == "x_bar"}
    expected = np.mean(psnr["g_t"]) - np.mean(psnr["plain"])
    low, high = found["people", "psnr"]["interval"]
    assert low <= expected <= high < 0
    assert found["people", "psnr"]["value"] == pytest.approx(expected)
    assert ("drawn", "mAP Faster R-CNN R18") in found
    cfg.differences = [dict(of="g_t", against="JPEG")]
    with pytest.raises(ValueError, match="'JPEG', which is no HM codec"):
        Sweep(cfg, tmp_path / "w")
