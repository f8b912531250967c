from collections import deque
from statistics import median

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

_LOST = 20
"""Steps without a number in a row that stop a training with a loss scaler."""

_KNOWN, _BEYOND, _DIVERGED = 100, 1000, 50
"""A training has diverged when a loss is more than 1000 times its median of 100 steps
in 50 steps in a row."""


@HOOKS.register_module()
class CheckLossHook(Hook):
    """Stops training in the step in which a loss is no number, and names the term.

    It stops a training that has diverged as well: a loss of a thousand times what it
    was, for 50 steps. The checkpoints of before are whole. With a loss scaler (float16)
    a step without a number changes no weight, and a single batch may overflow: there,
    20 in a row stop it.

    Raises:
        RuntimeError: On all ranks.
    """

    priority = "ABOVE_NORMAL"  # before anything is kept or saved

    def __init__(self):
        self.lost = 0
        self.known: dict[str, deque[float]] = {}
        self.beyond = 0

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
        largest = torch.cat([bad[None], values.nan_to_num()])
        all_reduce(largest, "max")
        bad, *found = largest.tolist()
        if not bad:
            self.lost = 0
            self._check_divergence(runner, dict(zip(losses, found, strict=True)))
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

    def _check_divergence(self, runner: Runner, terms: dict[str, float]) -> None:
        usual = {
            key: median(known)
            for key in terms
            if len(known := self.known.setdefault(key, deque(maxlen=_KNOWN))) == _KNOWN
        }
        far = [key for key in usual if terms[key] > _BEYOND * usual[key] > 0]
        if not far:
            self.beyond = 0
            for key, value in terms.items():
                self.known[key].append(value)
            return
        self.beyond += 1
        if self.beyond == _DIVERGED:
            key = next((key for key in far if key != "loss"), far[0])
            raise RuntimeError(
                f"training stops: it has diverged. {key} is {terms[key]:.4g} in "
                f"iteration {runner.iter + 1}, {_DIVERGED} steps before it was about "
                f"{usual[key]:.4g}. Go on with a checkpoint of before, by --resume "
                "CHECKPOINT, and a lower learning rate"
            )


def _named(terms: dict[str, float]) -> str:
    bad = {k: v for k, v in terms.items() if v - v != 0}  # of nan and inf
    bad = {k: v for k, v in bad.items() if k != "loss"} or bad  # their sum
    named = ", ".join(f"{k} is {v}" for k, v in bad.items())
    return named or "a loss of another rank is no number"
