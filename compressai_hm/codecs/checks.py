"""What every codec asks of its input."""

from torch import Tensor


def check_pictures(x: Tensor) -> None:
    """RGB in [0, 1], ``(N, 3, H, W)``.

    Raises:
        ValueError: If x is not such a tensor or leaves [0, 1].
    """
    if x.ndim != 4 or x.shape[1] != 3 or x.numel() == 0:
        raise ValueError(
            f"x must be RGB pictures (N, 3, H, W), got a tensor {tuple(x.shape)}"
        )
    low, high = x.aminmax()
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"x must lie in [0, 1], found values from {low:g} to {high:g}; "
            "divide 8-bit pictures by 255"
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
