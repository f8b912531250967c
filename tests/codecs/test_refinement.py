import pytest
import torch

from compressai_hm.codecs import refine, tables

from .families import busy, families


@pytest.fixture
def built(monkeypatch):
    """One item for each coder that is made."""
    made, real = [], tables.LatentCoder
    monkeypatch.setattr(
        tables, "LatentCoder", lambda *args: made.append(1) or real(*args)
    )
    return made


def loss(latent):
    return latent["y_hat"].square().sum()


@families
def test_the_coder_is_made_once(name, built):
    """Although a step of training clears what a mask hides of a context's weights."""
    net, x = busy(name), torch.rand(1, 3, 64, 64)
    for _ in range(2):
        refine(net, x, loss, 21)
    assert len(built) == 1
    h_s = next(k for k, _ in net.named_parameters() if ".h_s" in f".{k}")
    with torch.no_grad():
        net.get_parameter(h_s).mul_(1.5)
    refine(net, x, loss, 1)
    assert len(built) == 2
