"""Checks of the inputs and outputs of all codecs."""

import torch
from torch import Tensor


def check_pictures(x: Tensor) -> None:
    """Checks pictures.

    Args:
        x: RGB in [0, 1], ``(N, 3, H, W)``.

    Raises:
        TypeError: If x is no floating-point tensor.
        ValueError: If x has another shape or leaves [0, 1].
    """
    if not isinstance(x, Tensor):
        raise TypeError(
            f"x must be a torch tensor, got {type(x).__module__}.{type(x).__name__}; "
            "torch.from_numpy() makes one from an array"
        )
    if x.ndim != 4 or x.shape[1] != 3 or x.numel() == 0:
        raise ValueError(
            f"x must be RGB pictures (N, 3, H, W), got a tensor {tuple(x.shape)}"
        )
    if not x.is_floating_point():
        raise TypeError(
            f"x must be floating point in [0, 1], got {x.dtype}; convert 8-bit "
            "pictures with x.float() / 255"
        )
    low, high = x.aminmax()
    if (low >= 0) & (high <= 1):  # one comparison, because a GPU waits for each
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
    """Checks that decoded pictures are finite.

    Args:
        views: ``x_hat`` and / or ``x_bar``, ``(N, 3, H, W)``.

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
    """Checks names of views.

    Args:
        views: The names, of "human" and "machine".

    Raises:
        ValueError: If a name is another one.
    """
    unknown = set(views) - {"human", "machine"}
    if unknown:
        raise ValueError(
            f"views must be among 'human' and 'machine', got {sorted(unknown)}"
        )
