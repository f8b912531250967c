"""Content-adaptive encoding: better symbols for one picture and the same decoder.

Gradient steps move the y of a picture to reduce a loss of what it decodes to. Weights,
tables and decoder do not change, so the file decodes like any other (J. Campos et al.,
"Content Adaptive Optimization for Neural Image Compression", CVPR workshops 2019).
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ..entropy import QuantSteps
from ..entropy.steps import FIRST, LAST, OCTAVE, step_values
from ..geometry import Y_STRIDE
from ..models.human_machine import HumanMachineMixin, picture_bits

Loss = Callable[[dict[str, Any]], Tensor]

_LR = 0.02, 0.002
"""First and last learning rate of Adam, in quantization steps."""

_CURVATURE = 12 / math.log(2)
"""Second derivative of the distortion by (y - y_hat) / step, in bits per latent.

The error of a uniform quantizer is step^2 / 12, and halving the step costs a bit. If
both are in balance, as in :func:`human_loss`, this is the second derivative.
"""


def refine(
    codec: HumanMachineMixin,
    x: Tensor,
    loss: Loss | None,
    iterations: int,
    step: float | Tensor | QuantSteps | None = None,
) -> Tensor:
    """Moves y of a picture to a smaller loss.

    Each iteration computes the coder's y_hat, rate and loss. The best y of all
    iterations is returned, so the loss is never larger than without refinement. The
    gradient goes straight through the rounding and includes the pull of y_hat toward y,
    which would move y over a threshold and beyond. We therefore subtract the gradient
    caused by rounding, except in the padding, which is not visible. In the gradient of
    the rate, noise replaces the rounding; its seed is fixed, so that files can be made
    again.

    Args:
        codec: The codec; it is not changed.
        x: RGB in [0, 1], ``(1, 3, H, W)``.
        loss: Function from the result of ``codec.code_latent`` to a scalar in any unit.
            None is :func:`human_loss`.
        iterations: Iterations of Adam.
        step: Quantization step, as for :func:`compressai_hm.encode`, which needs the
            same. Defaults to None, the codec's ``step``.

    Returns:
        y, ``(1, M, h, w)``, for :func:`compressai_hm.encode`.

    Raises:
        ValueError: If iterations is negative, the codec has no latent, or a step or map
            is invalid.
    """
    if iterations < 0:
        raise ValueError(f"iterations must be 0 or more, got {iterations}")
    if not codec.learned:
        raise ValueError(f"{type(codec).__name__} has no latent to refine")
    size = tuple(x.shape[-2:])
    steps = [QuantSteps.nearest(codec.step if step is None else step, size)]

    with _random_state_kept(x.device), _enable_gradients_for_y(codec):
        with torch.no_grad():
            y = best = codec.analyze(x)
        if not iterations:
            return best
        curvature = None
        if loss is None:
            loss = human_loss(codec, x, y, steps[0])
            curvature = _CURVATURE / math.prod(size)
        if loss is None:
            return best
        least, width = math.inf, _measure_step_width(codec, y, steps)
        moved = torch.zeros_like(y, requires_grad=True)
        optimizer = torch.optim.Adam([moved], _LR[0])
        schedule = torch.optim.lr_scheduler.LinearLR(
            optimizer, 1.0, _LR[1] / _LR[0], iterations
        )
        seen = [slice(math.ceil(side / Y_STRIDE)) for side in size]
        _seed(x.device)
        for count in range(iterations + 1):
            now = y + moved * width
            latent = codec.code_latent(now, steps, gradients=True)
            cost = loss(latent)
            if cost.item() < least:
                best, least = now.detach(), cost.item()
            if count < iterations:
                (gradient,) = torch.autograd.grad(cost, moved)
                rounding = torch.zeros_like(y)
                rounding[..., *seen] = latent["rounding"].detach()[..., *seen]
                if curvature is None:
                    curvature = _measure_curvature(gradient, rounding)
                moved.grad = gradient + curvature * rounding
                optimizer.step()
                schedule.step()
    return best


def _measure_curvature(gradient: Tensor, rounding: Tensor) -> Tensor:
    """Estimates the second derivative of a loss by y_hat from its pull toward y."""
    squares = rounding.square().sum().clamp(min=torch.finfo(rounding.dtype).tiny)
    return (-(gradient * rounding).sum() / squares).clamp(min=0)


def _measure_step_width(
    codec: HumanMachineMixin, y: Tensor, steps: list[QuantSteps]
) -> Tensor:
    """Measures the quantization step in units of y, which gains change; like y."""
    y = y.clone().requires_grad_()
    rounding = codec.code_latent(y, steps, gradients=True)["rounding"]
    (steps_per_y,) = torch.autograd.grad(rounding.sum(), y)
    return 1 / steps_per_y


@torch.no_grad()
def human_loss(
    codec: HumanMachineMixin, x: Tensor, y: Tensor, steps: QuantSteps
) -> Loss | None:
    """Returns a loss of bpp and the squared error of x_hat, weighted for the step.

    The choice of a step tells how much an error costs: as many bits as a larger step
    saves for such an error. Where a map has finer steps, the weight grows with
    1/step^2, like the inverse error of a uniform quantizer.

    Args:
        codec: The codec, in eval mode.
        x: RGB in [0, 1], ``(1, 3, H, W)``.
        y: Its latent, ``(1, M, h, w)``.
        steps: Its steps.

    Returns:
        The loss for :func:`refine`; None if a finer step gives no better picture for
        more bits, as for a picture of one color.
    """
    size = tuple(x.shape[-2:])
    width = step_values([steps], y.shape[-2:]).to(x)
    weight = (width.mean() / width).square()
    weight = weight.repeat_interleave(Y_STRIDE, 2).repeat_interleave(Y_STRIDE, 3)
    weight = weight[..., : size[0], : size[1]]

    def measure(latent: dict[str, Any]) -> tuple[Tensor, Tensor]:
        x_hat = codec.synthesize(latent["y_hat"], size, ("human",))["x_hat"]
        rate = picture_bits(latent["likelihoods"], [size])[0] / (size[0] * size[1])
        return rate, ((x_hat - x).square() * weight).mean()

    near = OCTAVE // 2
    bases = max(steps.base - near, FIRST), min(steps.base + near, LAST)
    ends = [
        measure(codec.code_latent(y, [QuantSteps(k, steps.offsets)])) for k in bases
    ]
    (finer, less), (coarser, more) = ends
    if finer <= coarser or more <= less:
        return None
    price = (finer - coarser) / (more - less)

    def loss(latent: dict[str, Any]) -> Tensor:
        rate, error = measure(latent)
        return rate + price * error

    return loss


@contextlib.contextmanager
def _random_state_kept(device: torch.device) -> Iterator[None]:
    """Restores the random state of the CPU and of the device, which alone are used."""
    with torch.random.fork_rng([]):
        if device.type == "cpu":
            yield
            return
        module = torch.get_device_module(device)
        index = [] if device.type == "mps" else [device]  # there is only one MPS
        state = module.get_rng_state(*index)
        try:
            yield
        finally:
            module.set_rng_state(state, *index)


def _seed(device: torch.device) -> None:
    """Seeds the CPU and this device, and no other as torch.manual_seed would."""
    torch.default_generator.manual_seed(0)
    if device.type == "cpu":
        return
    module = torch.get_device_module(device)
    with contextlib.nullcontext() if device.type == "mps" else module.device(device):
        module.manual_seed(0)


@contextlib.contextmanager
def _enable_gradients_for_y(codec: HumanMachineMixin) -> Iterator[None]:
    """Enables gradients for y and none for the weights, in eval mode."""
    training = codec.training
    trainable = [p for p in codec.parameters() if p.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    codec.eval()
    try:
        with torch.enable_grad():
            yield
    finally:
        codec.train(training)
        for parameter in trainable:
            parameter.requires_grad_(True)
