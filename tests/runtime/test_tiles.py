import pytest
import torch
from torch import nn

from compressai_hm.runtime import tiles

from ..families import busy, families


@pytest.fixture
def small_tiles(monkeypatch):
    def use():
        monkeypatch.setattr(tiles, "WHOLE", 2**16)
        monkeypatch.setattr(tiles, "TILE", 256)

    return use


@families
def test_there_is_no_seam(name, small_tiles):
    """Each tile reads as far around itself as any family's transforms reach."""
    net, x = busy(name, g_t_downscale=4), torch.rand(1, 3, 500, 600)
    nn.init.normal_(net.g_t.layers[-1].weight, std=0.1)
    with torch.no_grad():
        y = net.analyze(x)
        whole = net.synthesize(y, (500, 600))
        small_tiles()
        assert (net.analyze(x) - y).abs().max() < 1e-5 * y.abs().max()
        for view, picture in net.synthesize(y, (500, 600)).items():
            difference = (picture - whole[view]).abs().max()
            assert difference < 1e-5 * whole[view].abs().max()


def test_tiles_are_of_bounded_size(small_tiles):
    small_tiles()
    seen = []

    def transform(x):
        seen.append(x.shape[-2:])
        return nn.functional.avg_pool2d(x, 16)

    x = torch.rand(1, 3, 1600, 2048)
    assert torch.equal(tiles.tiled(transform, x, 1 / 16), transform(x))
    assert len(seen) == 7 * 8 + 1
    assert max(max(size) for size in seen[:-1]) <= 256 + 2 * tiles.MARGIN


def test_a_large_picture_is_coded_like_a_small_one(small_tiles):
    net, x = busy("hm-mbt2018"), torch.rand(1, 3, 500, 600)
    whole = sum(len(s) for part in net.compress(x)["strings"] for s in part)
    small_tiles()
    coded = net.compress(x)
    in_tiles = sum(len(s) for part in coded["strings"] for s in part)
    assert abs(in_tiles - whole) <= 0.001 * whole
    assert torch.equal(net.decompress(**coded)["x_hat"], net(x)["x_hat"].clamp(0, 1))
