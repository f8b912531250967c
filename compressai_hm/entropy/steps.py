"""Quantization steps of y by position, with which one model serves every rate.

::

    q = round((y - mean) / D)      y_hat = q D + mean

A step is one of 673 widths D(k) = 2**(k / 96), from 1/8 to 16, stored as an integer
over 2**14 so that every machine uses the same one. Neighboring steps differ in rate by
at most 1.5 %. A map moves the step in quarter octaves, by one offset for each position
of y, which is 16x16 pixels. The encoder chooses both and writes them into the file; the
weights do not change.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..geometry import latent_size, padded_latent_size
from .fixed_point import FRACTION

OCTAVE = 96
"""Number of steps to a factor of two."""

QUARTER = OCTAVE // 4
FIRST, LAST = -3 * OCTAVE, 4 * OCTAVE
"""k of the steps 1/8 and 16."""

FARTHEST = (LAST - FIRST) // QUARTER
"""Largest absolute offset of a map; larger ones would change nothing."""


@functools.cache
def _widths() -> np.ndarray:
    """Computes D(k) 2**14 for all k, rounded, in integer arithmetic."""

    def doubled(k: int) -> int:  # floor(2**(15 + k / 96)), as an integer root
        power, low, high = 2 ** (OCTAVE * (FRACTION + 1) + k), 0, 2**24
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if middle**OCTAVE <= power else (low, middle)
        return low

    widths = [(doubled(k) + 1) // 2 for k in range(FIRST, LAST + 1)]
    return np.array(widths, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class QuantSteps:
    """The quantization steps of one picture.

    Args:
        base: k, from ``FIRST`` to ``LAST``. Defaults to 0, a step of 1.
        offsets: The map, in quarter octaves for each position of y, ``(h, w)`` int8.
            Defaults to None, no map.
    """

    base: int = 0
    offsets: np.ndarray | None = None

    @classmethod
    def nearest(
        cls, step: "float | Tensor | QuantSteps", size: tuple[int, int]
    ) -> "QuantSteps":
        """Returns the steps nearest to real numbers.

        Args:
            step: One step, or a map of steps for each 16x16 pixels, ``(ceil(H / 16),
                ceil(W / 16))``.
            size: (H, W) of the picture in pixels.

        Raises:
            ValueError: If a step is not from 1/8 to 16, or a map has another shape.
        """
        if isinstance(step, QuantSteps):
            return step
        if not isinstance(step, Tensor):
            return cls(_find_index(float(step)))
        shape = latent_size(size)
        if tuple(step.shape) != shape:
            raise ValueError(
                f"a map of steps for a picture of {size[1]}x{size[0]} must be {shape}, "
                f"one for each 16x16 pixels; got {tuple(step.shape)}"
            )
        logs = [_find_index(value) for value in step.cpu().double().flatten().tolist()]
        indices = np.array(logs).reshape(shape)
        base = int(indices.max())  # outside of regions, where steps stay exact
        offsets = np.round((indices - base) / QUARTER).astype(np.int8)
        if not offsets.any():
            return cls(base)
        # Where y is padded the steps are those at the edge of the picture.
        padded = padded_latent_size(size)
        pad = [(0, full - side) for full, side in zip(padded, shape, strict=True)]
        return cls(base, np.pad(offsets, pad, mode="edge"))

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, QuantSteps) and self.base == other.base
        if not same or self.offsets is None or other.offsets is None:
            return same and self.offsets is other.offsets
        return np.array_equal(self.offsets, other.offsets)

    __hash__ = None

    @property
    def plain(self) -> bool:
        """Whether the step is 1 everywhere."""
        return self.base == 0 and self.offsets is None

    def widths(self, size: tuple[int, int]) -> np.ndarray:
        """Returns D over 2**14 at each position of y, ``(h, w)`` float64 integers.

        Args:
            size: (h, w) of y.
        """
        return _widths()[self.indices(size) - FIRST]

    def indices(self, size: tuple[int, int]) -> np.ndarray:
        """Returns k at each position of y, ``(h, w)`` int64.

        Args:
            size: (h, w) of y.
        """
        k = np.full(size, self.base)
        if self.offsets is not None:
            k = (k + QUARTER * self.offsets.astype(int)).clip(FIRST, LAST)
        return k

    def values(self, size: tuple[int, int]) -> np.ndarray:
        """Returns the steps as real numbers, ``(h, w)`` float64.

        Args:
            size: (h, w) of y.
        """
        return self.widths(size) * 2.0**-FRACTION


def _find_index(step: float) -> int:
    if not 1 / 8 <= step <= 16:  # also nan
        raise ValueError(f"step must lie from 0.125 to 16, got {step:g}")
    return round(OCTAVE * math.log2(step))


@torch.compiler.disable
def step_values(steps: list[QuantSteps], size: tuple[int, int]) -> Tensor:
    """Returns the steps of several pictures as real numbers, ``(N, 1, h, w)`` float64.

    Args:
        steps: Steps of each picture.
        size: (h, w) of y.
    """
    return torch.from_numpy(np.stack([step.values(size)[None] for step in steps]))


def step_features(
    steps: "list[QuantSteps] | None", count: int, size: tuple[int, int]
) -> Tensor:
    """Computes the networks' inputs for the steps: log2 D and its square by position.

    They are integers over 2**14, computed from k without a logarithm, so that the
    entropy networks get the same inputs on every machine.

    Args:
        steps: Steps of each picture; None where all are 1.
        count: Number of pictures.
        size: (h, w) of y.

    Returns:
        Integers in float64, ``(N, 2, h, w)``.
    """
    if steps is None:
        return torch.zeros(count, 2, *size, dtype=torch.float64)
    k = np.stack([step.indices(size) for step in steps])
    fixed = 2**FRACTION
    octaves = (2 * k * fixed + OCTAVE) // (2 * OCTAVE)
    squares = (2 * k * k * fixed + OCTAVE**2) // (2 * OCTAVE**2)
    return torch.from_numpy(np.stack([octaves, squares], 1).astype(np.float64))


Z_CLASSES = 15
"""Number of widths of z, which are the square root of the step to a quarter octave."""


def z_class(steps: QuantSteps) -> int:
    """Returns the class of z's width, from 0 to ``Z_CLASSES`` - 1.

    Args:
        steps: Steps of the picture, of which the base alone counts.
    """
    return (2 * (steps.base - FIRST) + OCTAVE // 2) // OCTAVE


def z_widths() -> Tensor:
    """Returns all widths of z over 2**14, ``(Z_CLASSES,)`` float64 integers."""
    return torch.from_numpy(_widths()[QUARTER * np.arange(Z_CLASSES) - FIRST // 2])


def step_rows(
    steps: "list[QuantSteps] | None",
    count: int,
    size: tuple[int, int],
    device: torch.device,
    tells: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Returns the steps of several pictures by position, moved in one transfer.

    Args:
        steps: Steps of each picture; None where all are 1.
        count: Number of pictures.
        size: (h, w) of y.
        device: The device for the results.
        tells: Whether the networks need :func:`step_features`.

    Returns:
        D over 2**14, ``(N h w, 1)``, or None where all steps are 1; and
        :func:`step_features` as rows, ``(N h w, 2)``, or None without ``tells``.
    """
    plain = steps is None or all(step.plain for step in steps)
    if plain:
        rows = count * math.prod(size)
        zeros = torch.zeros(rows, 2, dtype=torch.float64, device=device)
        return None, zeros if tells else None
    widths = np.stack([step.widths(size) for step in steps])
    rows = torch.from_numpy(widths.reshape(-1, 1))
    if tells:
        features = step_features(steps, count, size).permute(0, 2, 3, 1).reshape(-1, 2)
        rows = torch.cat([rows, features], 1)
    rows = rows.to(device)
    return rows[:, :1].contiguous(), rows[:, 1:].contiguous() if tells else None
