"""Orders in which the positions of a latent are coded.

An order is a sequence of steps. All positions of a step are coded at once, from what
the steps before it have decoded. Each function yields for each step the positions (``h
* width + w``, ``(n,)`` int64) and whether there is spatial context yet.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

Schedule = Iterator[tuple[Tensor, bool]]

BAND = 4096
"""Positions without context are coded in bands of rows, of about this many at most."""


def raster(height: int, width: int) -> Schedule:
    """Yields bands of whole rows, without spatial context; bands bound the memory.

    Args:
        height: Rows of the latent.
        width: Columns of the latent.
    """
    rows = max(1, BAND // width)
    for top in range(0, height, rows):
        end = min(top + rows, height)
        yield torch.arange(top * width, end * width), False


def wavefront(height: int, width: int) -> Schedule:
    """Yields ``width + 3 (height - 1)`` steps for a causal 5x5 context (Minnen 2018).

    Position (h, w) reads two positions to its left and the two rows above up to two
    positions to its right, so all positions with the same ``w + 3 h`` are coded at
    once. Digits are steps; the position marked [9] reads those marked ``c``::

        0  1  2  3  4  5  6  7           .  c  c  c  c  c  .  .
        3  4  5  6  7  8  9  10          .  c  c  c  c  c  .  .
        6  7  8  9  10 11 12 13          .  c  c [9] .  .  .  .

    Args:
        height: Rows of the latent.
        width: Columns of the latent.
    """
    for step in range(width + 3 * (height - 1)):
        first = max(0, -((width - 1 - step) // 3))
        h = torch.arange(first, min(height - 1, step // 3) + 1)
        yield h * width + step - 3 * h, True


def checkerboard(height: int, width: int) -> Schedule:
    """Yields the anchors (0), then the others (1) with anchors as context (He 2021).

    ::

        0 1 0 1
        1 0 1 0

    Args:
        height: Rows of the latent.
        width: Columns of the latent.
    """
    parity = torch.arange(height)[:, None] + torch.arange(width)
    for turn in range(2):
        for band, _ in raster(height, width):
            yield band[parity.flatten()[band] % 2 == turn], turn == 1


ORDERS: dict[str, Callable[[int, int], Schedule]] = {
    "raster": raster,
    "wavefront": wavefront,
    "checkerboard": checkerboard,
}
"""Orders by name; fingerprints hold the names, so they never change."""
