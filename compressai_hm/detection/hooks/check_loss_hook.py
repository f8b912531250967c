from collections import deque
from statistics import median

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import LoggerHook, RuntimeInfoHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

_LOST = 20
"""Steps without a number in a row that stop a training with a loss scaler."""

_KNOWN, _BEYOND, _DIVERGED = 100, 1000, 50
"""A training has diverged when a loss is more than 1000 times its median of 100 steps
in 50 steps in a row."""


@HOOKS.register_module()
class CheckLossHook(RuntimeInfoHook):
    """Records the losses, and stops training where one is no number; names the term.

    It stops a training that has diverged as well: a loss of a thousand times what it
    was, for 50 steps. The checkpoints of before are whole. With a loss scaler (float16)
    a step without a number changes no weight, and a single batch may overflow: there,
    20 in a row stop it.

    It stands in for MMEngine's RuntimeInfoHook (``default_hooks.runtime_info``), which
    waits for a GPU in every step. Of losses on a GPU this one asks for a log line, a
    checkpoint and at the end of an epoch.

    Raises:
        RuntimeError: On all ranks.
    """

    def __init__(self):
        self.interval = 1
        self.waiting: list[tuple[int, dict]] = []
        self.lost = 0
        self.known: dict[str, deque[float]] = {}
        self.beyond = 0

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        found = [h.interval for h in runner.hooks if isinstance(h, LoggerHook)]
        self.interval = min(found, default=1)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        outputs = {key: torch.as_tensor(v) for key, v in (outputs or {}).items()}
        if not outputs:
            return
        values = {key: v.detach().float().mean() for key, v in outputs.items()}
        self.waiting.append((runner.iter + 1, values))
        on_cpu = all(value.is_cpu for value in values.values())
        if on_cpu or (batch_idx + 1) % self.interval == 0:
            self._look(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        self._look(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self._look(runner)

    def _look(self, runner: Runner) -> None:
        """Records and checks the losses of the steps since it last looked."""
        waiting, self.waiting = self.waiting, []
        if not waiting:
            return
        values = torch.stack([v for _, terms in waiting for v in terms.values()])
        found = torch.stack([(~values.isfinite()).float(), values.nan_to_num()])
        # A rank that stopped alone would leave the others waiting.
        all_reduce(found, "max")
        columns = iter(torch.cat([values[None], found]).t().tolist())
        for iteration, terms in waiting:
            own, lost, largest = {}, False, {}
            for key in terms:
                own[key], bad, most = next(columns)
                runner.message_hub.update_scalar(f"train/{key}", own[key])
                if "loss" in key:
                    lost, largest[key] = lost or bad, most
            if lost:
                losses = {key: own[key] for key in largest}
                self._tell_lost(runner, iteration, losses)
            elif largest:
                self.lost = 0
                self._check_divergence(iteration, largest)

    def _tell_lost(self, runner: Runner, iteration: int, terms: dict) -> None:
        self.lost += 1
        message = f"{_named(terms)} in iteration {iteration}"
        if getattr(runner.optim_wrapper, "loss_scaler", None) and self.lost < _LOST:
            runner.logger.warning(f"{message}: this step is skipped")
            return
        listed = ", ".join(f"{key} {value:.4g}" for key, value in terms.items())
        raise RuntimeError(
            f"training stops: {message}. The checkpoints of before are whole; go on "
            f"with a lower learning rate, or without mixed precision. Terms: {listed}"
        )

    def _check_divergence(self, iteration: int, terms: dict[str, float]) -> None:
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
                f"iteration {iteration}, {_DIVERGED} steps before it was about "
                f"{usual[key]:.4g}. Go on with a checkpoint of before, by --resume "
                "CHECKPOINT, and a lower learning rate"
            )


def _named(terms: dict[str, float]) -> str:
    bad = {k: v for k, v in terms.items() if v - v != 0}  # of nan and inf
    bad = {k: v for k, v in bad.items() if k != "loss"} or bad  # their sum
    named = ", ".join(f"{k} is {v}" for k, v in bad.items())
    return named or "a loss of another rank is no number"
