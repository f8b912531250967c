import pytest
import torch

from compressai_hm import LatentBackbone


@pytest.mark.parametrize(
    ("strides", "size"),
    [
        ((4, 8, 16, 32), (6, 10)),
        ((8, 16, 32), (4, 4)),
        ((32,), (5, 4)),
        ((2, 64), (4, 8)),
    ],
)
def test_it_gives_the_levels_asked_for(strides, size):
    channels = [8 * (i + 1) for i in range(len(strides))]
    net = LatentBackbone(12, channels, strides, width=16, depth=1)
    y_hat = torch.randn(2, 12, *size)
    levels = net(y_hat)
    assert [tuple(level.shape) for level in levels] == [
        (2, c, *(-(-16 * side // s) for side in size))
        for c, s in zip(channels, strides, strict=True)
    ]
    sum(level.sum() for level in levels).backward()
    assert all(p.grad is not None for p in net.parameters())  # as DDP wants it


def test_pictures_of_a_batch_do_not_mix():
    net = LatentBackbone(12, [8, 8], [8, 16], width=16, depth=2)
    y_hat = torch.randn(3, 12, 4, 4)
    for both, alone in zip(net(y_hat), net(y_hat[1:2]), strict=True):
        torch.testing.assert_close(both[1:2], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (dict(strides=[3]), r"one stride of \[2, 4"),
        (dict(strides=[4, 8]), "each of out_channels"),
        (dict(width=12), "width must be a multiple of 8, got 12"),
    ],
)
def test_bad_levels_are_refused(changes, named):
    with pytest.raises(ValueError, match=named):
        LatentBackbone(
            **{**dict(in_channels=4, out_channels=[8], strides=[8]), **changes}
        )
