import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

_LOST = 20


@HOOKS.register_module()
class CheckLossHook(Hook):
    """Stops training in the step in which a loss is no number, and names the term.

    The checkpoints of before are whole. With a loss scaler (float16) such a step
    changes no weight, and a single batch may overflow: there, 20 in a row stop it.

    Raises:
        RuntimeError: On all ranks.
    """

    priority = "ABOVE_NORMAL"  # before anything is kept or saved

    def __init__(self):
        self.lost = 0

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        losses = {
            key: torch.as_tensor(value).detach().float().mean()
            for key, value in (outputs or {}).items()
            if "loss" in key
        }
        if not losses:
            return
        values = torch.stack(list(losses.values()))
        bad = (~torch.isfinite(values)).any().float()
        # A rank that stopped alone would leave the others waiting.
        all_reduce(bad, "max")
        if not bad:
            self.lost = 0
            return
        self.lost += 1
        terms = dict(zip(losses, values.tolist(), strict=True))
        message = f"{_named(terms)} in iteration {runner.iter + 1}"
        if getattr(runner.optim_wrapper, "loss_scaler", None) and self.lost < _LOST:
            runner.logger.warning(f"{message}: this step is skipped")
            return
        listed = ", ".join(f"{key} {value:.4g}" for key, value in terms.items())
        raise RuntimeError(
            f"training stops: {message}. The checkpoints of before are whole; go on "
            f"with a lower learning rate, or without mixed precision. Terms: {listed}"
        )


def _named(terms: dict[str, float]) -> str:
    bad = {k: v for k, v in terms.items() if v - v != 0}  # of nan and inf
    bad = {k: v for k, v in bad.items() if k != "loss"} or bad  # their sum
    named = ", ".join(f"{k} is {v}" for k, v in bad.items())
    return named or "a loss of another rank is no number"
