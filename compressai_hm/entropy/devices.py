"""Checks that a device computes as exactly as the coder needs.

The coder's numbers are integers up to 2**53 in float64. Apple's MPS has no float64.
Some libraries can emulate products of float64 with fewer bits, such as cuBLAS of CUDA
13 if ``CUBLAS_EMULATE_DOUBLE_PRECISION`` is set; streams would then decode to other
pictures.
"""

import functools
import re

import torch
from torch import Tensor, nn

_REPEATS = 16
"""With so many copies the product is as large as the coder's largest; the check takes a
millisecond."""


@functools.cache
def has_float64(device: torch.device) -> bool:
    """Says whether a device has float64.

    Args:
        device: The device.

    Raises:
        RuntimeError: If the device fails for another reason.
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
    """Checks, once for each device, a product of integers with sums up to 2**53.

    Args:
        device: The device.

    Raises:
        RuntimeError: If the product is not exact.
    """
    x, weight = _factors()
    expected = x @ weight.t()
    product = nn.functional.linear(
        x.double().to(device).repeat(_REPEATS, 1),
        weight.double().to(device).repeat(_REPEATS, 1),
    )
    if not torch.equal(product.cpu().long(), expected.repeat(_REPEATS, _REPEATS)):
        raise RuntimeError(
            f"{device} does not multiply float64 exactly, and streams would decode to "
            "something else: switch the emulation of FP64 off (unset "
            "CUBLAS_EMULATE_DOUBLE_PRECISION), or code on the CPU"
        )


def in_float64(x: Tensor) -> Tensor:
    """Returns numbers in float64, on the CPU where their device has no float64.

    Args:
        x: A tensor of any shape.
    """
    return (x if has_float64(x.device) else x.cpu()).double()


def _factors() -> tuple[Tensor, Tensor]:
    """Makes activations up to 2**27, and many small weights with a few large ones.

    All are odd, so that the lowest bit of a sum depends on every product.
    """
    n, k = 64, 511
    place = torch.arange(n * k, device="cpu").view(n, k)
    x = (place * 0x5DEECE66D % 2**27) | 1
    weight = (place * 0x41C64E6D % 2**15) | 1
    x *= 1 - 2 * (place % 2)
    x[:, ::100] = x[:, ::100].abs() | 2**26
    weight[:, ::100] = 2**23 - 1
    return x, weight
