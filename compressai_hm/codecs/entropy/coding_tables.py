"""The range coder's frequency tables as a value, known by what they were made of.

Floating point makes tables, and another machine's might make others; so tables that
came with a checkpoint stand for as long as the weights that they came with.
"""

import copy
import functools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn as nn
import xxhash
from compressai.entropy_models import GaussianConditional
from compressai.entropy_models.entropy_models import EntropyModel
from compressai.models.base import SCALES_LEVELS, SCALES_MAX, SCALES_MIN
from torch import Tensor

from .families import Family
from .fixed_point import weights_of

TABLE_BUFFERS = ("_offset", "_quantized_cdf", "_cdf_length", "scale_table")
"""Buffers of CompressAI's entropy models that hold tables."""


def is_table(key: str) -> bool:
    """Whether a state dict's key is one of a table."""
    return key.split(".")[-1] in TABLE_BUFFERS


def table_buffers(model: EntropyModel) -> list[str]:
    """Those of ``TABLE_BUFFERS`` that an entropy model has."""
    return [key for key in TABLE_BUFFERS if key in model._buffers]


def entropy_models(model: nn.Module) -> dict[str, EntropyModel]:
    """A codec's entropy models by name."""
    return {n: m for n, m in model.named_modules() if isinstance(m, EntropyModel)}


@functools.cache
def default_scale_table() -> Tensor:
    """CompressAI's, in float32 whatever the default is."""
    logs = math.log(SCALES_MIN), math.log(SCALES_MAX)
    scales = torch.linspace(*logs, SCALES_LEVELS, dtype=torch.float32, device="cpu")
    return torch.exp(scales)


@dataclass(frozen=True)
class CodingTables:
    """Tables of all entropy models of a codec. Never written to.

    Args:
        digest: Of what they were made of, see :func:`digest_of`.
        buffers: CompressAI's own by module and buffer name, on the CPU.
    """

    digest: str
    buffers: Mapping[str, Mapping[str, Tensor]]

    @classmethod
    def of(cls, model: nn.Module, scale_tables: Mapping[str, Tensor]) -> "CodingTables":
        """Made of the present weights, on the CPU in float32.

        Args:
            model: Any device and precision; left as it is.
            scale_tables: Of each conditional Gaussian by name.
        """
        with torch.inference_mode(False), torch.no_grad():
            made = {
                name: _made(module, scale_tables.get(name))
                for name, module in entropy_models(model).items()
            }
        return cls(digest_of(model, scale_tables), made)

    def state(self) -> dict[str, Tensor]:
        """As ``state_dict()`` gives them."""
        return {
            f"{name}.{key}": value.clone()
            for name, own in self.buffers.items()
            for key, value in own.items()
        }


def _made(module: EntropyModel, scale_table: Tensor | None) -> dict[str, Tensor]:
    if scale_table is not None:
        check_scales(scale_table)
    module = _copied(module)
    if isinstance(module, GaussianConditional):
        # update_scale_table() would make it anew in the default dtype.
        module.scale_table = scale_table.detach().cpu().float()
        module.update()
    else:
        module.update(force=True)
    return {key: module._buffers[key].clone() for key in table_buffers(module)}


def check_scales(scales: Tensor) -> None:
    """Raises ValueError if a scale table is none."""
    ascends = scales.isfinite().all() and (scales.diff() > 0).all()
    if not ascends or not len(scales) or scales[0] <= 0:
        raise ValueError(
            "the conditional Gaussian's scale_table must be positive and ascend; make "
            "another with update(scale_table=..., force=True)"
        )


def _copied(module: nn.Module) -> nn.Module:
    """On the CPU in float32; unlike deepcopy's, also of DataParallel's replicas."""
    own = copy.copy(module)
    own._parameters, own._buffers, own._modules = {}, {}, {}
    for key, p in _parameters(module).items():
        own.__dict__.pop(key, None)  # of a replica
        own._parameters[key] = p if p is None else nn.Parameter(_plain(p), False)
    for key, buffer in module._buffers.items():
        own._buffers[key] = buffer if buffer is None else _plain(buffer)
    for key, child in module._modules.items():
        own._modules[key] = child if child is None else _copied(child)
    return own


def _plain(x: Tensor) -> Tensor:
    x = x.detach().to("cpu", copy=True)
    return x.float() if x.is_floating_point() else x


def digest_of(model: nn.Module, scale_tables: Mapping[str, Tensor]) -> str:
    """Of all that tables are made of, by value.

    A model on another device, or of another precision that holds the same values, has
    the same one.
    """
    digest = xxhash.xxh3_128()
    for name, module in entropy_models(model).items():
        digest.update(_structure(module))
        for x in (*parameters_of(module), scale_tables.get(name)):
            if x is not None:
                add_tensor(digest, _as_float32(x.detach().cpu()))
    return digest.hexdigest()


def _structure(module: EntropyModel) -> bytes:
    return f"{type(module).__name__} {getattr(module, 'tail_mass', None)}".encode()


def parameters_of(module: nn.Module) -> Iterator[Tensor]:
    """Also of a replica of DataParallel's, where they are no parameters any more."""
    for part in module.modules():
        yield from (p for p in _parameters(part).values() if p is not None)


def _parameters(module: nn.Module) -> dict[str, Tensor | None]:
    return getattr(module, "_former_parameters", None) or module._parameters


def _as_float32(x: Tensor) -> Tensor:
    as_float = x.float()
    return as_float if torch.equal(as_float.to(x.dtype), x) else x


def add_tensor(digest: xxhash.xxh3_128, x: Tensor) -> None:
    """Adds a CPU tensor: dtype, shape and bytes."""
    digest.update(f"{x.dtype} {tuple(x.shape)}".encode())
    digest.update(x.contiguous().reshape(-1).view(torch.uint8).numpy())


def add_tensors(digest: xxhash.xxh3_128, tensors: Iterable[Tensor]) -> None:
    """Adds tensors of any device as they lie in memory.

    Those on another device are summed up there, and one number a tensor comes back, all
    in one transfer.
    """
    elsewhere = []
    for x in tensors:
        if x.device.type == "cpu":
            add_tensor(digest, x.detach())
        else:
            digest.update(f"{x.dtype} {tuple(x.shape)}".encode())
            elsewhere.append(_sum_of_bits(x.detach()))
    if elsewhere:
        digest.update(repr(torch.stack(elsewhere).tolist()).encode())


@torch.no_grad()
def digest_of_family(family: Family, scale_tables: Mapping[str, Tensor]) -> str:
    """Fast: of all that a coder is made of, as it lies in memory.

    It is taken at every call that codes, so the weights go through no other precision.

    Args:
        family: The model's.
        scale_tables: Of each conditional Gaussian.
    """
    digest = xxhash.xxh3_128()
    weights = [*parameters_of(family.bottleneck), *scale_tables.values()]
    digest.update(_structure(family.bottleneck))
    nets = [family.h_s]
    for group in family.groups():
        own = (group.channels, group.order, group.parts, group.means_first)
        own += (group.log_scales, group.skips)
        digest.update(repr(own).encode() + _structure(group.gaussian))
        nets += group.nets()
    for net in nets:
        digest.update(repr(net).encode())
        weights += weights_of(net)
    add_tensors(digest, weights)
    return digest.hexdigest()


_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int32}


def _sum_of_bits(x: Tensor) -> Tensor:
    """A sum modulo 2**64 of the bits of each number, by place."""
    flat = x.contiguous().reshape(-1)
    bits = flat.view(_INTEGERS[x.element_size()]).long()
    # Odd factors: a change of one number changes the sum. Folded, so that the high
    # bits of several do not cancel.
    place = torch.arange(len(bits), device=x.device).mul_(0x5851F42D4C957F2E).add_(1)
    mixed = place.mul_(bits)
    return mixed.bitwise_xor_(mixed >> 32).sum()
