from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS

from ...codecs import HumanMachineMixin


@HOOKS.register_module()
class RefreshTablesHook(Hook):
    """Keeps the entropy coder's tables in step with the weights.

    They are looked at before and after each evaluation: EMAHook has then put the
    averaged weights in place, or the others back, in a way that the model cannot see.
    Where the entropy part is frozen, checkpoints hold the tables.
    """

    priority = "VERY_LOW"

    def before_val_epoch(self, runner) -> None:
        self._refresh(runner)

    def before_test_epoch(self, runner) -> None:
        self._refresh(runner)

    def after_val_epoch(self, runner, metrics=None) -> None:
        self._refresh(runner)

    def after_test_epoch(self, runner, metrics=None) -> None:
        self._refresh(runner)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        model = _unwrapped(runner)
        if (
            isinstance(model.codec, HumanMachineMixin)
            and "entropy" not in model.trainable
        ):
            for key, value in model.codec.hidden_tables_state().items():
                checkpoint["state_dict"][f"codec.{key}"] = value

    def _refresh(self, runner) -> None:
        model = _unwrapped(runner)
        if isinstance(model.codec, HumanMachineMixin):
            model.codec.mark_stale()


def _unwrapped(runner):
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
