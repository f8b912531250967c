"""Random quantization steps in training, so that one model serves every rate."""

import math

import numpy as np
import torch
from torch import Tensor

from ...entropy import QuantSteps
from ...entropy.steps import FIRST, LAST, OCTAVE, QUARTER

_FINEST = 8
"""Quarter octaves by which a region is finer at most, down to a quarter of the step."""


class RandomSteps:
    """Draws a step for each training picture, and finer steps in regions of some.

    The logarithm of a step is uniform. A region is a rectangle whose sides measure from
    an eighth of the picture's sides to all of them.

    Args:
        low: The smallest step, 1/8 or more.
        high: The largest step, 16 or less.
        regions: The share of pictures that have one to three regions. Their steps are 1
            to 8 quarter octaves finer, where ``low`` leaves room. Defaults to 0.
        weight: A picture of step Δ is weighted by Δ^weight. At 0 the fine steps
            dominate, because their losses are the largest; at 1.2 all steps count about
            the same. Defaults to 0.

    Raises:
        ValueError: If a number is out of its range.
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

    def weights(self, steps: list[QuantSteps]) -> Tensor:
        """Returns the weights of pictures in the loss, ``(N,)``.

        Args:
            steps: The pictures' steps.
        """
        return torch.tensor([2 ** (self.weight * s.base / OCTAVE) for s in steps])

    @torch.compiler.disable
    def draw(self, count: int, size: tuple[int, int]) -> list[QuantSteps]:
        """Returns random steps for a batch.

        The numbers come from torch's generator, so that a resumed training goes on
        with the same ones.

        Args:
            count: The number of pictures.
            size: (h, w) of their latents.
        """
        return [self._draw(size) for _ in range(count)]

    def _draw(self, size: tuple[int, int]) -> QuantSteps:
        base = _draw_integer(self.first, self.last)
        if torch.rand(()) >= self.regions:
            return QuantSteps(base)
        offsets = np.zeros(size, dtype=np.int8)
        finest = min(_FINEST, (base - self.first) // QUARTER)
        for _ in range(_draw_integer(1, 3) if finest > 0 else 0):
            place = tuple(_draw_interval(side) for side in size)
            offsets[place] = -_draw_integer(1, finest)
        return QuantSteps(base, offsets if offsets.any() else None)


def _draw_integer(low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, ()))


def _draw_interval(side: int) -> slice:
    length = _draw_integer(-(-side // 8), side)
    start = _draw_integer(0, side - length)
    return slice(start, start + length)
