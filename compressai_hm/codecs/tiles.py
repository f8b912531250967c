"""Transforms of large pictures, tile by tile, without a seam."""

from collections.abc import Callable

from torch import Tensor

WHOLE = 2**21
"""Tensors whose sides multiply to at most this many go through whole."""

TILE = 1536
MARGIN = 192
"""How far around a tile is read, in samples of the larger of input and output.

One latent of Cheng 2020 with attention reaches 158 pixels, the farthest of all.
"""


def tiled(transform: Callable[[Tensor], Tensor], x: Tensor, scale: float) -> Tensor:
    """A convolutional transform, in tiles if the picture is large.

    Each tile is computed from as much of its surroundings as reaches it, so the result
    is that of the whole picture but for the last bits of floating point.

    Args:
        transform: Its output's sides are ``scale`` times its input's.
        x: ``(1, C, h, w)``.
        scale: A power of two.

    Returns:
        ``(1, C', scale h, scale w)``.
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
