"""What computes in its own precision under autocast, where half of it is too little.

GDN squares its input, which overflows float16 from 256 on. y is rounded to whole
numbers: in bfloat16 it would be to halves from 64 on, to pairs from 512.
"""

import functools
from collections.abc import Callable

import torch
from compressai.layers import GDN, GDN1
from torch import Tensor, nn


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
        x = x.to(next(g_a.parameters()).dtype)
        for part in parts[first:]:
            x = part(x)
    return x


def _has_stride(part: nn.Module) -> bool:
    convs = (m for m in part.modules() if isinstance(m, nn.Conv2d))
    return any(max(conv.stride) > 1 for conv in convs)


def _without_autocast(forward: Callable) -> Callable:
    @functools.wraps(forward)
    def precise(self: GDN, x: Tensor) -> Tensor:
        if not torch.is_autocast_enabled(x.device.type):
            return forward(self, x)
        with torch.autocast(x.device.type, enabled=False):
            return forward(self, x.to(self.beta.dtype))

    return precise


for _kind in (GDN, GDN1):  # of CompressAI, as models hold them anywhere
    _kind.forward = _without_autocast(_kind.forward)
