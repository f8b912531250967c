"""The tables of a model's entropy coder: made from its weights, and kept in step.

They are derived state: tables of other weights than the present ones are rebuilt before
anything is coded. But tables that came with a checkpoint are used as they are for as
long as its weights are, for its streams were coded with them.

Training frameworks must not see them, as their size changes: there the buffers are
empty (``hide_tables``), and tables that came with a checkpoint are kept beside them.
"""

import copy
import zlib

import torch
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from compressai.entropy_models.entropy_models import EntropyModel
from compressai.models.base import get_scale_table
from torch import Tensor

from .entropy import LatentCoder

TABLE_BUFFERS = ("_offset", "_quantized_cdf", "_cdf_length", "scale_table")
"""Buffers of CompressAI's entropy models that are derived from the weights."""


class TablesMixin:
    """Part of :class:`HumanMachineMixin`; before a CompressionModel among the bases."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._marks = 0
        self._tables_of = None
        self._coder = self._coder_of = None
        self._kept: dict[str, EntropyModel] | None = None
        self._kept_of = None
        self._given_tables: dict[tuple[str, str], Tensor] = {}
        self.register_load_state_dict_post_hook(_take_loaded_tables)

    def latent_coder(self) -> LatentCoder:
        """The exact entropy part of the present weights, made anew if they changed."""
        if self._coder is None or self._coder_of != self.weights_state():
            tables = None
            if self._tables_hidden():
                tables = self._hidden_tables()
            else:
                self.ensure_tables()
            self._coder = LatentCoder(self, tables)
            self._coder_of = self.weights_state()
        return self._coder.to(next(self.parameters()).device)

    def _hidden_tables(self) -> dict[str, EntropyModel]:
        if self._kept is None or self._kept_of != self._digest():
            self._keep(self._fresh_tables())
        return self._kept

    def _keep(self, tables: dict[str, EntropyModel]) -> None:
        self._kept, self._kept_of = tables, self._digest()
        self._coder = None

    def _digest(self) -> int:
        """Of all that tables are made from, by value."""
        digest = 0
        for module in self._entropy_models():
            for parameter in module.parameters():
                values = parameter.detach().cpu().double().contiguous()
                digest = zlib.crc32(values.numpy(), digest)
        return digest

    def hidden_tables_state(self) -> dict[str, Tensor]:
        """The hidden tables as ``state_dict()`` would give them."""
        return {
            f"{name}.{key}": module._buffers[key]
            for name, module in self._hidden_tables().items()
            for key in TABLE_BUFFERS
            if key in module._buffers
        }

    def _fresh_tables(self, scale_table=None) -> dict[str, EntropyModel]:
        """Copies of the entropy models with tables of the present weights.

        Made on the CPU in float32, whatever the model's device and the default dtype:
        tables of the same weights are the same.
        """
        dtype = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            return {
                name: _with_tables(copy.deepcopy(module).cpu().float(), scale_table)
                for name, module in self._named_entropy_models()
            }
        finally:
            torch.set_default_dtype(dtype)

    def update(
        self, scale_table=None, force: bool = False, update_quantiles: bool = False
    ) -> bool:
        """CompressAI's: rebuilds the tables of the entropy coder, if they are stale."""
        if not force and self._tables_of == self._digest():
            return False
        if update_quantiles:
            for module in self._entropy_models():
                if isinstance(module, EntropyBottleneck):
                    module._update_quantiles()
        self._adopt(self._fresh_tables(scale_table))
        return True

    def ensure_tables(self) -> None:
        """Rebuilds the tables if they are of other weights."""
        if self._tables_of != self._digest():
            self.update(force=True)

    def weights_state(self) -> tuple[int, int]:
        """Changes where the entropy part may have: its coder is then made anew.

        Not with changes that torch does not count, through ``.data`` or by a fused
        optimizer: see :meth:`mark_stale`, which ``train()`` and ``eval()`` call.
        """
        tables = [
            module._buffers[key]
            for module in self._entropy_models()
            for key in TABLE_BUFFERS
            if key in module._buffers
        ]
        versions = (
            (id(x), 0 if x.is_inference() else x._version)
            for x in (*self._entropy_parameters(), *tables)
        )
        return self._marks, hash(tuple(versions))

    def mark_stale(self) -> None:
        """Says that the weights may have changed."""
        self._marks += 1

    def __getstate__(self):
        return {**self.__dict__, "_coder": None}

    def _apply(self, *args, **kwargs):
        super()._apply(*args, **kwargs)
        self.mark_stale()
        return self

    def hide_tables(self, hidden: bool = True) -> None:
        """Whether ``state_dict()`` leaves the tables out, for training frameworks.

        Hiding also empties them: EMA and DDP cannot follow buffers that change size.
        Tables that are fresh are kept beside them, and come back from there.
        """
        state = self._digest()
        if self._tables_of == state:
            tables = {
                name: copy.deepcopy(module).cpu()
                for name, module in self._named_entropy_models()
            }
        else:
            tables = self._kept if self._kept_of == state else None
        self._empty_tables(hidden)
        if tables and hidden:
            self._keep(tables)
        elif tables:
            self._adopt(tables)

    def _empty_tables(self, hidden: bool) -> None:
        for module in self._entropy_models():
            names = [name for name in TABLE_BUFFERS if name in module._buffers]
            for name in names:
                module._buffers[name] = module._buffers[name].new_empty(0)
            if hidden:
                module._non_persistent_buffers_set.update(names)
            else:
                module._non_persistent_buffers_set.difference_update(names)
        self._tables_of = None

    def _adopt(self, tables: dict[str, EntropyModel]) -> None:
        for name, module in tables.items():
            own = self.get_submodule(name)
            for key in TABLE_BUFFERS:
                if key in own._buffers:
                    device = own._buffers[key].device
                    own._buffers[key] = module._buffers[key].to(device)
        self._tables_of = self._digest()
        self._coder = None

    def _tables_hidden(self) -> bool:
        return any(m._non_persistent_buffers_set for m in self._entropy_models())

    def _entropy_parameters(self) -> list[torch.nn.Parameter]:
        return [
            p
            for name, p in self.named_parameters()
            if not name.startswith(("g_a.", "g_s.", "g_t."))
        ]

    def _entropy_models(self) -> list[EntropyModel]:
        return [module for _, module in self._named_entropy_models()]

    def _named_entropy_models(self) -> list[tuple[str, EntropyModel]]:
        return [(n, m) for n, m in self.named_modules() if isinstance(m, EntropyModel)]

    def train(self, mode: bool = True):
        self.mark_stale()
        return super().train(mode)

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        # Called by torch's and by MMEngine's loader alike, before the parts' own.
        given = {}
        for name, module in self._named_entropy_models():
            for key in set(TABLE_BUFFERS) & set(module._buffers):
                if f"{prefix}{name}.{key}" not in state_dict:
                    continue
                if key in module._non_persistent_buffers_set:
                    given[name, key] = state_dict.pop(f"{prefix}{name}.{key}")
                else:
                    shape = state_dict[f"{prefix}{name}.{key}"].shape
                    module._buffers[key] = module._buffers[key].new_empty(shape)
        self._tables_of = self._kept_of = None  # also if this fails
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self.mark_stale()
        self._given_tables = given


def _take_loaded_tables(model: TablesMixin, incompatible_keys) -> None:
    """Tables that came with all of their weights are used as they are."""
    given, model._given_tables = model._given_tables, {}
    own = model._named_entropy_models()
    needed = [f"{n}.{key}" for n, m in own for key, _ in m.named_parameters()]
    missing = incompatible_keys.missing_keys
    if any(key.endswith(name) for key in missing for name in needed):
        return
    if given:
        tables = {name: copy.deepcopy(module).cpu() for name, module in own}
        for (name, key), value in given.items():
            tables[name]._buffers[key] = value.detach().cpu().clone()
        if all(m._quantized_cdf.numel() for m in tables.values()):
            model._keep(tables)
        return
    lacking = {key.split(".")[-1] for key in missing} & set(TABLE_BUFFERS)
    if not lacking and all(
        m._quantized_cdf.numel() and not m._non_persistent_buffers_set for _, m in own
    ):
        model._tables_of = model._digest()


def _with_tables(model: EntropyModel, scale_table: Tensor | None) -> EntropyModel:
    if isinstance(model, GaussianConditional):
        if scale_table is None:
            own = model.scale_table
            scale_table = own if own.numel() else get_scale_table()
        model.update_scale_table(scale_table, force=True)
    else:
        model.update(force=True)
    return model
