"""The quantisation step of y, by place: one model serves every rate.

::

    q = round((y - mean) / D)      y_hat = q D + mean

A step is one of 673 widths D(k) = 2**(k / 96), from 1/8 to 16, kept as an integer over
2**14 so that every machine finds the same one; neighbours differ in rate by at most
1.5 %. A map moves it in quarter octaves, by one offset for each position of y, which is
16x16 pixels. Both are the encoder's choice and stand in the file; no weights differ.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .fixed_point import FRACTION
from .rans import TOTAL, BitstreamError, Decoder, Encoder, Tables

OCTAVE = 96
"""Steps to a factor of two."""

QUARTER = OCTAVE // 4
FIRST, LAST = -3 * OCTAVE, 4 * OCTAVE
"""k of the steps 1/8 and 16."""

FARTHEST = (LAST - FIRST) // QUARTER
"""Offsets of a map lie within this of 0: farther ones change nothing."""


@functools.cache
def _widths() -> np.ndarray:
    """D(k) 2**14 for all k, rounded, by integer arithmetic alone."""

    def doubled(k: int) -> int:  # floor(2**(15 + k / 96)), as an integer root
        power, low, high = 2 ** (OCTAVE * (FRACTION + 1) + k), 0, 2**24
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if middle**OCTAVE <= power else (low, middle)
        return low

    widths = [(doubled(k) + 1) // 2 for k in range(FIRST, LAST + 1)]
    return np.array(widths, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Steps:
    """The steps of one picture.

    Args:
        base: k, from ``FIRST`` to ``LAST``; 0 is a step of 1.
        offsets: ``(h, w)`` int8, in quarter octaves, for each position of y; None
            where there is no map.
    """

    base: int = 0
    offsets: np.ndarray | None = None

    @classmethod
    def of(cls, step: "float | Tensor | Steps", size: tuple[int, int]) -> "Steps":
        """The nearest there are to real steps.

        Args:
            step: One, or a map ``(ceil(H / 16), ceil(W / 16))`` for each 16x16 pixels.
            size: (H, W) of the picture.

        Raises:
            ValueError: If a step is not from 1/8 to 16, or a map has another shape.
        """
        if isinstance(step, Steps):
            return step
        if not isinstance(step, Tensor):
            return cls(_index(float(step)))
        shape = tuple(-(-side // 16) for side in size)
        if tuple(step.shape) != shape:
            raise ValueError(
                f"a map of steps for a picture of {size[1]}x{size[0]} must be {shape}, "
                f"one for each 16x16 pixels; got {tuple(step.shape)}"
            )
        logs = [_index(value) for value in step.cpu().double().flatten().tolist()]
        indices = np.array(logs).reshape(shape)
        base = int(indices.max())  # regions are finer than the rest, which stays exact
        offsets = np.round((indices - base) / QUARTER).astype(np.int8)
        if not offsets.any():
            return cls(base)
        # Beyond the picture, where y is padded, as at its edge.
        full = [4 * -(-side // 64) for side in size]
        pad = [(0, whole - own) for whole, own in zip(full, shape, strict=True)]
        return cls(base, np.pad(offsets, pad, mode="edge"))

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, Steps) and self.base == other.base
        if not same or self.offsets is None or other.offsets is None:
            return same and self.offsets is other.offsets
        return np.array_equal(self.offsets, other.offsets)

    __hash__ = None

    @property
    def plain(self) -> bool:
        """Whether the step is 1 everywhere."""
        return self.base == 0 and self.offsets is None

    def widths(self, size: tuple[int, int]) -> np.ndarray:
        """D over 2**14 at each position of y, ``(h, w)`` float64 integers."""
        return _widths()[self.indices(size) - FIRST]

    def indices(self, size: tuple[int, int]) -> np.ndarray:
        """k at each position of y, ``(h, w)`` int64."""
        k = np.full(size, self.base)
        if self.offsets is not None:
            k = (k + QUARTER * self.offsets.astype(int)).clip(FIRST, LAST)
        return k

    def values(self, size: tuple[int, int]) -> np.ndarray:
        """The steps as real numbers, ``(h, w)``."""
        return self.widths(size) * 2.0**-FRACTION


def _index(step: float) -> int:
    if not 1 / 8 <= step <= 16:  # also nan
        raise ValueError(f"step must lie from 0.125 to 16, got {step:g}")
    return round(OCTAVE * math.log2(step))


@torch.compiler.disable
def step_values(steps: list[Steps], size: tuple[int, int]) -> Tensor:
    """The steps of several pictures as real numbers, ``(N, 1, h, w)`` float64."""
    return torch.from_numpy(np.stack([own.values(size)[None] for own in steps]))


def told(steps: "list[Steps] | None", count: int, size: tuple[int, int]) -> Tensor:
    """What networks are told of the steps: log2 D and its square at each place.

    They are integers over 2**14, made of k without a logarithm, so that the entropy
    networks see the same ones everywhere.

    Args:
        steps: Of each picture; None where all are 1.
        count: Pictures.
        size: (h, w) of y.

    Returns:
        ``(N, 2, h, w)`` float64 integers.
    """
    if steps is None:
        return torch.zeros(count, 2, *size, dtype=torch.float64)
    k = np.stack([own.indices(size) for own in steps])
    fixed = 2**FRACTION
    octaves = (2 * k * fixed + OCTAVE) // (2 * OCTAVE)
    squares = (2 * k * k * fixed + OCTAVE**2) // (2 * OCTAVE**2)
    return torch.from_numpy(np.stack([octaves, squares], 1).astype(np.float64))


Z_CLASSES = 15
"""Widths of z: the square root of the picture's step, to a quarter octave."""


def z_class(steps: Steps) -> int:
    """Which width z has, from 0 to ``Z_CLASSES`` - 1."""
    return (2 * (steps.base - FIRST) + OCTAVE // 2) // OCTAVE


def z_widths() -> Tensor:
    """All widths of z over 2**14, ``(Z_CLASSES,)`` float64 integers."""
    return torch.from_numpy(_widths()[QUARTER * np.arange(Z_CLASSES) - FIRST // 2])


def step_rows(
    steps: "list[Steps] | None",
    count: int,
    size: tuple[int, int],
    device: torch.device,
    tells: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """The steps of several pictures at each position of y, in one transfer.

    Args:
        steps: Of each picture; None where all are 1.
        count: Pictures.
        size: (h, w) of y.
        device: Where they are used.
        tells: Whether :func:`told` is wanted.

    Returns:
        D over 2**14, ``(N h w, 1)``, None where all are 1; and what networks are told,
        ``(N h w, 2)``, None where they are not.
    """
    plain = steps is None or all(own.plain for own in steps)
    if plain:
        rows = count * math.prod(size)
        zeros = torch.zeros(rows, 2, dtype=torch.float64, device=device)
        return None, zeros if tells else None
    widths = np.stack([own.widths(size) for own in steps])
    rows = torch.from_numpy(widths.reshape(-1, 1))
    if tells:
        said = told(steps, count, size).permute(0, 2, 3, 1).reshape(-1, 2)
        rows = torch.cat([rows, said], 1)
    rows = rows.to(device)
    return rows[:, :1].contiguous(), rows[:, 1:].contiguous() if tells else None


# The map in a file. In the differences of a map along both axes only the corners of
# regions are left; they are taken modulo the number of offsets, so that any stream of
# differences is a map.

_COUNT = 2 * FARTHEST + 1
_DENSITIES = 8


@functools.cache
def _tables() -> Tables:
    """Of differences by density, and of the density itself."""
    rows = []
    for density in range(_DENSITIES):
        zero = TOTAL - TOTAL // 2 ** (density + 1)
        rest, near = TOTAL - zero - 1, np.minimum(8, FARTHEST + 1 - _sizes())
        near[FARTHEST] = 0
        own = 1 + (rest - _COUNT) * near // near.sum()
        own[FARTHEST] = 0
        own[FARTHEST] = TOTAL - 1 - own.sum()
        rows.append([*own, 1])  # the last symbol is the coder's escape
    even = [TOTAL // 2 // _DENSITIES] * _DENSITIES
    rows.append([*even, TOTAL - sum(even)])
    cdfs = np.zeros((len(rows), _COUNT + 2), dtype=np.int32)
    for cdf, row in zip(cdfs, rows, strict=True):
        cdf[1 : len(row) + 1] = np.cumsum(row)
    buffers = {
        "_quantized_cdf": cdfs,
        "_cdf_length": np.array([len(row) + 1 for row in rows], dtype=np.int32),
        "_offset": np.array([-FARTHEST] * _DENSITIES + [0], dtype=np.int32),
    }
    return Tables({key: torch.from_numpy(value) for key, value in buffers.items()})


def _sizes() -> np.ndarray:
    return np.abs(np.arange(-FARTHEST, FARTHEST + 1))


def encode_map(offsets: np.ndarray) -> bytes:
    """A map's stream."""
    padded = np.pad(offsets.astype(np.int64), ((1, 0), (1, 0)))
    differences = np.diff(np.diff(padded, axis=0), axis=1).reshape(-1)
    differences = (differences + FARTHEST) % _COUNT - FARTHEST
    streams = []
    for density in range(_DENSITIES):
        encoder = Encoder(_tables())
        index = np.full(len(differences), density)
        encoder.push(np.array([density]), np.array([_DENSITIES]))
        encoder.push(differences, index)
        streams.append(encoder.finish())
    return min(streams, key=len)


def decode_map(string: bytes, size: tuple[int, int]) -> np.ndarray:
    """The map of a stream, ``(h, w)`` int8.

    Raises:
        BitstreamError: If it is damaged.
    """
    count = size[0] * size[1]
    decoder = Decoder(_tables(), string, count + 1, count + 1, "map")
    density = int(decoder.pull(np.array([_DENSITIES]))[0])
    if not 0 <= density < _DENSITIES:
        raise BitstreamError("the map stream does not decode: it is damaged")
    differences = decoder.pull(np.full(count, density)).reshape(size)
    decoder.finish()
    offsets = differences.cumsum(0).cumsum(1)
    return ((offsets + FARTHEST) % _COUNT - FARTHEST).astype(np.int8)
