"""A backbone on the latent, at any size of picture and detector."""

import pytest
import torch

from compressai_hm import LatentBackbone


def build(strides=(8, 16), **options) -> LatentBackbone:
    options = {"widths": [16], "depths": [1], **options}
    channels = [8 * (i + 1) for i in range(len(strides))]
    return LatentBackbone(12, channels, strides, **options)


@pytest.mark.parametrize(
    ("strides", "size"),
    [
        ((4, 8, 16, 32), (12, 20)),
        ((8, 16, 32), (7, 4)),
        ((32,), (5, 9)),
        ((2, 64), (4, 8)),
    ],
)
def test_it_gives_the_levels_asked_for(strides, size):
    net = build(strides)
    levels = net(torch.randn(2, 16, *size))
    assert [tuple(level.shape) for level in levels] == [
        (2, 8 * (i + 1), *(-(-8 * side // s) for side in size))
        for i, s in enumerate(strides)
    ]
    assert len(net.read(torch.randn(1, 12, *size), (64, 60))) == len(strides)
    assert net.stem(torch.randn(1, 12, 2, 3)).shape == (1, 16, 4, 6)


def test_all_weights_are_reached():
    net = build((4, 8, 16, 32))  # as DDP wants it
    sum(
        level.sum() for level in net.read(torch.randn(1, 12, 4, 4), (64, 64))
    ).backward()
    assert all(p.grad is not None for p in net.parameters())


def test_objects_are_where_the_detector_would_see_them():
    """A feature that is the picture's own x and y, resampled to any input size."""
    net = build()
    y_hat = torch.zeros(1, 12, 60, 80)  # more than the picture's positions
    y_hat[0, 0] = 16 * (torch.arange(80) + 0.5)
    y_hat[0, 1] = 16 * (torch.arange(60) + 0.5)[:, None]
    with torch.no_grad():
        weight, bias = (p.zero_().unflatten(0, (-1, 4)) for p in net.stem.parameters())
        weight[0, :, 0] = weight[1, :, 1] = 1
        bias[:2] = torch.tensor([[-4.0, 4, -4, 4], [-4, -4, 4, 4]])
    for factors, padded in [
        ((1.0, 1.0), (480, 640)),
        ((0.7, 0.7), (352, 448)),
        ((2.0, 1.5), (736, 1280)),
        ((0.25, 0.25), (128, 160)),
    ]:
        x, y = net.resample(y_hat, (480, 640), factors, padded)[0, :2].detach()
        inside = (y.shape[0] * 480 * factors[1]) // padded[0]
        across = 8 * (torch.arange(x.shape[1]) + 0.5) / factors[0]
        for row in range(1, int(inside) - 1):
            torch.testing.assert_close(x[row, 2:-2], across[2:-2])
            assert torch.allclose(
                y[row, 2:-2], torch.tensor(8 * (row + 0.5) / factors[1])
            )


def test_what_lies_beyond_the_picture_is_not_seen():
    net = build().eval()
    y_hat = torch.randn(1, 12, 3, 4)
    batch = torch.cat((y_hat, torch.randn(1, 12, 3, 4)), 3)
    place = ((40, 60), (1.0, 1.0), (64, 96))
    alone, padded = (net.resample(y, *place) for y in (y_hat, batch))
    assert torch.equal(alone, padded)
    assert alone[..., 5:, :].eq(0).all() and alone[..., 8:].eq(0).all()
    assert alone[..., :5, :7].ne(0).all()


@pytest.mark.parametrize(
    "size", [(1, 1), (17, 33), (480, 640), (16, 8000), (3000, 4000)]
)
def test_any_picture_fits(size):
    net = build((8, 16, 32), scale=[448, 320])
    (factor, _), padded = net.fit(size)
    assert max(padded) <= 448 and min(padded) >= 32
    assert factor * max(size) <= 448.01 and factor * min(size) <= 320.01
    y_hat = torch.randn(1, 12, -(-size[0] // 16), -(-size[1] // 16))
    levels = net.read(y_hat, size)
    assert levels[0].shape[-2:] == (padded[0] // 8, padded[1] // 8)
    assert all(level.isfinite().all() for level in levels)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (dict(strides=[3]), r"one stride of \[2, 4"),
        (dict(strides=[4, 8]), "each of out_channels"),
        (dict(widths=[4]), r"widths from 8 on .* widths=\[4\]"),
        (dict(depths=[]), r"depths=\[\]"),
        (dict(scale=[320]), r"must be \(width, height\), got \[320\]"),
    ],
)
def test_bad_levels_are_refused(changes, named):
    with pytest.raises(ValueError, match=named):
        LatentBackbone(
            **{**dict(in_channels=4, out_channels=[8], strides=[8]), **changes}
        )
