"""Transforms of large pictures, computed in tiles without seams."""

from collections.abc import Callable

from torch import Tensor

WHOLE = 2**21
"""Pictures of at most this many pixels are not divided into tiles."""

TILE = 1536
MARGIN = 192
"""Width of the surroundings that are computed with each tile, in pixels.

Cheng 2020 with attention has the largest receptive field: a latent reaches 158 pixels.
"""


def tiled(transform: Callable[[Tensor], Tensor], x: Tensor, scale: float) -> Tensor:
    """Computes a convolutional transform, in tiles if the picture is large.

    Each tile is computed with all the surroundings that influence it, so the result
    differs from that of the whole picture only in the last bits of floating point.

    Args:
        transform: A transform whose output's sides are ``scale`` times its input's.
        x: Input, ``(1, C, h, w)``.
        scale: A power of two.

    Returns:
        Output, ``(1, C', scale h, scale w)``.
    """
    height, width = x.shape[-2:]
    up = max(scale, 1)
    if height * up * width * up <= WHOLE:
        return transform(x)
    tile, margin = int(TILE / up), int(MARGIN / up)
    out = None
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            read = (max(0, top - margin), max(0, left - margin))
            part = transform(
                x[..., read[0] : top + tile + margin, read[1] : left + tile + margin]
            )
            size = min(tile, height - top), min(tile, width - left)
            first = [
                int((a - b) * scale) for a, b in zip((top, left), read, strict=True)
            ]
            part = part[..., first[0] :, first[1] :]
            part = part[..., : int(size[0] * scale), : int(size[1] * scale)]
            if out is None:
                sides = int(height * scale), int(width * scale)
                out = part.new_empty(*part.shape[:-2], *sides)
            row, col = int(top * scale), int(left * scale)
            out[..., row : row + part.shape[-2], col : col + part.shape[-1]] = part
    return out
