"""Where bits matter: maps of steps from masks and boxes.

Everywhere the step is the one that is asked for; in a region it is finer by a gain.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .entropy.devices import in_float64
from .human_machine import Y_STRIDE


def map_of_importance(importance: Tensor, gain: float, step: float = 1.0) -> Tensor:
    """A map of steps for ``compress`` and ``encode``.

    Args:
        importance: From 0 (a step as asked for) to 1 (finer by the gain), for each
            16x16 pixels.
        gain: 1 for none, or from 1.1. A map keeps it to the nearest quarter octave:
            1.19, 1.41, 1.68, 2 and so on.
        step: Where nothing matters.

    Returns:
        step / gain**importance, where ``importance`` is; not below 1/8.

    Raises:
        ValueError: If the gain is too small to be kept, or importance leaves [0, 1].
    """
    check_gain(gain)
    if not ((importance >= 0) & (importance <= 1)).all():
        raise ValueError(
            "importance must lie in [0, 1], got "
            f"{float(importance.min()):g} to {float(importance.max()):g}"
        )
    return (step / gain ** in_float64(importance)).clamp(min=min(step, 1 / 8))


def check_gain(gain: float) -> None:
    """A map knows quarter octaves.

    Raises:
        ValueError: If a gain is too small to be kept.
    """
    if gain != 1 and not 2 ** (1 / 8) <= gain < float("inf"):
        raise ValueError(f"gain must be 1 or from 1.1 on, got {gain:g}")


def importance_of_mask(mask: Tensor) -> Tensor:
    """The largest value of a mask in each block of 16x16 pixels.

    Args:
        mask: ``(H, W)`` of the picture's size, from 0 to 1, or bool.

    Returns:
        ``(ceil(H / 16), ceil(W / 16))``, float32.

    Raises:
        ValueError: If the mask is none.
    """
    if mask.ndim != 2:
        raise ValueError(f"a mask must be (H, W), got {tuple(mask.shape)}")
    return F.max_pool2d(mask[None, None].float(), Y_STRIDE, ceil_mode=True)[0, 0]


def mask_of_boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """The pixels in boxes.

    Args:
        boxes: ``(n, 4)``: left, top, right, bottom in pixels.
        size: (H, W) of the picture.

    Returns:
        ``(H, W)``, bool. What of a box lies beyond the picture counts for nothing.

    Raises:
        ValueError: If a box is none.
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
