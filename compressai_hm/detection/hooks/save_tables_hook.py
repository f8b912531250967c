from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class SaveTablesHook(Hook):
    """Writes the entropy coder's tables into checkpoints where they do not change.

    With a frozen entropy part the streams are those of the weights that training began
    with, and so are the tables.
    """

    priority = "VERY_LOW"

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        frozen = "entropy" not in model.trainable
        if frozen and model.codec.learned:
            for key, value in model.codec.tables_state().items():
                checkpoint["state_dict"][f"codec.{key}"] = value
