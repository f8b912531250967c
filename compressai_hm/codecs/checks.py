"""What every codec asks of its input, and of what it gives."""

import torch
from torch import Tensor


def check_pictures(x: Tensor) -> None:
    """RGB in [0, 1], ``(N, 3, H, W)``.

    Raises:
        TypeError: If x is no tensor of floating point.
        ValueError: If x has another shape or leaves [0, 1].
    """
    if not isinstance(x, Tensor):
        raise TypeError(
            f"x must be a torch tensor, got {type(x).__module__}.{type(x).__name__}; "
            "of an array, torch.from_numpy() makes one"
        )
    if x.ndim != 4 or x.shape[1] != 3 or x.numel() == 0:
        raise ValueError(
            f"x must be RGB pictures (N, 3, H, W), got a tensor {tuple(x.shape)}"
        )
    if not x.is_floating_point():
        raise TypeError(
            f"x must be floating point in [0, 1], got {x.dtype}; of 8-bit pictures, "
            "x.float() / 255 is"
        )
    low, high = x.aminmax()
    if (low >= 0) & (high <= 1):  # asked once, as a GPU waits each time
        return
    if not (low.isfinite() and high.isfinite()):
        raise ValueError(
            f"x must lie in [0, 1], found {int((~x.isfinite()).sum())} values of "
            f"{x.numel()} that are nan or infinite"
        )
    raise ValueError(
        f"x must lie in [0, 1], found values from {low:g} to {high:g}; "
        "divide 8-bit pictures by 255"
    )


def check_finite(views: dict[str, Tensor]) -> None:
    """Of decoded pictures.

    Raises:
        ValueError: If one holds nan or infinities.
    """
    for name, view in views.items():
        if not torch.isfinite(view).all():
            made_by = {"x_hat": "g_s", "x_bar": "g_s or g_t"}[name]
            raise ValueError(
                f"{name} holds values that are not finite: the weights of {made_by} "
                "are broken"
            )


def check_views(views: tuple[str, ...]) -> None:
    """Any of "human" and "machine".

    Raises:
        ValueError: For another view.
    """
    unknown = set(views) - {"human", "machine"}
    if unknown:
        raise ValueError(
            f"views must be among 'human' and 'machine', got {sorted(unknown)}"
        )
