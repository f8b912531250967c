"""A backbone from the decoded latent to features for machines, without a picture."""

from collections.abc import Sequence

import torch.nn as nn
from compressai.layers import conv1x1, conv3x3, subpel_conv3x3
from torch import Tensor

from ..geometry import Y_STRIDE


class _Block(nn.Module):
    """Two normalized 3x3 convolutions with a skip."""

    def __init__(self, width: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(8, width),
            nn.ReLU(inplace=True),
            conv3x3(width, width),
            nn.GroupNorm(8, width),
            nn.ReLU(inplace=True),
            conv3x3(width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class LatentBackbone(nn.Module):
    """A detector's backbone that reads y_hat instead of a picture.

    ::

        y_hat ─► conv 1x1 ─► blocks ─┬─► conv 1x1 ─► stride 16
                                     ├─► x2 ─► block ─► conv 1x1 ─► stride 8, and so on
                                     └─► conv, stride 2 ─► conv 1x1 ─► stride 32, ...

    It has no batch statistics, but its group norms include the padding of a batch.

    Args:
        in_channels: M, channels of y_hat.
        out_channels: Channels of each level, as the detector's neck expects them.
        strides: Pixels per position of each level, powers of 2 from 2 to 128.
        width: Channels at stride 16 and above, a multiple of 8. Stride 8 has half of
            them, stride 4 a quarter, and so on, but at least 8. Defaults to 128.
        depth: Blocks at stride 16. Defaults to 4.

    Raises:
        ValueError: If a stride or the width is invalid.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: Sequence[int],
        strides: Sequence[int],
        width: int = 128,
        depth: int = 4,
    ):
        super().__init__()
        known = [2**i for i in range(1, 8)]
        if len(strides) != len(out_channels) or not set(strides) <= set(known):
            raise ValueError(
                f"a latent backbone needs one stride of {known} for each of "
                f"out_channels, got strides={list(strides)}, "
                f"out_channels={list(out_channels)}"
            )
        if width < 8 or width % 8:
            raise ValueError(f"width must be a multiple of 8, got {width}")
        self.options = {
            "in_channels": in_channels,
            "out_channels": list(out_channels),
            "strides": list(strides),
            "width": width,
            "depth": depth,
        }
        self.strides = tuple(strides)

        def channels(stride: int) -> int:
            return max(8, width * min(stride, Y_STRIDE) // Y_STRIDE // 8 * 8)

        self.stem = nn.Sequential(
            conv1x1(in_channels, width), *(_Block(width) for _ in range(depth))
        )
        finer = [s for s in (8, 4, 2) if s >= min(strides)]
        coarser = [s for s in (32, 64, 128) if s <= max(strides)]
        self.steps = nn.ModuleDict(
            {
                **{
                    str(s): nn.Sequential(
                        subpel_conv3x3(channels(2 * s), channels(s), 2),
                        _Block(channels(s)),
                    )
                    for s in finer
                },
                **{str(s): conv3x3(width, width, stride=2) for s in coarser},
            }
        )
        self.laterals = nn.ModuleList(
            conv1x1(channels(s), out)
            for s, out in zip(strides, out_channels, strict=True)
        )

    def forward(self, y_hat: Tensor) -> tuple[Tensor, ...]:
        """Computes the pyramid.

        Args:
            y_hat: Decoded latent, ``(N, M, h, w)``.

        Returns:
            Features of each level, ``(N, C, 16 h / stride, 16 w / stride)`` rounded up.
        """
        levels = {Y_STRIDE: self.stem(y_hat)}
        for name, step in self.steps.items():
            stride = int(name)
            before = 2 * stride if stride < Y_STRIDE else stride // 2
            levels[stride] = step(levels[before])
        return tuple(
            lateral(levels[s])
            for lateral, s in zip(self.laterals, self.strides, strict=True)
        )

    def init_weights(self) -> None:
        """Does nothing; MMEngine calls it, and the constructor has set the weights."""
