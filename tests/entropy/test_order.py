import pytest
import torch

from compressai_hm.entropy import order

sizes = pytest.mark.parametrize("size", [(4, 4), (4, 12), (12, 4), (8, 20), (32, 48)])
orders = pytest.mark.parametrize(
    "steps", [order.raster, order.wavefront, order.checkerboard]
)


@orders
@sizes
def test_every_position_goes_once(steps, size):
    at = torch.cat([at for at, _ in steps(*size)])
    assert torch.equal(at.sort().values, torch.arange(size[0] * size[1]))


@sizes
def test_wavefront_follows_the_causal_context(size):
    height, width = size
    step_of = {}
    steps = list(order.wavefront(height, width))
    for i, (at, _) in enumerate(steps):
        step_of.update(dict.fromkeys(at.tolist(), i))
    assert len(steps) == width + 3 * (height - 1)
    for h in range(height):
        for w in range(width):
            for dh, dw in (
                [(-2, d) for d in range(-2, 3)]
                + [(-1, d) for d in range(-2, 3)]
                + [(0, -2), (0, -1)]
            ):
                if h + dh >= 0 and 0 <= w + dw < width:
                    seen = step_of[(h + dh) * width + w + dw]
                    assert seen < step_of[h * width + w]


def test_a_picture_of_768x512_takes_141_wavefronts():
    assert len(list(order.wavefront(32, 48))) == 141


def test_bands_stay_small():
    assert max(len(at) for at, _ in order.raster(375, 500)) <= order.BAND
