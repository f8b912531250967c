"""The dynamic adaptation network g_t: x_bar = g_t(x_hat).

Layers and order are those of the "Dynamic Adaptation Network" in "Learned Image
Compression for Both Humans and Machines via Dynamic Adaptation" (ICIP 2024)::

    x_hat ─┬─► conv 5x5 ─► RB ─► RB ─► AB ─► RB ─► RB ─► conv 5x5 ─► + ─► x_bar
           └─────────────────────────────────────────────────────────┘
"""

import torch
import torch.nn as nn
import torch.nn.functional as F
from compressai.layers import conv1x1, conv3x3
from torch import Tensor

__all__ = ["AttentionBlock", "DynamicAdaptation", "ResidualBlock"]


class ResidualBlock(nn.Module):
    """RB: 1x1 -> ReLU -> 3x3 -> ReLU -> 1x1, with a skip.

    The paper does not state the inner width; as in Cheng 2020 it is half of ``width``.

    Args:
        width: Number of channels in and out; even.
    """

    def __init__(self, width: int):
        super().__init__()
        self.body = nn.Sequential(
            conv1x1(width, width // 2),
            nn.ReLU(inplace=True),
            conv3x3(width // 2, width // 2),
            nn.ReLU(inplace=True),
            conv1x1(width // 2, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class AttentionBlock(nn.Module):
    """AB: three RBs, gated by (three RBs -> 1x1 -> sigmoid), with a skip.

    Args:
        width: Number of channels in and out; even.
    """

    def __init__(self, width: int):
        super().__init__()
        self.trunk = nn.Sequential(*(ResidualBlock(width) for _ in range(3)))
        self.gate = nn.Sequential(
            *(ResidualBlock(width) for _ in range(3)),
            conv1x1(width, width),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.trunk(x) * self.gate(x)


class DynamicAdaptation(nn.Module):
    """g_t; it starts as the identity, because its last convolution starts at zero.

    Args:
        width: Channels inside; even. The paper does not state them. Defaults to 32.
        downscale: 1 is the paper's network. 2 and 4 run the same layers on the
            pixel-unshuffled picture, at 1/4 and 1/16 of the cost per channel. Defaults
            to 1.

    Raises:
        ValueError: For an odd or non-positive ``width``, or another ``downscale``.
    """

    def __init__(self, width: int = 32, downscale: int = 1):
        super().__init__()
        if width < 2 or width % 2:
            raise ValueError(f"g_t's width must be even and positive, got {width}")
        if downscale not in (1, 2, 4):
            raise ValueError(f"g_t's downscale must be 1, 2 or 4, got {downscale}")
        self.width = width
        self.downscale = downscale
        channels = 3 * downscale**2
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 5, padding=2),
            ResidualBlock(width),
            ResidualBlock(width),
            AttentionBlock(width),
            ResidualBlock(width),
            ResidualBlock(width),
            nn.Conv2d(width, channels, 5, padding=2),
        )
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Makes g_t the identity again: zeroes the last convolution."""
        self.layers[-1].weight.zero_()
        self.layers[-1].bias.zero_()

    def forward(self, x_hat: Tensor) -> Tensor:
        """Adapts the decoded picture for machines.

        Args:
            x_hat: Decoded RGB, ``(N, 3, H, W)``, unclamped, any H and W.

        Returns:
            x_bar, ``(N, 3, H, W)``, unclamped.
        """
        height, width = x_hat.shape[-2:]
        pad = (0, -width % self.downscale, 0, -height % self.downscale)
        x = F.pad(x_hat, pad, mode="replicate") if any(pad) else x_hat
        residual = self.layers(F.pixel_unshuffle(x, self.downscale))
        residual = F.pixel_shuffle(residual, self.downscale)
        return x_hat + residual[..., :height, :width]

    @staticmethod
    def options_from(state_dict: dict[str, Tensor]) -> dict[str, int]:
        """Returns the ``width`` and ``downscale`` of a g_t.

        Args:
            state_dict: Weights of g_t, without a prefix.
        """
        width, channels = state_dict["layers.0.weight"].shape[:2]
        return {"width": width, "downscale": round((channels / 3) ** 0.5)}
