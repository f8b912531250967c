"""Training at a given rate."""

import math

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ....models.human_machine import picture_bits
from ..unwrap import unwrap_model

_EVERY = 20
_GAIN = 0.02


@HOOKS.register_module()
class HoldRateHook(Hook):
    """Scales λ_h and λ_m together, so that training ends at a given rate.

    Their ratio, which decides between people and machines, stays that of the config.
    With this hook, λ_m alone moves quality from people to machines at one rate. The
    scale is logged, and restored by a resumed run.

    In training the rate is only estimated. Every 20th batch is therefore coded, and its
    rate corrects the estimates.

    Args:
        bpp: The coded rate of training pictures, in bits per pixel.

    Raises:
        ValueError: If ``bpp`` is not positive; in training, if λ does not affect the
            rate or ``model.steps`` trains for many rates.
    """

    def __init__(self, bpp: float):
        if not (isinstance(bpp, (int, float)) and bpp > 0):
            raise ValueError(f"bpp must be positive, got {bpp}")
        self.bpp = bpp

    def before_train(self, runner: Runner) -> None:
        self.model = unwrap_model(runner.model)
        if self.model.steps is not None:
            raise ValueError(
                "HoldRateHook holds one rate, and model.steps trains for many: take one"
            )
        self.lambdas = self.model.lambda_human, self.model.lambda_machine
        if self.model.stream_frozen or not any(self.lambdas):
            raise ValueError(
                "HoldRateHook needs a rate that λ moves: the stream is frozen, or "
                "lambda_human and lambda_machine are both 0"
            )

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        scale = _get(runner, "scale", 1.0)
        human, machine = self.lambdas
        self.model.lambda_human = scale * human
        self.model.lambda_machine = scale * machine
        runner.message_hub.update_scalar("train/lambda_scale", scale)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        estimate = torch.as_tensor(outputs["loss_rate"]).detach().clone()
        all_reduce(estimate, "mean")
        rate = float(estimate)
        if not math.isfinite(rate):
            return  # skip the step, so that the mean stays finite
        if runner.iter % _EVERY == 0:
            coded = self._code_batch(data_batch).to(estimate)
            all_reduce(coded, "mean")
            _update_mean(runner, "coded_share", float(coded) / rate, 0.3)
        rate *= _get(runner, "coded_share", 1.0)
        rate = _update_mean(runner, "bpp", rate, 0.1)
        # The limit keeps a start far from the rate from overshooting.
        error = max(-1.0, min(1.0, math.log(self.bpp / rate)))
        _set(runner, "scale", _get(runner, "scale", 1.0) * math.exp(_GAIN * error))

    @torch.no_grad()
    def _code_batch(self, data_batch: dict) -> torch.Tensor:
        """Returns the coded rate of a batch in bpp."""
        data = self.model.data_preprocessor(data_batch, True)
        sizes = [tuple(s.img_shape[:2]) for s in data["data_samples"]]
        codec = self.model.codec.eval()
        latent = codec.code_latent(codec.analyze(data["inputs"]))
        self.model.train()
        bits = picture_bits(latent["likelihoods"], sizes)
        return (bits / bits.new_tensor([h * w for h, w in sizes])).mean()

    def after_train(self, runner: Runner) -> None:
        self.model.lambda_human, self.model.lambda_machine = self.lambdas


# MMEngine's checkpoints hold the message hub, so a resumed run has these values.


def _get(runner: Runner, name: str, default: float) -> float:
    return runner.message_hub.runtime_info.get(f"hold_rate/{name}", default)


def _set(runner: Runner, name: str, value: float) -> float:
    runner.message_hub.update_info(f"hold_rate/{name}", value)
    return value


def _update_mean(runner: Runner, name: str, value: float, share: float) -> float:
    """Updates and returns a running mean."""
    before = _get(runner, name, value)
    return _set(runner, name, (1 - share) * before + share * value)
