"""The steps of an order as tables of places, made once for a size.

The latents of N pictures lie in rows: ``(N h w, C)``, or, with the border of two
positions that contexts at the edge read, ``(N (h + 4) (w + 4), C)``.
"""

import functools
import math
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .order import ORDERS

BORDER = 2

_TOGETHER = 256
"""Steps of at most about this many rows share one product over what is known."""

_FULL = 4
"""Products of few rows are fast where their number is a multiple of this: the rows
beyond cost as much as that many each."""

_CACHED = 2**15
"""Tables of more positions are not kept."""


class Place(NamedTuple):
    """One step, of n positions in each picture.

    Args:
        first, end: Of its rows in its span, whose last are copies that fill products.
        at: ``(N n,)`` rows without border, picture by picture; no copies.
        inside: ``(N n,)`` rows with border.
        read: ``((end - first) taps,)`` rows with border that its context reads; None
            where there is no context.
    """

    first: int
    end: int
    at: Tensor
    inside: Tensor
    read: Tensor | None


class Span(NamedTuple):
    """Steps whose known parts are computed together.

    Args:
        last: The last row of positions among them.
        at: Rows without border, of all its steps, with copies.
        steps: Its steps.
    """

    last: int
    at: Tensor
    steps: list[Place]


def places(
    name: str,
    shape: tuple[int, int, int],
    taps: tuple[tuple[int, int], ...],
    device: torch.device,
) -> list[Span]:
    """The tables of an order.

    Args:
        name: In ``ORDERS``.
        shape: N, h and w.
        taps: (row, column) that a context reads, relative to a position.
        device: Where they are used.
    """
    small = math.prod(shape) <= _CACHED
    return (_places if small else _places.__wrapped__)(name, shape, taps, device)


@functools.lru_cache(maxsize=8)
@torch.inference_mode(False)
def _places(
    name: str,
    shape: tuple[int, int, int],
    taps: tuple[tuple[int, int], ...],
    device: torch.device,
) -> list[Span]:
    n, height, width = shape
    steps = [(at.numpy(), has) for at, has in ORDERS[name](height, width) if len(at)]
    pitch, picture = width + 2 * BORDER, np.arange(n)[:, None]
    reach = np.array([dy * pitch + dx for dy, dx in taps], dtype=np.int64)
    rows, inside, read = [], [], []
    for at, has_context in steps:
        own = (at // width + BORDER) * pitch + at % width + BORDER
        own = (own + picture * (height + 2 * BORDER) * pitch).reshape(-1)
        inside.append(own)
        rows.append(_filled((at + picture * height * width).reshape(-1)))
        taken = _filled(own)[:, None] + reach if has_context else reach[:0]
        read.append(taken.reshape(-1))
    lasts = [int(at[-1]) // width for at, _ in steps]
    return _spans(lasts, *_moved([rows, inside, read], device))


def _filled(rows: np.ndarray) -> np.ndarray:
    missing = -len(rows) % _FULL if len(rows) > 2 else 0
    return np.concatenate([rows, rows[-1:].repeat(missing)]) if missing else rows


def _moved(tables: list[list[np.ndarray]], device: torch.device) -> list[list[Tensor]]:
    """All in one transfer."""
    lengths = [len(part) for table in tables for part in table]
    every = np.concatenate([part for table in tables for part in table])
    parts = iter(torch.from_numpy(every).to(device).split(lengths))
    return [[next(parts) for _ in table] for table in tables]


def _spans(
    lasts: list[int], rows: list[Tensor], inside: list[Tensor], read: list[Tensor]
) -> list[Span]:
    spans, begun = [], 0
    for i in range(len(rows)):
        ends = [0, *accumulate(len(own) for own in rows[begun : i + 1])]
        if ends[-1] < _TOGETHER and i + 1 < len(rows):
            continue
        steps = [
            Place(
                first, end, rows[k][: len(inside[k])], inside[k],
                read[k] if len(read[k]) else None,
            )
            for k, (first, end) in enumerate(pairwise(ends), begun)
        ]  # fmt: skip
        spans.append(
            Span(max(lasts[begun : i + 1]), torch.cat(rows[begun : i + 1]), steps)
        )
        begun = i + 1
    return spans
