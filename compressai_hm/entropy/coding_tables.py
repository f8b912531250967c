"""The range coder's frequency tables as a value, with a digest of their weights.

Tables are computed in floating point, so another machine may compute different ones. We
therefore keep the tables of a checkpoint for as long as its weights do not change.
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

from ..compat.compressai_private import TABLE_BUFFERS
from .families import Family
from .fixed_point import iterate_weights


def is_table(key: str) -> bool:
    """Says whether a key of a state dict is that of a table.

    Args:
        key: The key.
    """
    return key.split(".")[-1] in TABLE_BUFFERS


def table_buffers(model: EntropyModel) -> list[str]:
    """Returns the names of an entropy model's buffers that hold tables.

    Args:
        model: The entropy model.
    """
    return [key for key in TABLE_BUFFERS if key in model._buffers]


def entropy_models(model: nn.Module) -> dict[str, EntropyModel]:
    """Returns a codec's entropy models by name.

    Args:
        model: The codec.
    """
    return {n: m for n, m in model.named_modules() if isinstance(m, EntropyModel)}


@functools.cache
def default_scale_table() -> Tensor:
    """Returns CompressAI's scale table, ``(64,)`` float32 for every default dtype."""
    logs = math.log(SCALES_MIN), math.log(SCALES_MAX)
    scales = torch.linspace(*logs, SCALES_LEVELS, dtype=torch.float32, device="cpu")
    return torch.exp(scales)


@dataclass(frozen=True)
class CodingTables:
    """Tables of all entropy models of a codec; they are never changed.

    Args:
        digest: Digest of the weights of the tables, from :func:`digest_weights`.
        buffers: CompressAI's buffers by module and buffer name, on the CPU.
    """

    digest: str
    buffers: Mapping[str, Mapping[str, Tensor]]

    @classmethod
    def read_from(
        cls, model: nn.Module, scale_tables: Mapping[str, Tensor]
    ) -> "CodingTables":
        """Makes the tables of the present weights, on the CPU in float32.

        Args:
            model: The codec, on any device and in any precision; it is not changed.
            scale_tables: Scale table of each conditional Gaussian by name.

        Returns:
            The tables.

        Raises:
            ValueError: If a scale table is not positive and ascending.
        """
        with torch.inference_mode(False), torch.no_grad():
            buffers = {
                name: _make_tables(module, scale_tables.get(name))
                for name, module in entropy_models(model).items()
            }
        return cls(digest_weights(model, scale_tables), buffers)

    def state(self) -> dict[str, Tensor]:
        """Returns copies of the tables by their keys in ``state_dict()``."""
        return {
            f"{name}.{key}": value.clone()
            for name, tables in self.buffers.items()
            for key, value in tables.items()
        }


def _make_tables(module: EntropyModel, scale_table: Tensor | None) -> dict[str, Tensor]:
    if scale_table is not None:
        check_scales(scale_table)
    module = _copy_to_cpu(module)
    if isinstance(module, GaussianConditional):
        # update_scale_table() would make the table in the default dtype.
        module.scale_table = scale_table.detach().cpu().float()
        module.update()
    else:
        module.update(force=True)
    return {key: module._buffers[key].clone() for key in table_buffers(module)}


def check_scales(scales: Tensor) -> None:
    """Checks that a scale table is positive and ascends.

    Args:
        scales: Standard deviations, ``(n,)``.

    Raises:
        ValueError: If it is not.
    """
    ascends = scales.isfinite().all() and (scales.diff() > 0).all()
    if not ascends or not len(scales) or scales[0] <= 0:
        raise ValueError(
            "the conditional Gaussian's scale_table must be positive and ascend; make "
            "another with update(scale_table=..., force=True)"
        )


def _copy_to_cpu(module: nn.Module) -> nn.Module:
    """Copies a module to the CPU in float32.

    Unlike deepcopy, it can also copy DataParallel's replicas.
    """
    copied = copy.copy(module)
    copied._parameters, copied._buffers, copied._modules = {}, {}, {}
    for key, p in _get_parameters(module).items():
        copied.__dict__.pop(key, None)  # replicas keep it there
        copied._parameters[key] = p if p is None else nn.Parameter(_copy(p), False)
    for key, buffer in module._buffers.items():
        copied._buffers[key] = buffer if buffer is None else _copy(buffer)
    for key, child in module._modules.items():
        copied._modules[key] = child if child is None else _copy_to_cpu(child)
    return copied


def _copy(x: Tensor) -> Tensor:
    x = x.detach().to("cpu", copy=True)
    return x.float() if x.is_floating_point() else x


def digest_weights(model: nn.Module, scale_tables: Mapping[str, Tensor]) -> str:
    """Computes a digest of the values of all weights that tables are made of.

    The digest does not depend on the device, nor on the precision if that holds the
    same values.

    Args:
        model: The codec.
        scale_tables: Scale table of each conditional Gaussian by name.

    Returns:
        A hexadecimal digest.
    """
    digest = xxhash.xxh3_128()
    for name, module in entropy_models(model).items():
        digest.update(_describe_structure(module))
        for x in (*iterate_parameters(module), scale_tables.get(name)):
            if x is not None:
                add_tensor(digest, _to_float32(x.detach().cpu()))
    return digest.hexdigest()


def _describe_structure(module: EntropyModel) -> bytes:
    return f"{type(module).__name__} {getattr(module, 'tail_mass', None)}".encode()


def iterate_parameters(module: nn.Module) -> Iterator[Tensor]:
    """Yields the parameters of a module, or of a replica of DataParallel's.

    Args:
        module: The module; replicas hold their parameters as plain tensors.
    """
    for part in module.modules():
        yield from (p for p in _get_parameters(part).values() if p is not None)


def _get_parameters(module: nn.Module) -> dict[str, Tensor | None]:
    return getattr(module, "_former_parameters", None) or module._parameters


def _to_float32(x: Tensor) -> Tensor:
    as_float = x.float()
    return as_float if torch.equal(as_float.to(x.dtype), x) else x


def add_tensor(digest: xxhash.xxh3_128, x: Tensor) -> None:
    """Adds the dtype, shape and bytes of a tensor to a digest.

    Args:
        digest: The digest; changed in place.
        x: A tensor on the CPU.
    """
    digest.update(f"{x.dtype} {tuple(x.shape)}".encode())
    digest.update(x.contiguous().reshape(-1).view(torch.uint8).numpy())


def add_tensors(digest: xxhash.xxh3_128, tensors: Iterable[Tensor]) -> None:
    """Adds tensors of any device to a digest, in the precision that they have.

    Tensors of other devices are reduced there to one number each, and all numbers come
    to the CPU in one transfer.

    Args:
        digest: The digest; changed in place.
        tensors: The tensors.
    """
    elsewhere = []
    for x in tensors:
        if x.device.type == "cpu":
            add_tensor(digest, x.detach())
        else:
            digest.update(f"{x.dtype} {tuple(x.shape)}".encode())
            elsewhere.append(_sum_bits(x.detach()))
    if elsewhere:
        digest.update(repr(torch.stack(elsewhere).tolist()).encode())


@torch.no_grad()
def digest_family(family: Family, scale_tables: Mapping[str, Tensor]) -> str:
    """Computes a digest of all that a coder is made of, in the precision it has.

    Each call that codes computes it, so it must be fast.

    Args:
        family: The family of the model.
        scale_tables: Scale table of each conditional Gaussian by name.

    Returns:
        A hexadecimal digest.
    """
    digest = xxhash.xxh3_128()
    weights = [*iterate_parameters(family.bottleneck), *scale_tables.values()]
    digest.update(_describe_structure(family.bottleneck))
    nets = [family.h_s]
    for group in family.groups():
        options = (group.channels, group.order, group.parts, group.means_first)
        options += (group.log_scales, group.skips)
        digest.update(repr(options).encode() + _describe_structure(group.gaussian))
        nets += group.nets()
    for net in nets:
        digest.update(repr(net).encode())
        weights += iterate_weights(net)
    add_tensors(digest, weights)
    return digest.hexdigest()


_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int32}


def _sum_bits(x: Tensor) -> Tensor:
    """Sums the bits of all numbers modulo 2**64, each with a factor for its place."""
    flat = x.contiguous().reshape(-1)
    bits = flat.view(_INTEGERS[x.element_size()]).long()
    # The factors are odd, so that a change of one number changes the sum. The products
    # are folded, so that the high bits of several do not cancel.
    place = torch.arange(len(bits), device=x.device).mul_(0x5851F42D4C957F2E).add_(1)
    mixed = place.mul_(bits)
    return mixed.bitwise_xor_(mixed >> 32).sum()
