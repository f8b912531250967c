"""Sizes of pictures, padded pictures and latents, all as (H, W)."""

Y_STRIDE = 16
"""Pixels per position of y, along each side."""

Z_STRIDE = 64
"""Pixels per position of z, along each side; pictures are padded to multiples."""

MAX_PIXELS = 2**26
"""Default limit of a picture's size, because a forged size costs time and memory."""


def blocks(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Returns the numbers of square blocks that cover a size, down and across.

    Args:
        size: (H, W).
        side: Side of a block.
    """
    return -(-size[0] // side), -(-size[1] // side)


def padded_size(size: tuple[int, int], multiple: int = Z_STRIDE) -> tuple[int, int]:
    """Returns a size with its sides rounded up to a multiple.

    Args:
        size: (H, W).
        multiple: The divisor of the sides. Defaults to 64.
    """
    rows, cols = blocks(size, multiple)
    return rows * multiple, cols * multiple


def latent_size(size: tuple[int, int]) -> tuple[int, int]:
    """Returns the (h, w) of the positions of y that cover a picture.

    Args:
        size: (H, W) of the picture in pixels.
    """
    return blocks(size, Y_STRIDE)


def padded_latent_size(size: tuple[int, int]) -> tuple[int, int]:
    """Returns the (h, w) of the positions of y that are coded, those of padding too.

    Args:
        size: (H, W) of the picture in pixels.
    """
    return blocks(padded_size(size), Y_STRIDE)
