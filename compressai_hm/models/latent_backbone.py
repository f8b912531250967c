"""A backbone from the decoded latent to features for machines, without a picture."""

from collections.abc import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from compressai.layers import conv1x1, subpel_conv3x3
from torch import Tensor

from ..geometry import Y_STRIDE, blocks, latent_size, padded_size
from .compact import DepthwiseBlock

GRID = 8
"""Pixels of the detector's input for a position of the grid that the blocks read."""

_SPLIT = Y_STRIDE // GRID
"""Positions that the stem makes of one of y_hat, along each axis."""


class LatentBackbone(nn.Module):
    """A detector's backbone that reads y_hat instead of a picture.

    ::

        y_hat ─► 1x1 ─► shuffle 2 ─► resample ─► blocks ─┬─► 1x1 ─► stride 8
                 8 pixels of the picture   8 pixels of   ├─► 2x2, stride 2 ─► blocks
                              the detector's input       │    ─► 1x1 ─► stride 16, ...
                                                         └─► x2 ─► block ─► 1x1 ─►
                                                              stride 4, ...

    A detector reads pictures at a size that it was trained for. :meth:`resample` brings
    a latent to the grid of that size, so that objects are as large as in its input.

    Args:
        in_channels: M, channels of y_hat.
        out_channels: Channels of each level, as the detector's neck expects them.
        strides: Pixels per position of each level, powers of 2 from 2 to 128.
        widths: Channels at stride 8, 16 and so on. The last is that of all coarser
            strides too. Finer strides halve the first. Defaults to (128, 192).
        depths: Blocks at stride 8, 16 and so on, likewise. Defaults to (5, 4, 2).
        scale: (width, height) in pixels into which the detector's input fits; see
            :meth:`fit`. Defaults to (0, 0), the picture's own size.

    Raises:
        ValueError: If a stride, width, depth or the scale is invalid.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: Sequence[int],
        strides: Sequence[int],
        widths: Sequence[int] = (128, 192),
        depths: Sequence[int] = (5, 4, 2),
        scale: Sequence[int] = (0, 0),
    ):
        super().__init__()
        known = [2**i for i in range(1, 8)]
        if len(strides) != len(out_channels) or not set(strides) <= set(known):
            raise ValueError(
                f"a latent backbone needs one stride of {known} for each of "
                f"out_channels, got strides={list(strides)}, "
                f"out_channels={list(out_channels)}"
            )
        if not widths or not depths or min(widths) < 8 or min(depths) < 0:
            raise ValueError(
                "a latent backbone needs widths from 8 on and depths from 0 on, got "
                f"widths={list(widths)}, depths={list(depths)}"
            )
        if len(scale) != 2 or min(scale) < 0:
            raise ValueError(f"scale must be (width, height), got {list(scale)}")
        self.options = {
            "in_channels": in_channels,
            "out_channels": list(out_channels),
            "strides": list(strides),
            "widths": list(widths),
            "depths": list(depths),
            "scale": list(scale),
        }
        self.strides, self.scale = tuple(strides), tuple(scale)
        coarser = [s for s in (16, 32, 64, 128) if s <= max(strides)]
        finer = [s for s in (4, 2) if s >= min(strides)]

        width = {GRID: widths[0]}
        self.stem = nn.Sequential(
            conv1x1(in_channels, _SPLIT**2 * widths[0]), nn.PixelShuffle(_SPLIT)
        )
        self.levels = nn.ModuleDict({str(GRID): _make_blocks(widths[0], depths[0])})
        for i, stride in enumerate(coarser, start=1):
            wide = width[stride] = widths[min(i, len(widths) - 1)]
            down = nn.Conv2d(width[stride // 2], wide, 2, stride=2)
            blocks = _make_blocks(wide, depths[min(i, len(depths) - 1)])
            self.levels[str(stride)] = nn.Sequential(down, *blocks)
        for stride in finer:
            wide = width[stride] = max(8, width[2 * stride] // 2)
            up = subpel_conv3x3(width[2 * stride], wide, 2)
            self.levels[str(stride)] = nn.Sequential(up, *_make_blocks(wide, 1))
        self.laterals = nn.ModuleList(
            conv1x1(width[s], out) for s, out in zip(strides, out_channels, strict=True)
        )

    def fit(self, size: tuple[int, int]) -> tuple[tuple[float, float], tuple[int, int]]:
        """Fits a picture into the scale, with its aspect ratio.

        Args:
            size: (H, W) of the picture in pixels.

        Returns:
            The factors (x, y) of its size, and (H, W) in pixels of the result, padded
            to multiples of the largest stride.
        """
        factor = 1.0
        if all(self.scale):
            short, long = sorted(self.scale)
            factor = min(long / max(size), short / min(size))
        height, width = (max(1, round(factor * side)) for side in size)
        multiple = max(GRID, *self.strides)
        return (factor, factor), padded_size((height, width), multiple)

    def resample(
        self,
        y_hat: Tensor,
        size: tuple[int, int],
        factors: tuple[float, float],
        padded: tuple[int, int],
    ) -> Tensor:
        """Brings a latent to the grid of a detector's input.

        Args:
            y_hat: Latent of one picture, ``(1, M, h, w)``.
            size: (H, W) of the picture in pixels.
            factors: Size of the detector's input over that of the picture, (x, y).
            padded: (H, W) of the detector's input in pixels, with its padding below and
                to the right.

        Returns:
            ``(1, widths[0], padded H / 8, padded W / 8)``, rounded up, which
            :meth:`forward` reads. It is 0 in the padding.
        """
        rows, columns = latent_size(size)  # the others are padding, or of a batch
        y_hat, pixels = y_hat[..., :rows, :columns], float(GRID)
        merged = int(1 / max(factors))  # else interpolation would skip positions
        if merged % _SPLIT:
            features = self.stem(y_hat)
        else:  # as below, but the stem need not compute what would be merged
            conv, pixels, merged = self.stem[0], pixels * _SPLIT, merged // _SPLIT
            weight, bias = (
                p.unflatten(0, (-1, _SPLIT**2)).mean(1)
                for p in (conv.weight, conv.bias)
            )
            features = F.conv2d(y_hat, weight, bias)
        if merged > 1:
            features = F.avg_pool2d(
                features, merged, ceil_mode=True, count_include_pad=False
            )
            pixels *= merged
        # Centers of the grid's positions in pixels of the picture.
        y, x = (
            (torch.arange(count, device=y_hat.device) + 0.5) * GRID / factor
            for count, factor in zip(
                blocks(padded, GRID), reversed(factors), strict=True
            )
        )
        inside = (y < size[0])[:, None] & (x < size[1])
        height, width = (pixels * side for side in features.shape[-2:])
        down, across = torch.meshgrid(
            2 * y / height - 1, 2 * x / width - 1, indexing="ij"
        )
        places = torch.stack((across, down), -1)[None].float()
        features = F.grid_sample(  # half precision would move places
            features.float(), places, padding_mode="border", align_corners=False
        )
        return features * inside

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Computes the pyramid.

        Args:
            x: Results of :meth:`resample`, ``(N, widths[0], h, w)``.

        Returns:
            Features of each level, ``(N, C, 8 h / stride, 8 w / stride)``, rounded up.
        """
        levels: dict[int, Tensor] = {}
        for name, level in self.levels.items():
            stride = int(name)
            if stride > GRID:
                x = levels[stride // 2]
                odd = [side % 2 for side in x.shape[-2:]]
                if any(odd):
                    x = F.pad(x, (0, odd[1], 0, odd[0]), mode="replicate")
            elif stride < GRID:
                x = levels[2 * stride]
            levels[stride] = level(x)
        return tuple(
            lateral(levels[s])
            for lateral, s in zip(self.laterals, self.strides, strict=True)
        )

    def read(self, y_hat: Tensor, size: tuple[int, int]) -> tuple[Tensor, ...]:
        """Computes the pyramid of one picture at the size of :meth:`fit`.

        Args:
            y_hat: Latent of the picture, ``(1, M, h, w)``.
            size: (H, W) of the picture in pixels.

        Returns:
            Features of each level, ``(1, C, h, w)``.
        """
        return self(self.resample(y_hat, size, *self.fit(size)))

    def init_weights(self) -> None:
        """Does nothing; MMEngine calls it, and the constructor has set the weights."""


def _make_blocks(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(DepthwiseBlock(width) for _ in range(count)))
