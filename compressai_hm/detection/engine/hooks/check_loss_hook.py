"""Recording of losses, and stopping of trainings that are lost."""

import math
from collections import deque
from statistics import median

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import CheckpointHook, LoggerHook, RuntimeInfoHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

_LOST = 20
"""Steps in a row with nan or inf that stop a training with a loss scaler."""

_KNOWN, _BEYOND, _DIVERGED = 100, 1000, 50
"""A training has diverged if, in 50 steps in a row, a loss is more than 1000 times its
median of 100 steps."""


@HOOKS.register_module()
class CheckLossHook(RuntimeInfoHook):
    """Records the losses, and stops training where a term is nan or inf.

    It also stops a training that has diverged, that is, with a loss of a thousand times
    its usual value for 50 steps. Earlier checkpoints remain intact. With a loss scaler
    (float16), a step with nan or inf changes no weight, and a single batch may
    overflow. Training then stops only after 20 such steps in a row.

    It replaces MMEngine's RuntimeInfoHook (``default_hooks.runtime_info``), which waits
    for the GPU in every step. This hook looks at losses on a GPU before each log line,
    at the end of each epoch and before CheckpointHook saves.

    Raises:
        RuntimeError: On all ranks, when training stops.
        ValueError: If another hook records the losses as well.
    """

    def __init__(self):
        self.waiting: list[tuple[int, dict]] = []
        self.lost = 0
        self.known: dict[str, deque[float]] = {}
        self.beyond = 0

    def before_run(self, runner: Runner) -> None:
        super().before_run(runner)
        if sum(isinstance(hook, RuntimeInfoHook) for hook in runner.hooks) > 1:
            raise ValueError(
                "two hooks record the losses: CheckLossHook is to be "
                "default_hooks.runtime_info and no other"
            )

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        outputs = {key: torch.as_tensor(v) for key, v in (outputs or {}).items()}
        if outputs:
            values = {key: v.detach().float().mean() for key, v in outputs.items()}
            self.waiting.append((runner.iter + 1, values))
        on_cpu = all(value.is_cpu for value in outputs.values())
        if on_cpu or self._is_due(runner, batch_idx):
            self._check_waiting(runner)

    def _is_due(self, runner: Runner, batch_idx: int) -> bool:
        if self.end_of_epoch(runner.train_dataloader, batch_idx):
            return True
        if self.is_last_train_iter(runner):
            return True
        return any(
            (isinstance(hook, LoggerHook) and (batch_idx + 1) % hook.interval == 0)
            or (
                isinstance(hook, CheckpointHook)
                and not hook.by_epoch
                and self.every_n_train_iters(runner, hook.interval)
            )
            for hook in runner.hooks
        )

    def _check_waiting(self, runner: Runner) -> None:
        """Records and checks the losses of the steps since the last check."""
        waiting, self.waiting = self.waiting, []
        if not waiting:
            return
        values = [value for _, terms in waiting for value in terms.values()]
        on_device = [value for value in values if not value.is_cpu]
        numbers = iter(torch.stack(on_device).tolist() if on_device else ())
        steps = [
            (i, {k: float(v) if v.is_cpu else next(numbers) for k, v in terms.items()})
            for i, terms in waiting
        ]
        for _, terms in steps:
            for key, value in terms.items():
                runner.message_hub.update_scalar(f"train/{key}", value)
        steps = [(i, {k: v for k, v in t.items() if "loss" in k}) for i, t in steps]
        lost = torch.tensor([not all(map(math.isfinite, t.values())) for _, t in steps])
        # All ranks stop together, because the others would wait for one that stops.
        all_reduce(lost := lost.float(), "max")
        for (iteration, terms), bad in zip(steps, lost.tolist(), strict=True):
            if bad:
                self._report_lost(runner, iteration, terms)
            else:
                self.lost = 0
                self._check_divergence(iteration, terms)

    def _report_lost(self, runner: Runner, iteration: int, terms: dict) -> None:
        self.lost += 1
        message = f"{_describe(terms)} in iteration {iteration}"
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
            for key, value in terms.items():
                self.known[key].append(value)
        all_reduce(anywhere := torch.tensor(float(bool(far))), "max")
        self.beyond = self.beyond + 1 if anywhere else 0
        if self.beyond == _DIVERGED:
            key = next((key for key in far if key != "loss"), (far or ["loss"])[0])
            was = usual.get(key, math.nan)
            raise RuntimeError(
                f"training stops: it has diverged. {key} is {terms[key]:.4g} in "
                f"iteration {iteration}, {_DIVERGED} steps before it was about "
                f"{was:.4g}. Go on with a checkpoint of before, by --resume "
                "CHECKPOINT, and a lower learning rate"
            )


def _describe(terms: dict[str, float]) -> str:
    """Returns a text that names the terms of nan or inf."""
    bad = {k: v for k, v in terms.items() if v - v != 0}  # nan and inf
    bad = {k: v for k, v in bad.items() if k != "loss"} or bad  # the sum of all
    named = ", ".join(f"{k} is {v}" for k, v in bad.items())
    return named or "a loss of another rank is no number"
