"""Entropy coding tables in checkpoints."""

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..unwrap import unwrap_model


@HOOKS.register_module()
class SaveTablesHook(Hook):
    """Writes the entropy coder's tables into checkpoints if they stay the same.

    With a frozen entropy part, streams use the weights that training began with, and
    thus also their tables.
    """

    priority = "VERY_LOW"

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        model = unwrap_model(runner.model)
        frozen = "entropy" not in model.trainable
        if frozen and model.codec.learned:
            for key, value in model.codec.tables_state().items():
                checkpoint["state_dict"][f"codec.{key}"] = value
