"""Which tables a model codes with, and CompressAI's buffers as mirrors of them.

What is coded is always of the present weights: each call that codes compares them by
value with those that the coder was made of. CompressAI's buffers (``_quantized_cdf``
and its like) are written by ``update()`` and by loading, and never read by the coder.

Training frameworks must not see the buffers, as their size changes with the weights:
there they stay empty (``hide_tables``).
"""

import threading
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
    digest_of_nets,
    entropy_models,
    parameters_of,
    table_buffers,
)

_OTHER_WEIGHTS = "tables in the buffers that are not of the present weights"


class _Coding:
    """What a model codes with. DataParallel's replicas share it, copies do not.

    Args:
        given: Tables that came with weights, or by ``update()``.
        scale_tables: Of each conditional Gaussian that has not CompressAI's default.
        mirrored: Digest of the tables in CompressAI's buffers; None before they were
            written.
    """

    def __init__(
        self,
        given: CodingTables | None = None,
        scale_tables: Mapping[str, Tensor] | None = None,
        mirrored: str | None = None,
    ):
        self.given, self.mirrored = given, mirrored
        self.scale_tables = dict(scale_tables or {})
        self.loading: dict[str, dict[str, Tensor]] = {}
        self.made: CodingTables | None = None
        self.coders: dict[torch.device, LatentCoder] = {}
        self.coders_of: str | None = None
        self.lock = threading.RLock()

    def __reduce__(self) -> tuple:
        return _Coding, (self.given, self.scale_tables, self.mirrored)


class TablesMixin:
    """Part of :class:`HumanMachineMixin`; before a CompressionModel among the bases."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._coding = _Coding()
        self.register_load_state_dict_post_hook(_take_loaded_tables)
        self.register_state_dict_post_hook(_write_present_tables)

    @torch.compiler.disable
    def latent_coder(self) -> LatentCoder:
        """The exact entropy part of the present weights, made anew if they changed.

        Threads share it, and those that meet at its first use make it once.
        """
        family, coding = family_of(self), self._coding
        scale_tables = self._scale_tables()
        beside = (*parameters_of(family.bottleneck), *scale_tables.values())
        digest = digest_of_nets(family.nets(), beside)
        device = family.bottleneck.quantiles.device
        with coding.lock:
            if coding.coders_of != digest:
                coding.coders, coding.coders_of = {}, digest
            if device not in coding.coders:
                tables = self._present_tables()
                with torch.inference_mode(False), torch.no_grad():
                    coding.coders[device] = LatentCoder(family, tables, device)
            return coding.coders[device]

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
        """Of each conditional Gaussian: that in use, its own, or the default."""
        found = {}
        for name, module in entropy_models(self).items():
            if isinstance(module, GaussianConditional):
                own = module.scale_table if module.scale_table.numel() else None
                own = default_scale_table() if own is None else own
                found[name] = self._coding.scale_tables.get(name, own)
        return found

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
        coding = self._coding
        own = self._scale_tables()
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
        self._given_changed()
        return True

    def _given_changed(self) -> None:
        coding = self._coding
        coding.coders_of = None
        if self._tables_hidden():
            return
        for name, own in coding.given.buffers.items():
            module = self.get_submodule(name)
            for key, value in own.items():
                device = module._buffers[key].device
                module._buffers[key] = value.clone().to(device)
        coding.mirrored = coding.given.digest

    def hide_tables(self, hidden: bool = True) -> None:
        """Whether CompressAI's buffers stay empty and out of ``state_dict()``.

        For training frameworks: EMA and DDP cannot follow buffers that change size.
        After ``hide_tables(False)``, ``update()`` fills them.
        """
        coding = self._coding
        coding.scale_tables = {
            name: scales.detach().cpu().float()
            for name, scales in self._scale_tables().items()
        }
        coding.mirrored = None
        for module in entropy_models(self).values():
            names = table_buffers(module)
            for name in names:
                module._buffers[name] = module._buffers[name].new_empty(0)
            if hidden:
                module._non_persistent_buffers_set.update(names)
            else:
                module._non_persistent_buffers_set.difference_update(names)

    def _tables_hidden(self) -> bool:
        models = entropy_models(self).values()
        return any(m._non_persistent_buffers_set for m in models)

    def load_state_dict(
        self, state_dict: Mapping[str, Tensor], strict: bool = True
    ) -> NamedTuple:
        """CompressAI's; where tables are absent, those of the weights are used."""
        state_dict = dict(state_dict)
        for name, module in entropy_models(self).items():
            for key in table_buffers(module):  # CompressAI looks for each
                empty = module._buffers[key].new_empty(0)
                state_dict.setdefault(f"{name}.{key}", empty)
        try:
            return super().load_state_dict(state_dict, strict=strict)
        except BaseException:
            self._coding.given, self._coding.mirrored = None, _OTHER_WEIGHTS
            raise

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        # Called by torch's and by MMEngine's loader alike, before the parts' own.
        loading: dict[str, dict[str, Tensor]] = {}
        for name, module in entropy_models(self).items():
            for key in table_buffers(module):
                at = f"{prefix}{name}.{key}"
                value = state_dict.pop(at, module._buffers[key].new_empty(0))
                if value.numel():
                    loading.setdefault(name, {})[key] = value
                shape = value.shape
                if key in module._non_persistent_buffers_set:
                    shape = (0,)
                else:
                    state_dict[at] = value
                module._buffers[key] = module._buffers[key].new_empty(shape)
        coding = self._coding
        coding.given, coding.coders_of = None, None
        coding.mirrored = _OTHER_WEIGHTS if loading else None
        coding.loading = loading
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _take_loaded_tables(model: TablesMixin, incompatible_keys) -> None:
    """Tables that came with all of their weights are used as they are."""
    coding = model._coding
    loading, coding.loading = coding.loading, {}
    own = entropy_models(model)
    weights = [f"{n}.{key}" for n, m in own.items() for key, _ in m.named_parameters()]
    for missing in incompatible_keys.missing_keys:
        if missing.endswith(tuple(weights)):
            return
    if any(set(table_buffers(m)) != set(loading.get(n, ())) for n, m in own.items()):
        return
    buffers = {
        name: {key: _on_cpu(value) for key, value in loading[name].items()}
        for name in own
    }
    coding.scale_tables = {
        name: kept["scale_table"]
        for name, kept in buffers.items()
        if "scale_table" in kept
    }
    digest = digest_of(model, model._scale_tables())
    coding.given = CodingTables(digest, buffers)
    coding.mirrored = None if model._tables_hidden() else digest


def _on_cpu(value: Tensor) -> Tensor:
    value = value.detach().cpu().clone()
    return value.float() if value.is_floating_point() else value


def _write_present_tables(model: TablesMixin, state_dict, prefix, metadata) -> None:
    """A state dict never holds tables of other weights than its own."""
    coding = model._coding
    if coding.mirrored in (None, digest_of(model, model._scale_tables())):
        return
    for key, value in model.tables_state().items():
        at = f"{prefix}{key}"
        if at in state_dict:
            state_dict[at] = value.to(state_dict[at].device)
