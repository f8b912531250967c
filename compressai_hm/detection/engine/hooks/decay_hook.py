"""A learning rate that is constant, and falls at the end of training."""

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class DecayHook(Hook):
    """Keeps the learning rate constant, and lowers it to 0 at the end of training.

    The factor depends only on the iteration and the length of the training. A training
    that is resumed with more epochs continues at the full rate, and one that is resumed
    with fewer epochs lowers it earlier. Any checkpoint from before the decay can
    therefore be finished at any time. (MMEngine's schedulers keep the length that they
    were saved with.)

    Args:
        share: The part of the training over which the rate falls. Defaults to 0.2.
        warmup: Iterations at the start over which the rate rises. Defaults to 100.

    Raises:
        ValueError: If ``share`` is not from 0 to 1, or ``warmup`` is negative.
    """

    priority = "LOW"  # after schedulers

    def __init__(self, share: float = 0.2, warmup: int = 100):
        if not 0 <= share <= 1 or warmup < 0:
            raise ValueError(
                f"DecayHook: share must be 0 to 1 and warmup 0 or more, got {share}, "
                f"{warmup}"
            )
        self.share, self.warmup = share, warmup

    def before_train(self, runner: Runner) -> None:
        for group in runner.optim_wrapper.param_groups:
            group.setdefault("initial_lr", group["lr"])

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        length, done = runner.train_loop.max_iters, runner.iter
        factor = min(1.0, (done + 1) / (self.warmup + 1))
        if self.share:
            factor = min(factor, (length - done) / (self.share * length))
        for group in runner.optim_wrapper.param_groups:
            group["lr"] = factor * group["initial_lr"]
