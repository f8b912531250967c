"""Which tables a model codes with, and CompressAI's buffers as mirrors of them.

What is coded is always of the present weights: each call that codes compares them by
value with those that the coder was made of. CompressAI's buffers (``_quantized_cdf``
and its like) are written by ``update()`` and by loading, and never read by the coder; a
state dict says of which weights they are, so that a reader of it leaves out others'.

Training frameworks must not see the buffers, as their size changes with the weights:
there they stay empty (``hide_tables``).
"""

import os
import threading
import weakref
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from torch import Tensor

from .entropy import LatentCoder, family_of
from .entropy.coding_tables import (
    CodingTables,
    default_scale_table,
    digest_of,
    digest_of_family,
    entropy_models,
    table_buffers,
)

TABLES_OF = "tables_of"
"""In a state dict's metadata: the digest of the weights that its tables are of."""

_OTHER_WEIGHTS = "other weights"


class _Coding:
    """What a model codes with. DataParallel's replicas share it, copies do not.

    Args:
        given: Tables that came with weights, or by ``update()``.
        scale_tables: Of each conditional Gaussian that has not CompressAI's default,
            in float32.
        mirrored: Digest of the weights of the tables in CompressAI's buffers; None
            where it is not known, or there are none.
    """

    def __init__(
        self,
        given: CodingTables | None = None,
        scale_tables: Mapping[str, Tensor] | None = None,
        mirrored: str | None = None,
    ):
        self.given, self.mirrored = given, mirrored
        self.scale_tables = dict(scale_tables or {})
        self.loading = _Loading()
        self.made: CodingTables | None = None
        self.coders: dict[torch.device, LatentCoder] = {}
        self.coders_of: str | None = None
        self.lock = threading.RLock()
        _ALL.add(self)

    def __reduce__(self) -> tuple:
        return _Coding, (self.given, self.scale_tables, self.mirrored)


class _Loading(NamedTuple):
    """What a state dict that is being loaded holds.

    Args:
        tables: By entropy model and buffer.
        tables_of: Digest of the weights that they are of, if the state dict says it.
        whole: Whether all weights of the entropy models are in it.
        resized: Whether CompressAI has resized buffers for it, which hold anything.
    """

    tables: dict[str, dict[str, Tensor]] = {}
    tables_of: str | None = None
    whole: bool = False
    resized: bool = False


_ALL: "weakref.WeakSet[_Coding]" = weakref.WeakSet()


def _renew_locks() -> None:
    for coding in _ALL:
        coding.lock = threading.RLock()


if hasattr(os, "register_at_fork"):  # a thread that held one is not in the child
    os.register_at_fork(after_in_child=_renew_locks)


class TablesMixin:
    """Part of :class:`HumanMachineMixin`; before a CompressionModel among the bases."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._coding = _Coding()
        self._own_scale_tables: dict[str, Tensor] = {}
        self.register_load_state_dict_post_hook(_take_loaded_tables)
        self.register_state_dict_post_hook(_say_whose_tables)

    @torch.compiler.disable
    def latent_coder(self) -> LatentCoder:
        """The exact entropy part of the present weights, made anew if they changed.

        Threads share it, and those that meet at its first use make it once.
        """
        family, coding = family_of(self), self._coding
        digest = digest_of_family(family, self._scale_tables())
        device = family.bottleneck.quantiles.device
        with coding.lock:
            if coding.coders_of == digest and device in coding.coders:
                return coding.coders[device]
            tables = self._present_tables()
            with torch.inference_mode(False), torch.no_grad():
                coder = LatentCoder(family, tables, device)
            # Only if no other thread has changed the weights meanwhile.
            if digest_of_family(family, self._scale_tables()) == digest:
                if coding.coders_of != digest:
                    coding.coders, coding.coders_of = {}, digest
                coding.coders[device] = coder
            return coder

    def _present_tables(self) -> CodingTables:
        """Given ones if they are of the present weights."""
        coding, scale_tables = self._coding, self._scale_tables()
        digest = digest_of(self, scale_tables)
        with coding.lock:
            for tables in (coding.given, coding.made):
                if tables is not None and tables.digest == digest:
                    return tables
            coding.made = CodingTables.of(self, scale_tables)
            return coding.made

    def _scale_tables(self) -> dict[str, Tensor]:
        """Of each conditional Gaussian: given, its constructor's, or the default."""
        found = {}
        for name, module in entropy_models(self).items():
            if isinstance(module, GaussianConditional):
                found[name] = self._coding.scale_tables.get(name)
                if found[name] is None and self._is_own(module):
                    found[name] = _on_cpu(module.scale_table)
                elif found[name] is None:
                    found[name] = default_scale_table()
        return found

    def _is_own(self, module: GaussianConditional) -> bool:
        """Whether its scale table was given to its constructor: it is no mirror."""
        return self._coding.mirrored is None and bool(module.scale_table.numel())

    def _keep_own_scale_tables(self) -> None:
        """Before the buffers are emptied."""
        for name, module in entropy_models(self).items():
            if isinstance(module, GaussianConditional) and self._is_own(module):
                own = _on_cpu(module.scale_table)
                own = self._coding.scale_tables.setdefault(name, own)
                self._own_scale_tables.setdefault(name, own)

    def tables_state(self) -> dict[str, Tensor]:
        """The tables of the present weights, as ``state_dict()`` gives them."""
        return self._present_tables().state()

    def update(
        self,
        scale_table: Iterable[float] | None = None,
        force: bool = False,
        update_quantiles: bool = False,
    ) -> bool:
        """CompressAI's: writes the tables of the present weights into its buffers.

        Coding does not need it; a file of weights that other programs read does.

        Args:
            scale_table: Scales of the conditional Gaussians' tables.
            force: Make the tables anew, also where there are those of these weights.
            update_quantiles: See CompressAI.

        Returns:
            Whether anything was written.
        """
        self._keep_own_scale_tables()
        coding, own = self._coding, self._scale_tables()
        if not force and coding.mirrored == digest_of(self, own):
            return False
        if update_quantiles:
            for module in entropy_models(self).values():
                if isinstance(module, EntropyBottleneck):
                    module._update_quantiles()
        if scale_table is not None:
            scales = torch.tensor([float(s) for s in scale_table], dtype=torch.float32)
            coding.scale_tables = dict.fromkeys(own, scales)
        if force:
            coding.given = CodingTables.of(self, self._scale_tables())
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
        """Whether CompressAI's buffers stay empty and out of ``state_dict()``.

        For training frameworks: EMA and DDP cannot follow buffers that change size.
        After ``hide_tables(False)``, ``update()`` fills them.
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
        if not hidden:  # those of one's own are no mirrors
            for name, scales in self._coding.scale_tables.items():
                module = self.get_submodule(name)
                module.scale_table = scales.clone().to(module.scale_table.device)

    def _tables_hidden(self) -> bool:
        models = entropy_models(self).values()
        return any(m._non_persistent_buffers_set for m in models)

    def _apply(self, *args, **kwargs) -> "TablesMixin":
        kept = {
            module: module.scale_table
            for module in entropy_models(self).values()
            if isinstance(module, GaussianConditional)
        }
        super()._apply(*args, **kwargs)
        for module, scales in kept.items():  # which half would round
            if module.scale_table.dtype != scales.dtype:
                module.scale_table = scales.to(module.scale_table.device)
        return self

    def load_state_dict(
        self, state_dict: Mapping[str, Tensor], strict: bool = True
    ) -> NamedTuple:
        """CompressAI's; where tables are absent, those of the weights are used."""
        metadata = getattr(state_dict, "_metadata", {})
        tables_of = metadata.get("", {}).get(TABLES_OF)
        state_dict = dict(state_dict)
        for name, module in entropy_models(self).items():
            if any(key.startswith(f"{name}.") for key in state_dict):
                for key in table_buffers(module):  # CompressAI looks for each
                    empty = module._buffers[key].new_empty(0)
                    state_dict.setdefault(f"{name}.{key}", empty)
        self._keep_own_scale_tables()
        self._coding.loading = _Loading(tables_of=tables_of, resized=True)
        try:
            return super().load_state_dict(state_dict, strict=strict)
        finally:
            self._coding.loading = _Loading()

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *args) -> None:
        # Called by torch's and by MMEngine's loader alike, before the parts' own.
        coding, tables, whole = self._coding, {}, True
        if not coding.loading.resized:
            self._keep_own_scale_tables()
        for name, module in entropy_models(self).items():
            own = f"{prefix}{name}."
            for key, p in module.named_parameters():
                loaded = state_dict.get(f"{own}{key}")
                whole &= loaded is not None and loaded.shape == p.shape
            if not any(key.startswith(own) for key in state_dict):
                continue  # a state dict of other parts
            coding.mirrored = None
            for key in table_buffers(module):
                value = state_dict.pop(f"{own}{key}", module._buffers[key].new_empty(0))
                if value.numel():
                    tables.setdefault(name, {})[key] = value
                shape = value.shape
                if key in module._non_persistent_buffers_set:
                    shape = (0,)
                else:
                    state_dict[f"{own}{key}"] = value
                module._buffers[key] = module._buffers[key].new_empty(shape)
        tables_of = local_metadata.get(TABLES_OF) or coding.loading.tables_of
        coding.loading = _Loading(tables, tables_of, whole)
        if tables:
            coding.mirrored = _OTHER_WEIGHTS  # until they are taken
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)


def _take_loaded_tables(model: TablesMixin, incompatible_keys) -> None:
    """Tables that came with all of their weights are used as they are."""
    coding, own = model._coding, entropy_models(model)
    loading, coding.loading = coding.loading, _Loading()
    weights = [p for module in own.values() for p in module.parameters()]
    if not loading.whole or any(p.is_meta for p in weights):
        return
    complete = all(
        set(table_buffers(m)) == set(loading.tables.get(n, ())) for n, m in own.items()
    )
    buffers = {
        name: {key: _on_cpu(value) for key, value in tables.items()}
        for name, tables in loading.tables.items()
    }
    coding.scale_tables = model._own_scale_tables | {
        name: tables["scale_table"]
        for name, tables in buffers.items()
        if "scale_table" in tables
    }
    if not complete:
        return
    digest = digest_of(model, model._scale_tables())
    if loading.tables_of in (None, digest):
        coding.given = CodingTables(digest, buffers)
        coding.coders_of = None
    if not model._tables_hidden():
        coding.mirrored = loading.tables_of or digest


def _on_cpu(value: Tensor) -> Tensor:
    value = value.detach().cpu().clone()
    return value.float() if value.is_floating_point() else value


def _say_whose_tables(model: TablesMixin, state_dict, prefix, local_metadata) -> None:
    if model._coding.mirrored is not None:
        local_metadata[TABLES_OF] = model._coding.mirrored


def with_metadata(
    weights: Mapping[str, Tensor], of: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Weights that were taken out of a state dict, and whose tables are among them."""
    metadata = getattr(of, "_metadata", {})
    found = [own[TABLES_OF] for own in metadata.values() if TABLES_OF in own]
    kept = _Weights(weights)
    if len(found) == 1:
        kept._metadata = {"": {TABLES_OF: found[0]}}
    return kept


class _Weights(dict):
    """A dict that can have attributes."""
