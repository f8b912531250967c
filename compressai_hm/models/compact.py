"""hm-compact's network: a learned codec that starts as a transform codec.

::

         unshuffle 8, 1x1        2x2, stride 2
    x ───► 1/8, N ──► blocks ───► 1/16, M ──► blocks ──► y ─┬──────────► gain ─► coder
                                                            └─ h_a ─► z ────────►
    x_hat ◄─ shuffle 8, 1x1 ◄─ blocks ◄─ shuffle 2, 1x1 ◄─ blocks ◄─ inverse gain ◄─

Before training the blocks are the identity, and the network is the discrete cosine
transform of 16x16 pixels in opponent colors, whose M largest coefficients are coded.
Most of the cost is matrix products at an eighth of the resolution (after Z. Jia et al.,
"Towards Practical Real-Time Neural Video Compression", CVPR 2025). The channels of y
are coded in five groups of unequal size, each a checkerboard (after D. He et al.,
"ELIC", CVPR 2022), and the quantization step is an input of all entropy networks.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn as nn
from compressai.entropy_models import GaussianConditional
from compressai.layers import CheckerboardMaskedConv2d, conv1x1, conv3x3
from compressai.models import CompressionModel
from compressai.models.utils import deconv
from torch import Tensor

from ..entropy import ParallelFamily, SteppedBottleneck
from .entries import EVERY_RATE, zoo_entry
from .gain import Gain, GainsMixin
from .human_machine import HumanMachineMixin

_STEP = 255 / 86
"""Scale of the latent over orthonormal coefficients of [0, 1]. With this scale a
quantization step of 1 is about optimal at a λ of 0.0035."""

_LARGE = 8.0
"""Scale of the latent, in quantization steps, over the values at an eighth of the
resolution. Blocks divide by it, because a gate is a product: in other units one step of
the optimizer would change its result too much."""

_MOST = 4.0
"""Bound of a gate's two factors. Without it the products of several blocks can grow
until a training diverges."""


class DepthwiseBlock(nn.Module):
    """1x1, SiLU, depthwise 3x3, 1x1; then 1x1, gate, 1x1; each with a skip.

    It is the identity until it is trained: the last convolution of each half starts at
    zero.

    Args:
        width: Number of channels in and out.
        unit: Unit of its input and output. Defaults to 1.0.
    """

    def __init__(self, width: int, unit: float = 1.0):
        super().__init__()
        self.unit = unit
        self.space = nn.Sequential(
            conv1x1(width, width),
            nn.SiLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, groups=width),
            conv1x1(width, width),
        )
        self.gate = conv1x1(width, 2 * width)
        self.out = conv1x1(width, width)
        for last in (self.space[-1], self.out):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Computes ``(N, width, h, w)`` from ``(N, width, h, w)``."""
        x = x / self.unit
        x = x + self.space(x)
        a, b = self.gate(x).clamp(-_MOST, _MOST).chunk(2, 1)
        gated = nn.functional.silu(a * self.unit) / self.unit * b
        return (x + self.out(gated)) * self.unit


class GroupContext(nn.Module):
    """Networks that predict a group of channels; see ``entropy/parallel_family.py``.

    Args:
        channels: Number of channels of the group.
        before: Number of channels of the groups before it.
        known: Number of channels of the inputs that all groups share.
        width: Number of channels of the hidden layers.
        kernel: Size of the spatial context, 5 or 3.
    """

    def __init__(self, channels: int, before: int, known: int, width: int, kernel: int):
        super().__init__()
        self.channels = channels
        seen, pad = min(2 * channels, width // 2), kernel // 2
        self.spatial = CheckerboardMaskedConv2d(channels, seen, kernel, padding=pad)
        self.across = conv3x3(before, seen) if before else None
        inputs = known + seen * (2 if before else 1)
        self.predict = nn.Sequential(
            conv1x1(inputs, width),
            nn.LeakyReLU(inplace=True),
            conv1x1(width, width),
            nn.LeakyReLU(inplace=True),
            conv1x1(width, 2 * channels),
        )


class Compact(CompressionModel):
    """The codec without g_t.

    Args:
        N: Channels at an eighth of the resolution, of which at most 192 are used before
            training. Defaults to 192.
        M: Channels of the latent, at least 16. Defaults to 256.
        groups: Channels of each group of the latent, which sum to M. Defaults to None:
            1/16, 1/16, 1/8 and 1/4 of M and the remaining channels.
        blocks: Blocks of g_a at 1/8 and 1/16 of the resolution, then of g_s. Defaults
            to (5, 1, 4, 1).

    Raises:
        ValueError: If the groups are not positive or do not sum to M.
    """

    def __init__(
        self,
        N: int = 192,
        M: int = 256,
        groups: Sequence[int] | None = None,
        blocks: Sequence[int] = (5, 1, 4, 1),
    ):
        super().__init__()
        if groups is None:
            groups = [M // 16, M // 16, M // 8, M // 4]
            groups.append(M - sum(groups))
        if sum(groups) != M or min(groups) < 1:
            raise ValueError(f"groups must be positive and sum to M={M}, got {groups}")
        self.N, self.M = N, M
        side, z, width = M // 2, M // 4, 3 * M // 8
        self.g_a = nn.Sequential(
            nn.PixelUnshuffle(8),
            conv1x1(192, N),
            *(DepthwiseBlock(N) for _ in range(blocks[0])),
            nn.Conv2d(N, M, 2, stride=2),
            *(DepthwiseBlock(M, _LARGE) for _ in range(blocks[1])),
        )
        self.g_s = nn.Sequential(
            *(DepthwiseBlock(M, _LARGE) for _ in range(blocks[3])),
            conv1x1(M, 4 * N),
            nn.PixelShuffle(2),
            *(DepthwiseBlock(N) for _ in range(blocks[2])),
            conv1x1(N, 192),
            nn.PixelShuffle(8),
        )
        self.h_a = nn.Sequential(
            conv1x1(M + 2, side),
            nn.LeakyReLU(inplace=True),
            conv3x3(side, side, stride=2),
            nn.LeakyReLU(inplace=True),
            conv3x3(side, z, stride=2),
        )
        self.h_s = nn.Sequential(
            deconv(z, side * 3 // 4, kernel_size=3),
            nn.LeakyReLU(inplace=True),
            deconv(side * 3 // 4, side, kernel_size=3),
            nn.LeakyReLU(inplace=True),
        )
        self.groups, before = nn.ModuleList(), 0
        for channels in groups:
            # Fine detail depends on its nearest neighbors alone.
            kernel = 5 if before < M // 4 else 3
            group = GroupContext(channels, before, side + 2, width, kernel)
            self.groups.append(group)
            before += channels
        self.entropy_bottleneck = SteppedBottleneck(z)
        self.gaussian_conditional = GaussianConditional(None)
        self._start_as_cosine_transform()

    @torch.no_grad()
    def _start_as_cosine_transform(self) -> None:
        small, large = _make_cosine_transform(8), _make_cosine_transform(16)
        width = min(self.N, len(small))
        stem, last = self.g_a[1], self.g_s[-2]
        for layer in (stem, last):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        stem.weight[:width, :, 0, 0] = small[:width]
        last.weight[:, :width, 0, 0] = small[:width].T
        # A block of 16x16 is four of 8x8: (M, row, column, color, 8, 8).
        quarters = large[: self.M].view(-1, 3, 2, 8, 2, 8).permute(0, 2, 4, 1, 3, 5)
        joint = quarters.flatten(3) @ small[:width].T  # (M, 2, 2, width)
        down = next(m for m in self.g_a if getattr(m, "stride", 0) == (2, 2))
        up = next(m for m in self.g_s if isinstance(m, nn.Conv2d))
        for layer in (down, up):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        down.weight[: len(joint), :width] = joint.permute(0, 3, 1, 2) * _STEP
        into = up.weight[:, : len(joint), 0, 0].view(self.N, 2, 2, len(joint))
        into[:width] = joint.permute(3, 1, 2, 0) / _STEP
        # With smaller weights z would be at most half a symbol, be rounded to zeros,
        # and never learn to carry information.
        self.h_a[-1].weight.mul_(10)

    @classmethod
    def from_state_dict(cls, state_dict: dict[str, Tensor]) -> "Compact":
        """Makes a model with the widths of weights, and loads them.

        Args:
            state_dict: The weights.

        Returns:
            The model.

        Raises:
            RuntimeError: If keys are missing or unexpected.
        """
        net = cls(**cls.infer_options(state_dict))
        net.load_state_dict(state_dict)
        return net

    @staticmethod
    def infer_options(state_dict: dict[str, Tensor]) -> dict[str, Any]:
        """Returns the arguments of the constructor for weights.

        Args:
            state_dict: The weights.
        """

        def find_convolutions(name: str) -> list[int]:
            indices = _list_numbers(state_dict, name)
            return [i for i in indices if f"{name}{i}.weight" in state_dict]

        groups = []
        while (key := f"groups.{len(groups)}.spatial.weight") in state_dict:
            groups.append(state_dict[key].shape[1])
        stem, down = find_convolutions("g_a.")
        up, last = find_convolutions("g_s.")
        count = max(_list_numbers(state_dict, "g_a.")) + 1
        return dict(
            N=len(state_dict["g_a.1.weight"]),
            M=sum(groups),
            groups=groups,
            blocks=(down - stem - 1, count - down - 1, last - up - 2, up),
        )


@zoo_entry(
    "hm-compact",
    dict.fromkeys(EVERY_RATE, (192, 256)),
    g_t=dict(g_t_width=0),
    steps=EVERY_RATE,
    released=("mse", "person"),
)
class HMCompact(GainsMixin, HumanMachineMixin, Compact):
    """One set of weights for every rate, coded in ten passes; see ``compact.py``.

    It has no g_t: it is for people, and readers are trained on its streams.

    Args:
        N: See :class:`Compact`. Defaults to 192.
        M: See :class:`Compact`. Defaults to 256.
        **kwargs: Arguments of :class:`HumanMachineMixin` and :class:`Compact`.
    """

    entropy_family = ParallelFamily
    quantizer = "ste"
    coarsest_step = 6.0  # of training; beyond it files grow again

    def __init__(self, N: int = 192, M: int = 256, **kwargs):
        super().__init__(N=N, M=M, **kwargs)
        self.gain, self.inverse_gain = Gain(M), Gain(M, shifts=True)

    @classmethod
    def _base_from_state_dict(cls, state_dict: dict[str, Tensor]):
        net = cls(**cls.infer_options(state_dict), g_t_width=0)
        net.load_state_dict(state_dict)
        return net


def _list_numbers(state_dict: dict[str, Tensor], name: str) -> list[int]:
    keys = [k.removeprefix(name) for k in state_dict if k.startswith(name)]
    return sorted({int(key.split(".")[0]) for key in keys})


def _make_cosine_transform(size: int) -> Tensor:
    """Makes the orthonormal cosine transform of size x size pixels in RGB.

    Returns:
        ``(3 size^2, 3 size^2)``. Rows are coefficients, the largest first; columns are
        ordered by color, row and column.
    """
    k = torch.arange(size, dtype=torch.float64)
    basis = torch.cos(math.pi / size * (k + 0.5) * k[:, None]) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    colors = torch.tensor([[1, 1, 1], [1, 0, -1], [1, -2, 1]], dtype=torch.float64)
    colors /= colors.norm(dim=1, keepdim=True)
    rows = torch.einsum("ca,uy,vx->cuvayx", colors, basis, basis)
    # The power of photographs falls with about the square of the frequency, and most of
    # it is gray.
    frequency = k[:, None].square() + k.square()
    power = torch.tensor([1.0, 0.06, 0.015], dtype=torch.float64)[:, None, None]
    power = power / (frequency + 1.0)
    order = power.flatten().argsort(descending=True, stable=True)
    return rows.reshape(3 * size**2, -1)[order].float()
