"""Regions of interest: maps of quantization steps from masks and boxes.

The requested step applies outside of regions. In a region the step is divided by a
gain.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from ..entropy import QuantSteps
from ..entropy.devices import in_float64
from ..geometry import Y_STRIDE
from ..io.colors import warn
from ..io.pictures import read_picture

_MIDDLE = 4.0
"""A base step for maps from which no gain up to 32 leaves the range of steps."""


def choose_steps(
    size: tuple[int, int],
    step: float | None,
    regions: Sequence[str] = (),
    gain: float = 2.0,
    maps: Sequence[Tensor] = (),
) -> QuantSteps:
    """Chooses the steps of a picture: where maps differ, the finest step.

    Args:
        size: (H, W) of the picture in pixels.
        step: Step outside of all regions. None if rate control moves it, as in
            :func:`encode_to_size`; the base is then a step of 1.
        regions: Masks and boxes, as for :func:`read_regions`. Defaults to none.
        gain: The step outside of ``regions`` over that inside. Defaults to 2.0.
        maps: More maps of steps, ``(ceil(H / 16), ceil(W / 16))``, with the step of
            :func:`base_step` outside of their regions. Defaults to none.

    Returns:
        The steps.

    Raises:
        ValueError: If a region, the gain or the step is invalid.
    """
    base, maps = base_step(step), list(maps)
    if regions:
        importance = mask_to_importance(read_regions(regions, size))
        maps.append(importance_to_steps(importance, gain, base))
    whole = 1.0 if step is None else step
    steps = QuantSteps.nearest(torch.stack(maps).amin(0) if maps else whole, size)
    return QuantSteps(0, steps.offsets) if step is None else steps


def base_step(step: float | None) -> float:
    """Returns the step outside of regions for maps.

    Args:
        step: The requested step; None if rate control moves it.
    """
    return _MIDDLE if step is None else step


def read_regions(regions: Sequence[str], size: tuple[int, int]) -> Tensor:
    """Reads the pixels of all masks and boxes.

    Args:
        regions: Paths of masks of the picture's size, whose white and opaque pixels are
            inside, or boxes "LEFT,TOP,RIGHT,BOTTOM" in pixels.
        size: (H, W) of the picture in pixels.

    Returns:
        Whether each pixel is inside, ``(H, W)`` bool.

    Raises:
        ValueError: If a mask has another size or is no picture, or a box is empty.
        OSError: If a mask cannot be read.
    """
    inside = torch.zeros(size, dtype=torch.bool)
    for text in regions:
        box = [part.strip() for part in text.split(",")]
        if len(box) == 4 and all(re.fullmatch(r"-?\d+(\.\d*)?", p) for p in box):
            inside |= boxes_to_mask(torch.tensor([[float(p) for p in box]]), size)
            continue
        mask = _read_mask(Path(text))
        if mask.shape != inside.shape:
            raise ValueError(
                f"region {text}: the mask has {mask.shape[1]}x{mask.shape[0]} pixels, "
                f"the picture {size[1]}x{size[0]}"
            )
        inside |= mask
    return inside


def _read_mask(path: Path) -> Tensor:
    """Reads the white and opaque pixels, ``(H, W)``; warns if it is all or none."""
    brightness = read_picture(path)[0].mean(0)
    with Image.open(path) as image:
        clear = image.has_transparency_data
        image = ImageOps.exif_transpose(image)
        opacity = np.asarray(image.convert("RGBA").getchannel("A")) if clear else 255
    opaque = torch.from_numpy(np.broadcast_to(opacity, brightness.shape) >= 128)
    mask = (brightness >= 0.5) & opaque
    if mask.all() or not mask.any():
        inside = "all" if mask.all() else "nothing"
        brightest = round(255 * float((brightness * opaque).max()))
        warn(
            path,
            f"as a mask it has {inside} inside; its brightest value is {brightest} of "
            "255, and from 128 on is inside",
        )
    return mask


def importance_to_steps(importance: Tensor, gain: float, step: float = 1.0) -> Tensor:
    """Computes a map of steps for ``compress`` and ``encode``.

    Args:
        importance: From 0 (the step) to 1 (the step divided by the gain), for each
            16x16 pixels, ``(ceil(H / 16), ceil(W / 16))``.
        gain: 1 for none, or at least 1.1. A map rounds it to quarter octaves: 1.19,
            1.41, 1.68, 2 and so on.
        step: The step where the importance is 0. Defaults to 1.0.

    Returns:
        step / gain**importance, like ``importance``, float64; not below 1/8.

    Raises:
        ValueError: If the gain is too small for a map, or importance leaves [0, 1].
    """
    check_gain(gain)
    if not ((importance >= 0) & (importance <= 1)).all():
        raise ValueError(
            "importance must lie in [0, 1], got "
            f"{float(importance.min()):g} to {float(importance.max()):g}"
        )
    return (step / gain ** in_float64(importance)).clamp(min=min(step, 1 / 8))


def check_gain(gain: float) -> None:
    """Checks that a map, with its quarter octaves, can represent a gain.

    Args:
        gain: The gain.

    Raises:
        ValueError: If it is neither 1 nor at least 1.1.
    """
    if gain != 1 and not 2 ** (1 / 8) <= gain < float("inf"):
        raise ValueError(f"gain must be 1 or from 1.1 on, got {gain:g}")


def mask_to_importance(mask: Tensor) -> Tensor:
    """Computes the largest value of a mask in each block of 16x16 pixels.

    Args:
        mask: Mask of the picture's size, from 0 to 1 or bool, ``(H, W)``.

    Returns:
        Importance, ``(ceil(H / 16), ceil(W / 16))`` float32.

    Raises:
        ValueError: If the mask has another number of axes.
    """
    if mask.ndim != 2:
        raise ValueError(f"a mask must be (H, W), got {tuple(mask.shape)}")
    return F.max_pool2d(mask[None, None].float(), Y_STRIDE, ceil_mode=True)[0, 0]


def boxes_to_mask(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns the pixels inside of boxes.

    Args:
        boxes: Left, top, right and bottom in pixels, ``(n, 4)``. Parts of a box beyond
            the picture are ignored.
        size: (H, W) of the picture in pixels.

    Returns:
        Whether each pixel is inside, ``(H, W)`` bool.

    Raises:
        ValueError: If a box is empty.
    """
    mask = torch.zeros(size, dtype=torch.bool)
    for box in torch.as_tensor(boxes, dtype=torch.float64).reshape(-1, 4).tolist():
        left, top, right, bottom = box
        if not (left < right and top < bottom):
            raise ValueError(
                f"a box must be left, top, right, bottom in pixels, got {box}"
            )
        rows = max(0, int(top)), max(0, -int(-bottom // 1))
        cols = max(0, int(left)), max(0, -int(-right // 1))
        mask[rows[0] : rows[1], cols[0] : cols[1]] = True
    return mask
