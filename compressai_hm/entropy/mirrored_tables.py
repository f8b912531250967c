"""The tables that a model codes with, and CompressAI's buffers as copies of them.

A model always codes with its present weights: each call that codes compares their
values with those that the coder was made of. The coder never reads CompressAI's table
buffers; ``update()`` and loading write them. A state dict holds the digest of the
weights of its tables, so that tables of other weights are not used.

Training frameworks must not see the buffers, because their size changes with the
weights: there the buffers stay empty (``hide_tables``).
"""

import os
import threading
import weakref
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from torch import Tensor

from ..compat.compressai_private import refresh_quantiles
from . import LatentCoder, find_family
from .coding_tables import (
    CodingTables,
    default_scale_table,
    digest_family,
    digest_weights,
    entropy_models,
    table_buffers,
)

TABLES_OF = "tables_of"
"""Key in a state dict's metadata for the digest of the weights of its tables."""

_OTHER_WEIGHTS = "other weights"


class _Coding:
    """Coders and tables of a model; DataParallel's replicas share it, copies do not.

    Args:
        given: Tables from a state dict or from ``update()``.
        scale_tables: Scale tables in float32 of the conditional Gaussians that do not
            use CompressAI's default.
        mirrored: Digest of the weights of the tables in CompressAI's buffers; None if
            it is unknown, or the buffers are empty.
    """

    def __init__(
        self,
        given: CodingTables | None = None,
        scale_tables: Mapping[str, Tensor] | None = None,
        mirrored: str | None = None,
    ):
        self.given, self.mirrored = given, mirrored
        self.scale_tables = dict(scale_tables or {})
        self.loading = _LoadedTables()
        self.made: CodingTables | None = None
        self.coders: dict[torch.device, LatentCoder] = {}
        self.coders_of: str | None = None
        self.lock = threading.RLock()
        _ALL.add(self)

    def __reduce__(self) -> tuple:
        return _Coding, (self.given, self.scale_tables, self.mirrored)


class _LoadedTables(NamedTuple):
    """The content of a state dict that is being loaded.

    Args:
        tables: Tables by entropy model and buffer.
        tables_of: Digest of the weights of the tables; None if the state dict has none.
        whole: Whether it holds all weights of the entropy models.
        resized: Whether CompressAI has resized buffers, whose content is then
            undefined.
    """

    tables: dict[str, dict[str, Tensor]] = {}
    tables_of: str | None = None
    whole: bool = False
    resized: bool = False


_ALL: "weakref.WeakSet[_Coding]" = weakref.WeakSet()


def _renew_locks() -> None:
    for coding in _ALL:
        coding.lock = threading.RLock()


if hasattr(os, "register_at_fork"):  # the child lacks the threads that hold locks
    os.register_at_fork(after_in_child=_renew_locks)


class TablesMixin:
    """Part of :class:`HumanMachineMixin`; before a CompressionModel among the bases."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._coding = _Coding()
        self._own_scale_tables: dict[str, Tensor] = {}
        self.register_load_state_dict_post_hook(_take_loaded_tables)
        self.register_state_dict_post_hook(_write_digest)

    @torch.compiler.disable
    def latent_coder(self) -> LatentCoder:
        """Returns the exact entropy part of the present weights.

        It is made once for each value of the weights, and threads share it.

        Raises:
            TypeError: If the structure of the entropy part is unknown here.
            ValueError: If its weights or tables are broken.
        """
        family, coding = find_family(self), self._coding
        digest = digest_family(family, self._scale_tables())
        device = family.bottleneck.quantiles.device
        with coding.lock:
            if coding.coders_of == digest and device in coding.coders:
                return coding.coders[device]
            tables = self._present_tables()
            with torch.inference_mode(False), torch.no_grad():
                coder = LatentCoder(family, tables, device)
            # We keep it only if no other thread has changed the weights meanwhile.
            if digest_family(family, self._scale_tables()) == digest:
                if coding.coders_of != digest:
                    coding.coders, coding.coders_of = {}, digest
                coding.coders[device] = coder
            return coder

    def _present_tables(self) -> CodingTables:
        """Returns the tables of the present weights: given ones, or computed ones."""
        coding, scale_tables = self._coding, self._scale_tables()
        digest = digest_weights(self, scale_tables)
        with coding.lock:
            for tables in (coding.given, coding.made):
                if tables is not None and tables.digest == digest:
                    return tables
            coding.made = CodingTables.read_from(self, scale_tables)
            return coding.made

    def _scale_tables(self) -> dict[str, Tensor]:
        """Returns the scale tables: given, of the constructor, or the default."""
        scale_tables = {}
        for name, module in entropy_models(self).items():
            if isinstance(module, GaussianConditional):
                scales = self._coding.scale_tables.get(name)
                if scales is None and self._is_own(module):
                    scales = _copy_to_cpu(module.scale_table)
                scale_tables[name] = default_scale_table() if scales is None else scales
        return scale_tables

    def _is_own(self, module: GaussianConditional) -> bool:
        """Says whether a scale table comes from the constructor and is no copy."""
        return self._coding.mirrored is None and bool(module.scale_table.numel())

    def _keep_own_scale_tables(self) -> None:
        """Stores the constructors' scale tables before the buffers are emptied."""
        for name, module in entropy_models(self).items():
            if isinstance(module, GaussianConditional) and self._is_own(module):
                scales = _copy_to_cpu(module.scale_table)
                scales = self._coding.scale_tables.setdefault(name, scales)
                self._own_scale_tables.setdefault(name, scales)

    def tables_state(self) -> dict[str, Tensor]:
        """Returns the present weights' tables by their keys in ``state_dict()``."""
        return self._present_tables().state()

    def update(
        self,
        scale_table: Iterable[float] | None = None,
        force: bool = False,
        update_quantiles: bool = False,
    ) -> bool:
        """Writes the tables of the present weights into CompressAI's buffers.

        Coding does not need this; a file of weights that other programs read does.

        Args:
            scale_table: Standard deviations of the conditional Gaussians' tables.
                Defaults to None, the present ones.
            force: Whether to compute tables again that are those of these weights.
                Defaults to False.
            update_quantiles: Whether to find the bottleneck's quantiles in its density
                before. Defaults to False.

        Returns:
            Whether anything was written.

        Raises:
            ValueError: If ``scale_table`` is not positive and ascending.
        """
        self._keep_own_scale_tables()
        coding, scale_tables = self._coding, self._scale_tables()
        if not force and coding.mirrored == digest_weights(self, scale_tables):
            return False
        if update_quantiles:
            for module in entropy_models(self).values():
                if isinstance(module, EntropyBottleneck):
                    refresh_quantiles(module)
        if scale_table is not None:
            scales = torch.tensor([float(s) for s in scale_table], dtype=torch.float32)
            coding.scale_tables = dict.fromkeys(scale_tables, scales)
        if force:
            coding.given = CodingTables.read_from(self, self._scale_tables())
        else:
            coding.given = self._present_tables()
        coding.coders_of = None
        if self._tables_hidden():
            return True
        for name, buffers in coding.given.buffers.items():
            module = self.get_submodule(name)
            for key, value in buffers.items():
                device = module._buffers[key].device
                module._buffers[key] = value.clone().to(device)
        coding.mirrored = coding.given.digest
        return True

    def hide_tables(self, hidden: bool = True) -> None:
        """Empties CompressAI's table buffers and keeps them out of ``state_dict()``.

        Training frameworks need it: EMA and DDP cannot follow buffers whose size
        changes.

        Args:
            hidden: Whether the buffers stay empty and hidden. After
                ``hide_tables(False)`` ``update()`` fills them. Defaults to True.
        """
        self._keep_own_scale_tables()
        self._coding.mirrored = None
        for module in entropy_models(self).values():
            names = table_buffers(module)
            for name in names:
                module._buffers[name] = module._buffers[name].new_empty(0)
            if hidden:
                module._non_persistent_buffers_set.update(names)
            else:
                module._non_persistent_buffers_set.difference_update(names)
        if not hidden:  # scale tables of constructors are no copies
            for name, scales in self._coding.scale_tables.items():
                module = self.get_submodule(name)
                module.scale_table = scales.clone().to(module.scale_table.device)

    def _tables_hidden(self) -> bool:
        models = entropy_models(self).values()
        return any(m._non_persistent_buffers_set for m in models)

    def _apply(self, *args, **kwargs) -> "TablesMixin":
        scale_tables = {
            module: module.scale_table
            for module in entropy_models(self).values()
            if isinstance(module, GaussianConditional)
        }
        super()._apply(*args, **kwargs)
        for module, scales in scale_tables.items():  # half precision would round them
            if module.scale_table.dtype != scales.dtype:
                module.scale_table = scales.to(module.scale_table.device)
        return self

    def load_state_dict(
        self, state_dict: Mapping[str, Tensor], strict: bool = True
    ) -> NamedTuple:
        """Loads weights; absent tables are computed from the weights.

        Args:
            state_dict: Weights, with or without tables.
            strict: Whether all keys but those of tables must match. Defaults to True.

        Returns:
            Missing and unexpected keys, as torch names them.

        Raises:
            RuntimeError: If keys or shapes do not match.
        """
        metadata = getattr(state_dict, "_metadata", {})
        tables_of = metadata.get("", {}).get(TABLES_OF)
        state_dict = dict(state_dict)
        for name, module in entropy_models(self).items():
            if any(key.startswith(f"{name}.") for key in state_dict):
                for key in table_buffers(module):  # CompressAI looks for each
                    empty = module._buffers[key].new_empty(0)
                    state_dict.setdefault(f"{name}.{key}", empty)
        self._keep_own_scale_tables()
        self._coding.loading = _LoadedTables(tables_of=tables_of, resized=True)
        try:
            return super().load_state_dict(state_dict, strict=strict)
        finally:
            self._coding.loading = _LoadedTables()

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *args) -> None:
        # Both torch's and MMEngine's loader call this, before that of the parts.
        coding, tables, whole = self._coding, {}, True
        if not coding.loading.resized:
            self._keep_own_scale_tables()
        for name, module in entropy_models(self).items():
            start = f"{prefix}{name}."
            for key, p in module.named_parameters():
                loaded = state_dict.get(f"{start}{key}")
                whole &= loaded is not None and loaded.shape == p.shape
            if not any(key.startswith(start) for key in state_dict):
                continue  # a state dict of other parts
            coding.mirrored = None
            for key in table_buffers(module):
                empty = module._buffers[key].new_empty(0)
                value = state_dict.pop(f"{start}{key}", empty)
                if value.numel():
                    tables.setdefault(name, {})[key] = value
                shape = value.shape
                if key in module._non_persistent_buffers_set:
                    shape = (0,)
                else:
                    state_dict[f"{start}{key}"] = value
                module._buffers[key] = module._buffers[key].new_empty(shape)
        tables_of = local_metadata.get(TABLES_OF) or coding.loading.tables_of
        coding.loading = _LoadedTables(tables, tables_of, whole)
        if tables:
            coding.mirrored = _OTHER_WEIGHTS  # until _take_loaded_tables accepts them
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)


def _take_loaded_tables(model: TablesMixin, incompatible_keys) -> None:
    """Uses loaded tables as they are if all of their weights came with them."""
    coding, models = model._coding, entropy_models(model)
    loading, coding.loading = coding.loading, _LoadedTables()
    weights = [p for module in models.values() for p in module.parameters()]
    if not loading.whole or any(p.is_meta for p in weights):
        return
    complete = all(
        set(table_buffers(m)) == set(loading.tables.get(n, ()))
        for n, m in models.items()
    )
    buffers = {
        name: {key: _copy_to_cpu(value) for key, value in tables.items()}
        for name, tables in loading.tables.items()
    }
    coding.scale_tables = model._own_scale_tables | {
        name: tables["scale_table"]
        for name, tables in buffers.items()
        if "scale_table" in tables
    }
    if not complete:
        return
    digest = digest_weights(model, model._scale_tables())
    if loading.tables_of in (None, digest):
        coding.given = CodingTables(digest, buffers)
        coding.coders_of = None
    if not model._tables_hidden():
        coding.mirrored = loading.tables_of or digest


def _copy_to_cpu(value: Tensor) -> Tensor:
    value = value.detach().cpu().clone()
    return value.float() if value.is_floating_point() else value


def _write_digest(model: TablesMixin, state_dict, prefix, local_metadata) -> None:
    if model._coding.mirrored is not None:
        local_metadata[TABLES_OF] = model._coding.mirrored


def with_metadata(
    weights: Mapping[str, Tensor], of: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Returns weights taken from a state dict, with the digest for their tables.

    Args:
        weights: The weights.
        of: The state dict; its metadata holds the digest.
    """
    metadata = getattr(of, "_metadata", {}).values()
    digests = [entry[TABLES_OF] for entry in metadata if TABLES_OF in entry]
    weights = _Weights(weights)
    if len(digests) == 1:
        weights._metadata = {"": {TABLES_OF: digests[0]}}
    return weights


class _Weights(dict):
    """A dict that can have attributes, as torch's state dicts do."""
