import math

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ...codecs import picture_bits

_EVERY = 20
_GAIN = 0.02


@HOOKS.register_module()
class HoldRateHook(Hook):
    """Scales λ_h and λ_m together, so that training ends at a rate given beforehand.

    Their ratio, and so what the bits are spent on, stays the config's: with this hook
    λ_m is a dial from people to machines at one rate. The scale is logged, and resumes.

    Training knows an estimate of the rate only; every 20th batch is coded as well, to
    know what the estimate is worth.

    Args:
        bpp: The coded rate of training pictures.

    Raises:
        ValueError: If it is not positive; in training, if there is nothing to hold.
    """

    def __init__(self, bpp: float):
        if not (isinstance(bpp, (int, float)) and bpp > 0):
            raise ValueError(f"bpp must be positive, got {bpp}")
        self.bpp = bpp

    def before_train(self, runner: Runner) -> None:
        self.model = runner.model
        if is_model_wrapper(self.model):
            self.model = self.model.module
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
            return  # the step is lost, the rate need not be
        if runner.iter % _EVERY == 0:
            coded = self._coded(data_batch).to(estimate)
            all_reduce(coded, "mean")
            _follow(runner, "coded_share", float(coded) / rate, 0.3)
        rate *= _get(runner, "coded_share", 1.0)
        rate = _follow(runner, "bpp", rate, 0.1)
        # Far-off starts must not drive it beyond what can be taken back.
        error = max(-1.0, min(1.0, math.log(self.bpp / rate)))
        _set(runner, "scale", _get(runner, "scale", 1.0) * math.exp(_GAIN * error))

    @torch.no_grad()
    def _coded(self, data_batch: dict) -> torch.Tensor:
        """bpp of a batch as files would have it."""
        data = self.model.data_preprocessor(data_batch, True)
        sizes = [tuple(s.img_shape[:2]) for s in data["data_samples"]]
        codec = self.model.codec.eval()
        latent = codec.code_latent(codec.analyse(data["inputs"]))
        self.model.train()
        bits = picture_bits(latent["likelihoods"], sizes)
        return (bits / bits.new_tensor([h * w for h, w in sizes])).mean()

    def after_train(self, runner: Runner) -> None:
        self.model.lambda_human, self.model.lambda_machine = self.lambdas


# MMEngine's checkpoints hold the message hub, so that a run resumes with these.


def _get(runner: Runner, name: str, default: float) -> float:
    return runner.message_hub.runtime_info.get(f"hold_rate/{name}", default)


def _set(runner: Runner, name: str, value: float) -> float:
    runner.message_hub.update_info(f"hold_rate/{name}", value)
    return value


def _follow(runner: Runner, name: str, value: float, share: float) -> float:
    """A running mean."""
    before = _get(runner, name, value)
    return _set(runner, name, (1 - share) * before + share * value)
