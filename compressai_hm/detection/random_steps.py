"""Steps of quantisation drawn for training: one model then serves every rate."""

import math

import numpy as np
import torch
from torch import Tensor

from ..codecs import Steps
from ..codecs.entropy.steps import FIRST, LAST, OCTAVE, QUARTER

_FINEST = 8
"""Quarter octaves by which a region may be finer than the rest: a quarter of its
step."""


class RandomSteps:
    """Draws a step for each training picture, and regions of finer ones for some.

    Steps are uniform in their logarithm. A region is a rectangle, from an eighth of the
    picture's sides to all of them.

    Args:
        low: The smallest step, from 1/8.
        high: The largest, to 16.
        regions: The share of pictures that have one to three regions, whose steps are 1
            to 8 quarter octaves finer, where ``low`` leaves room. Defaults to 0.
        weight: A picture of step Δ counts Δ^weight times. With 0 the fine steps, whose
            losses are the largest, have most of the say; with 1.2 all have about the
            same. Defaults to 0.

    Raises:
        ValueError: If these are no such numbers.
    """

    def __init__(
        self, low: float, high: float, regions: float = 0.0, weight: float = 0.0
    ):
        if not 1 / 8 <= low <= high <= 16:
            raise ValueError(
                "model.steps: low and high must rise within 0.125 to 16, got "
                f"low={low}, high={high}"
            )
        if not 0 <= regions <= 1:
            raise ValueError(f"model.steps: regions is a share, 0 to 1, got {regions}")
        if regions and high / low < 2**0.25:
            raise ValueError(
                f"model.steps: regions are finer by 1.19 at least, and low={low} to "
                f"high={high} leaves no room"
            )
        self.first = max(FIRST, round(OCTAVE * math.log2(low)))
        self.last = min(LAST, round(OCTAVE * math.log2(high)))
        if not -4 <= weight <= 4:
            raise ValueError(f"model.steps: weight must be -4 to 4, got {weight}")
        self.regions, self.weight = regions, weight

    def weights(self, steps: list[Steps]) -> Tensor:
        """How much each picture counts, ``(N,)``."""
        return torch.tensor([2 ** (self.weight * own.base / OCTAVE) for own in steps])

    @torch.compiler.disable
    def draw(self, count: int, size: tuple[int, int]) -> list[Steps]:
        """Steps of ``count`` pictures whose latents are of this (h, w).

        torch's generator is drawn from, so that a resumed training goes on as it would.
        """
        return [self._draw(size) for _ in range(count)]

    def _draw(self, size: tuple[int, int]) -> Steps:
        base = _integer(self.first, self.last)
        if torch.rand(()) >= self.regions:
            return Steps(base)
        offsets = np.zeros(size, dtype=np.int8)
        finest = min(_FINEST, (base - self.first) // QUARTER)
        for _ in range(_integer(1, 3) if finest > 0 else 0):
            place = tuple(_interval(side) for side in size)
            offsets[place] = -_integer(1, finest)
        return Steps(base, offsets if offsets.any() else None)


def _integer(low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, ()))


def _interval(side: int) -> slice:
    length = _integer(-(-side // 8), side)
    start = _integer(0, side - length)
    return slice(start, start + length)
