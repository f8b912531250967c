"""What computes in its own precision, where less is faster and too little.

Under autocast: GDN squares its input, which overflows float16 from 256 on. y is rounded
to whole numbers: in bfloat16 it would be to halves from 64 on, to pairs from 512.

In coding: NVIDIA's convolutions take TF32, of 10 bits, for float32 unless told not to.
"""

import contextlib
import threading
from collections.abc import Iterator

import torch
from compressai.layers import GDN, GDN1
from torch import Tensor, nn

from .entropy.coding_tables import parameters_of


def analysis(g_a: nn.Module, x: Tensor) -> Tensor:
    """y = g_a(x); under autocast without it from y's resolution on.

    That is from the last child of a Sequential that holds a stride; the whole of a g_a
    of another kind. Forward hooks of g_a as a whole are then left out.

    Args:
        g_a: The transform.
        x: ``(N, 3, H, W)``.
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
        x = x.to(next(parameters_of(g_a)).dtype)
        for part in parts[first:]:
            x = part(x)
    return x


class _WithoutTF32:
    """Convolutions in float32, until the last thread that asked for it is done."""

    def __init__(self):
        self.lock, self.users = threading.Lock(), 0

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with self.lock:
            if not self.users:
                self.switch = _switch()
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


def _switch() -> tuple[object, str, bool | str, bool | str]:
    """Of cuDNN's convolutions: where it is, what is off, and what it is now."""
    cudnn = torch.backends.cudnn
    try:
        return cudnn, "allow_tf32", False, cudnn.allow_tf32
    except RuntimeError:  # someone has used the newer one of torch >= 2.9
        return cudnn.conv, "fp32_precision", "ieee", cudnn.conv.fp32_precision


without_tf32 = _WithoutTF32()
"""A context; all threads are in it while one is."""


def _has_stride(part: nn.Module) -> bool:
    convs = (m for m in part.modules() if isinstance(m, nn.Conv2d))
    return any(max(conv.stride) > 1 for conv in convs)


class _WithoutAutocast:
    """Mixed into GDN: its parameters' precision, whatever autocast asks for."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_autocast_enabled(x.device.type):
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.to(self.beta.dtype))


class PreciseGDN(_WithoutAutocast, GDN):
    """GDN, whose squares overflow float16."""


class PreciseGDN1(_WithoutAutocast, GDN1):
    """GDN1, whose sums bfloat16 rounds."""


_PRECISE = {GDN: PreciseGDN, GDN1: PreciseGDN1}


def keep_precise(net: nn.Module) -> None:
    """Makes a model's GDNs compute in their own precision under autocast."""
    for module in net.modules():
        if type(module) in _PRECISE:
            module.__class__ = _PRECISE[type(module)]
