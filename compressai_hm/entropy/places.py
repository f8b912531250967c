"""The steps of an order as tables of rows, made once for a size.

The latents of N pictures are stored as rows ``(N h w, C)``. With a border of two
positions, which contexts at the edge read, they are ``(N (h + 4) (w + 4), C)``.
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
"""Steps of about this many rows at most share one product over the known parts."""

_FULL = 4
"""Products of few rows are fast if their number is a multiple of this. Each row beyond
takes as long as that many rows."""

_CACHED = 2**15
"""Tables of more positions are not cached."""


class Place(NamedTuple):
    """One step, with n positions in each picture.

    Args:
        first: Its first row in its span.
        end: The end of its rows in its span; the last ones are copies, which make
            products fast.
        at: Its rows without border, picture by picture and without copies, ``(N n,)``.
        inside: Its rows with border, ``(N n,)``.
        read: Rows with border that its context reads, ``((end - first) taps,)``; None
            without context.
    """

    first: int
    end: int
    at: Tensor
    inside: Tensor
    read: Tensor | None


class Span(NamedTuple):
    """Steps whose known parts are computed together.

    Args:
        last: The last row of the latent among their positions.
        at: Rows without border of all steps, with copies.
        steps: The steps.
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
    """Returns the tables of an order.

    Args:
        name: The order's name in ``ORDERS``.
        shape: N, h and w.
        taps: (row, column) that a context reads, relative to a position.
        device: The device for the tables.
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
        bordered = (at // width + BORDER) * pitch + at % width + BORDER
        bordered = (bordered + picture * (height + 2 * BORDER) * pitch).reshape(-1)
        inside.append(bordered)
        rows.append(_fill_up((at + picture * height * width).reshape(-1)))
        taken = _fill_up(bordered)[:, None] + reach if has_context else reach[:0]
        read.append(taken.reshape(-1))
    lasts = [int(at[-1]) // width for at, _ in steps]
    return _make_spans(lasts, *_move([rows, inside, read], device))


def _fill_up(rows: np.ndarray) -> np.ndarray:
    missing = -len(rows) % _FULL if len(rows) > 2 else 0
    return np.concatenate([rows, rows[-1:].repeat(missing)]) if missing else rows


def _move(tables: list[list[np.ndarray]], device: torch.device) -> list[list[Tensor]]:
    """Moves tables to a device in one transfer."""
    lengths = [len(part) for table in tables for part in table]
    joined = np.concatenate([part for table in tables for part in table])
    parts = iter(torch.from_numpy(joined).to(device).split(lengths))
    return [[next(parts) for _ in table] for table in tables]


def _make_spans(
    lasts: list[int], rows: list[Tensor], inside: list[Tensor], read: list[Tensor]
) -> list[Span]:
    spans, begun = [], 0
    for i in range(len(rows)):
        ends = [0, *accumulate(map(len, rows[begun : i + 1]))]
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
