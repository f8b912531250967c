from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS

from ...codecs import HumanMachineMixin


@HOOKS.register_module()
class RefreshTablesHook(Hook):
    """Has the entropy coder's tables rebuilt before and after each evaluation.

    Runs after EMAHook has put the averaged weights in place, or the others back, which
    changes them in a way that the model cannot see.
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

    def _refresh(self, runner) -> None:
        model = runner.model
        if is_model_wrapper(model):
            model = model.module
        if isinstance(model.codec, HumanMachineMixin):
            model.codec.mark_stale()
