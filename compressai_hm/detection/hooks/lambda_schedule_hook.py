from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class LambdaScheduleHook(Hook):
    """Moves λ_h or λ_m linearly from a factor of its configured value to the value.

    Args:
        name: "lambda_human" or "lambda_machine".
        start_factor: Factor in the first iteration; over 0, as a part that a zero λ
            does not reach would be frozen for good. Defaults to 0.1.
        epochs: Epochs after which the configured value is reached. Defaults to 1.

    Raises:
        ValueError: For another name, or a factor or number of epochs that is not
            positive.
    """

    def __init__(self, name: str, start_factor: float = 0.1, epochs: int = 1):
        if name not in ("lambda_human", "lambda_machine"):
            raise ValueError(
                f"name must be 'lambda_human' or 'lambda_machine', got {name!r}"
            )
        if not (start_factor > 0 and epochs > 0):
            raise ValueError(
                f"start_factor and epochs must be positive, got {start_factor}, "
                f"{epochs}"
            )
        self.name = name
        self.start_factor = start_factor
        self.epochs = epochs

    def before_train(self, runner: Runner) -> None:
        self.model = runner.model
        if is_model_wrapper(self.model):
            self.model = self.model.module
        self.value = getattr(self.model, self.name)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        done = min(1.0, runner.iter / (self.epochs * len(runner.train_dataloader)))
        factor = self.start_factor + (1 - self.start_factor) * done
        setattr(self.model, self.name, factor * self.value)

    def after_train(self, runner: Runner) -> None:
        setattr(self.model, self.name, self.value)
