"""Whether a device computes as exactly as the coder needs.

All its numbers are float64 integers up to 2**53. Apple's MPS has no float64; and a
library may offer to emulate its products with fewer bits (cuBLAS of CUDA 13 does, where
``CUBLAS_EMULATE_DOUBLE_PRECISION`` asks for it), after which streams would decode to
something else.
"""

import functools
import re

import torch
from torch import Tensor, nn

_REPEATS = 16
"""As many rows and columns as the coder's largest products have: a millisecond."""


@functools.cache
def has_float64(device: torch.device) -> bool:
    """Whether a device has float64.

    Raises:
        RuntimeError: For any other failure of the device.
    """
    if device.type == "cpu":
        return True
    try:
        torch.zeros(1, dtype=torch.float64, device=device)
    except (TypeError, RuntimeError) as e:
        out_of_memory = isinstance(e, torch.OutOfMemoryError)
        if out_of_memory or not re.search("float64|fp64|double", str(e), re.IGNORECASE):
            raise
        return False
    return True


@functools.cache
def check_products(device: torch.device) -> None:
    """Tries a product of integers whose sums go up to 2**53, once for each device.

    Raises:
        RuntimeError: If it is not exact.
    """
    x, weight = _factors()
    expected = x @ weight.t()
    found = nn.functional.linear(
        x.double().to(device).repeat(_REPEATS, 1),
        weight.double().to(device).repeat(_REPEATS, 1),
    )
    if not torch.equal(found.cpu().long(), expected.repeat(_REPEATS, _REPEATS)):
        raise RuntimeError(
            f"{device} does not multiply float64 exactly, and streams would decode to "
            "something else: switch the emulation of FP64 off (unset "
            "CUBLAS_EMULATE_DOUBLE_PRECISION), or code on the CPU"
        )


def in_float64(x: Tensor) -> Tensor:
    """The same numbers; on the CPU where their device has no float64."""
    return (x if has_float64(x.device) else x.cpu()).double()


def _factors() -> tuple[Tensor, Tensor]:
    """Activations up to 2**27, and weights: many small ones and a few large.

    Odd numbers, so that the lowest bit of a sum is of all.
    """
    n, k = 64, 511
    place = torch.arange(n * k, device="cpu").view(n, k)
    x = (place * 0x5DEECE66D % 2**27) | 1
    weight = (place * 0x41C64E6D % 2**15) | 1
    x *= 1 - 2 * (place % 2)
    x[:, ::100] = x[:, ::100].abs() | 2**26
    weight[:, ::100] = 2**23 - 1
    return x, weight
