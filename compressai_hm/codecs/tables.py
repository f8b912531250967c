"""The tables of a model's entropy coder: made from its weights, and kept in step.

They are derived state. ``train()``, loading and any other change of the entropy part
make them stale, and stale tables are rebuilt before anything is coded; but tables that
came with a checkpoint are used as they are, for its streams were coded with them.
"""

import copy

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
        self.register_load_state_dict_post_hook(_take_loaded_tables)

    def latent_coder(self) -> LatentCoder:
        """The exact entropy part of the present weights, made anew if they changed."""
        if self._coder is None or self._coder_of != self.weights_state():
            tables = None
            if self._tables_hidden():
                tables = self._fresh_tables()
            else:
                self.ensure_tables()
            self._coder = LatentCoder(self, tables)
            self._coder_of = self.weights_state()
        return self._coder.to(next(self.parameters()).device)

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
                for name, module in self.named_modules()
                if isinstance(module, EntropyModel)
            }
        finally:
            torch.set_default_dtype(dtype)

    def update(
        self, scale_table=None, force: bool = False, update_quantiles: bool = False
    ) -> bool:
        """CompressAI's: rebuilds the tables of the entropy coder, if they are stale."""
        if not force and self._tables_of == self.weights_state():
            return False
        if update_quantiles:
            for module in self._entropy_models():
                if isinstance(module, EntropyBottleneck):
                    module._update_quantiles()
        fresh = self._fresh_tables(scale_table)
        for name, module in fresh.items():
            own = self.get_submodule(name)
            for key in TABLE_BUFFERS:
                if key in own._buffers:
                    device = own._buffers[key].device
                    own._buffers[key] = module._buffers[key].to(device)
        self._tables_of = self.weights_state()
        self._coder = None
        return True

    def ensure_tables(self) -> None:
        """Rebuilds the tables if the weights may have changed since they were made."""
        if self._tables_of != self.weights_state():
            self.update(force=True)

    def weights_state(self) -> tuple[int, int]:
        """Changes with training, loading and other changes of the entropy part.

        Not with a change through ``.data``, as of MMEngine's EMAHook: see
        :meth:`mark_stale`.
        """
        entropy = [
            p
            for name, p in self.named_parameters()
            if not name.startswith(("g_a.", "g_s.", "g_t."))
        ]
        tables = [
            module._buffers[key]
            for module in self._entropy_models()
            for key in TABLE_BUFFERS
            if key in module._buffers
        ]
        versions = (
            (id(x), 0 if x.is_inference() else x._version) for x in (*entropy, *tables)
        )
        return self._marks, hash(tuple(versions))

    def mark_stale(self) -> None:
        """Says that the weights may have changed."""
        self._marks += 1

    # Copies and moves keep tables that are fresh.

    def __getstate__(self):
        fresh = self._tables_of == self.weights_state()
        return {**self.__dict__, "_tables_of": fresh, "_coder": None}

    def __setstate__(self, state):
        super().__setstate__(state)
        self._tables_of = self.weights_state() if state["_tables_of"] else None

    def _apply(self, *args, **kwargs):
        fresh = self._tables_of == self.weights_state()
        super()._apply(*args, **kwargs)
        self._tables_of = self.weights_state() if fresh else None
        self._coder = None
        return self

    def hide_tables(self, hidden: bool = True) -> None:
        """Whether ``state_dict()`` leaves the tables out, for training frameworks.

        Hiding also empties them: EMA and DDP cannot follow buffers that change size.
        """
        for module in self._entropy_models():
            tables = [name for name in TABLE_BUFFERS if name in module._buffers]
            if hidden:
                module._non_persistent_buffers_set.update(tables)
                for name in tables:
                    module._buffers[name] = module._buffers[name].new_empty(0)
            else:
                module._non_persistent_buffers_set.difference_update(tables)
        if hidden:
            self.mark_stale()

    def _tables_hidden(self) -> bool:
        return any(m._non_persistent_buffers_set for m in self._entropy_models())

    def _entropy_models(self) -> list[EntropyModel]:
        return [m for m in self.modules() if isinstance(m, EntropyModel)]

    def train(self, mode: bool = True):
        if mode:
            self.mark_stale()
        return super().train(mode)

    def _load_from_state_dict(self, *args, **kwargs):
        # Called by torch's and by MMEngine's loader alike.
        super()._load_from_state_dict(*args, **kwargs)
        self.mark_stale()


def _take_loaded_tables(model: TablesMixin, incompatible_keys) -> None:
    """Tables that came with the weights are used as they are."""
    missing = {key.split(".")[-1] for key in incompatible_keys.missing_keys}
    models = model._entropy_models()
    if not missing & set(TABLE_BUFFERS) and all(
        m._quantized_cdf.numel() and not m._non_persistent_buffers_set for m in models
    ):
        model._tables_of = model.weights_state()


def _with_tables(model: EntropyModel, scale_table: Tensor | None) -> EntropyModel:
    if isinstance(model, GaussianConditional):
        if scale_table is None:
            own = model.scale_table
            scale_table = own if own.numel() else get_scale_table()
        model.update_scale_table(scale_table, force=True)
    else:
        model.update(force=True)
    return model
