"""In which order the positions of a latent are coded.

An order is a row of steps; all positions of a step are coded at once, from what the
steps before it have decoded. Each function yields per step the positions
(``h * width + w``, ``(n,)`` int64) and whether there is spatial context yet.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

Steps = Iterator[tuple[Tensor, bool]]

BAND = 4096
"""Positions without context go in bands of rows of at most about this many."""


def raster(height: int, width: int) -> Steps:
    """Without spatial context: bands of whole rows, so that memory stays bounded."""
    rows = max(1, BAND // width)
    for top in range(0, height, rows):
        end = min(top + rows, height)
        yield torch.arange(top * width, end * width), False


def wavefront(height: int, width: int) -> Steps:
    """The causal 5x5 context of Minnen 2018, in ``width + 3 (height - 1)`` steps.

    Position (h, w) reads two positions to its left and the two rows above up to two
    positions to its right, so all with the same ``w + 3 h`` can go together. Digits are
    steps; ``c`` is what the position marked [9] reads::

        0  1  2  3  4  5  6  7           .  c  c  c  c  c  .  .
        3  4  5  6  7  8  9  10          .  c  c  c  c  c  .  .
        6  7  8  9  10 11 12 13          .  c  c [9] .  .  .  .
    """
    for step in range(width + 3 * (height - 1)):
        first = max(0, -((width - 1 - step) // 3))
        h = torch.arange(first, min(height - 1, step // 3) + 1)
        yield h * width + step - 3 * h, True


def checkerboard(height: int, width: int) -> Steps:
    """He 2021: first the anchors (0), then the others (1) with the anchors around::

    0 1 0 1
    1 0 1 0
    """
    parity = torch.arange(height)[:, None] + torch.arange(width)
    for turn in range(2):
        for band, _ in raster(height, width):
            yield band[parity.flatten()[band] % 2 == turn], turn == 1


ORDERS: dict[str, Callable[[int, int], Steps]] = {
    "raster": raster,
    "wavefront": wavefront,
    "checkerboard": checkerboard,
}
"""By names that fingerprints hold: they never change."""
