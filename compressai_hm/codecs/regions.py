"""Where bits matter: maps of steps from masks and boxes.

Inside a region the step is the one that is asked for, elsewhere it is coarser by a
gain. Where nothing is marked, or everything, it is the same everywhere.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .human_machine import Y_STRIDE


def map_of_mask(mask: Tensor, gain: float, step: float = 1.0) -> Tensor:
    """A map of steps for ``compress`` and ``encode``.

    Args:
        mask: ``(H, W)`` of the picture's size; what is not 0 is inside. A block of
            16x16 pixels is inside if any of its pixels is.
        gain: Step outside over step inside, 1 or more; the step stays below 16.
        step: Inside.

    Returns:
        ``(ceil(H / 16), ceil(W / 16))``.

    Raises:
        ValueError: If the mask is no mask, or the gain is under 1.
    """
    if mask.ndim != 2:
        raise ValueError(f"a mask must be (H, W), got {tuple(mask.shape)}")
    if not 1 <= gain < float("inf"):
        raise ValueError(f"gain must be 1 or more, got {gain:g}")
    blocks = F.max_pool2d(
        (mask != 0)[None, None].float(), Y_STRIDE, ceil_mode=True
    ).squeeze()
    inside = blocks.reshape(*(-(-side // Y_STRIDE) for side in mask.shape)) > 0
    if not inside.any():
        inside = ~inside
    outside = min(step * gain, 16.0)
    return torch.where(inside, torch.tensor(step), torch.tensor(outside))


def mask_of_boxes(boxes: Tensor, size: tuple[int, int], margin: float = 0.0) -> Tensor:
    """The pixels in boxes.

    Args:
        boxes: ``(n, 4)``: left, top, right, bottom in pixels.
        size: (H, W) of the picture.
        margin: Pixels that the boxes grow on each side.

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
        rows = max(0, int(top - margin)), max(0, -int(-(bottom + margin) // 1))
        cols = max(0, int(left - margin)), max(0, -int(-(right + margin) // 1))
        mask[rows[0] : rows[1], cols[0] : cols[1]] = True
    return mask
