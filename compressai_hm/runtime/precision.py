"""Precision of layers and convolutions where a lower one would be too low.

Under autocast, GDN's squares of its input overflow float16 from 256 on. y is rounded to
integers, but bfloat16 resolves only halves from 64 on and only even numbers from 256
on.

NVIDIA's convolutions in float32 use TF32, with 10 bits, unless it is switched off.
"""

import contextlib
import threading
from collections.abc import Iterator

import torch
from compressai.layers import GDN, GDN1
from torch import Tensor, nn

from ..entropy.coding_tables import iterate_parameters


def analysis(g_a: nn.Module, x: Tensor) -> Tensor:
    """Computes y = g_a(x), without autocast from y's resolution on.

    y's resolution begins with the last child of a Sequential that has a stride. A g_a
    of another kind computes entirely without autocast. Under autocast forward hooks of
    g_a itself do not run.

    Args:
        g_a: The transform.
        x: RGB in [0, 1], ``(N, 3, H, W)``.

    Returns:
        y, ``(N, M, h, w)``.
    """
    device = x.device.type
    if not torch.is_autocast_enabled(device):
        return g_a(x)
    parts = list(g_a) if isinstance(g_a, nn.Sequential) else [g_a]
    strided = [i for i, part in enumerate(parts) if _has_stride(part)]
    first = strided[-1] if strided else 0
    for part in parts[:first]:
        x = part(x)
    with torch.autocast(device, enabled=False):
        x = x.to(next(iterate_parameters(g_a)).dtype)
        for part in parts[first:]:
            x = part(x)
    return x


class _TF32Guard:
    """Switches TF32 off for convolutions until the last thread leaves the context."""

    def __init__(self):
        self.lock, self.users = threading.Lock(), 0

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with self.lock:
            if not self.users:
                self.switch = _find_tf32_switch()
                part, name, off, _ = self.switch
                setattr(part, name, off)
            self.users += 1
        try:
            yield
        finally:
            with self.lock:
                self.users -= 1
                if not self.users:
                    part, name, _, before = self.switch
                    setattr(part, name, before)


def _find_tf32_switch() -> tuple[object, str, bool | str, bool | str]:
    """Returns cuDNN's switch of TF32: its object, name, value for off, and value."""
    cudnn = torch.backends.cudnn
    try:
        return cudnn, "allow_tf32", False, cudnn.allow_tf32
    except RuntimeError:  # the newer switch of torch >= 2.9 was used
        return cudnn.conv, "fp32_precision", "ieee", cudnn.conv.fp32_precision


without_tf32 = _TF32Guard()
"""A context manager that switches TF32 off for all threads while any is inside."""


def _has_stride(part: nn.Module) -> bool:
    convs = (m for m in part.modules() if isinstance(m, nn.Conv2d))
    return any(max(conv.stride) > 1 for conv in convs)


class _NoAutocastMixin:
    """Makes a GDN compute in the precision of its parameters under autocast."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_autocast_enabled(x.device.type):
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.to(self.beta.dtype))


class PreciseGDN(_NoAutocastMixin, GDN):
    """GDN without autocast, because its squares overflow float16."""


class PreciseGDN1(_NoAutocastMixin, GDN1):
    """GDN1 without autocast, because bfloat16 rounds its sums."""


_PRECISE = {GDN: PreciseGDN, GDN1: PreciseGDN1}


def keep_precise(net: nn.Module) -> None:
    """Makes a model's GDNs compute in the precision of their parameters under autocast.

    Args:
        net: The model; changed in place.
    """
    for module in net.modules():
        if type(module) in _PRECISE:
            module.__class__ = _PRECISE[type(module)]
