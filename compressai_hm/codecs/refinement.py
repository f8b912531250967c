"""Adaptation at the encoder: better symbols for one picture, for the same decoder.

A picture's y is moved by gradient steps on a loss of what it decodes to. Weights,
tables and decoder stay what they are, so the file decodes like any other
(content-adaptive coding, J. Campos et al., "Content Adaptive Optimization for Neural
Image Compression", CVPR workshops 2019).
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from .entropy import Steps
from .entropy.steps import FIRST, LAST, OCTAVE, step_values
from .human_machine import Y_STRIDE, HumanMachineMixin, picture_bits

Loss = Callable[[dict[str, Any]], Tensor]

_LR = 0.02, 0.002
"""Of Adam, in quantisation steps: from the first step, and where it leads to."""
_CURVATURE = 12 / math.log(2)
"""Of distortion by (y - y_hat) / step, in bits for each latent.

A uniform quantiser's error is step^2 / 12 and an octave of steps costs a bit: where
both are in balance, as in :func:`for_people`, distortion is as curved as this.
"""


def refine(
    codec: HumanMachineMixin,
    x: Tensor,
    loss: Loss | None,
    steps: int,
    step: float | Tensor | Steps | None = None,
) -> Tensor:
    """y of a picture, moved to a smaller loss.

    Each step sees the coder's own y_hat, rate and loss; the best y of all steps is
    taken, so that it is never worse than without refinement. The gradient goes straight
    through the rounding, which by itself would move y over a threshold and on: y_hat
    wants to be y. What is due to a latent's own rounding is therefore taken out of it,
    but in the padding, where nothing is seen. In the gradient of the rate noise stands
    for the rounding, seeded so that a file can be made again.

    Args:
        codec: Left as it was.
        x: RGB in [0, 1], ``(1, 3, H, W)``.
        loss: Of what ``codec.code_latent`` gives; a scalar, in any unit. None is
            :func:`for_people`.
        steps: Of Adam.
        step: Of quantisation, as for :func:`compressai_hm.codecs.encode`, which needs
            the same.

    Returns:
        y, ``(1, M, h, w)``, for :func:`compressai_hm.codecs.encode`.

    Raises:
        ValueError: If steps is negative, or the codec has no latent; for a step or map
            that cannot be.
    """
    if steps < 0:
        raise ValueError(f"steps must be 0 or more, got {steps}")
    if not codec.learned:
        raise ValueError(f"{type(codec).__name__} has no latent to refine")
    size = tuple(x.shape[-2:])
    own = [Steps.of(codec.step if step is None else step, size)]

    with _random_state_kept(x.device), _gradients_for_y(codec):
        with torch.no_grad():
            y = best = codec.analyse(x)
        if not steps:
            return best
        curvature = None
        if loss is None:
            loss = for_people(codec, x, y, own[0])
            curvature = _CURVATURE / math.prod(size)
        if loss is None:
            return best
        least, width = math.inf, _width_of_a_step(codec, y, own)
        moved = torch.zeros_like(y, requires_grad=True)
        optimizer = torch.optim.Adam([moved], _LR[0])
        schedule = torch.optim.lr_scheduler.LinearLR(
            optimizer, 1.0, _LR[1] / _LR[0], steps
        )
        seen = [slice(math.ceil(side / Y_STRIDE)) for side in size]
        _seed(x.device)
        for count in range(steps + 1):
            now = y + moved * width
            latent = codec.code_latent(now, own, gradients=True)
            cost = loss(latent)
            if cost.item() < least:
                best, least = now.detach(), cost.item()
            if count < steps:
                (gradient,) = torch.autograd.grad(cost, moved)
                rounding = torch.zeros_like(y)
                rounding[..., *seen] = latent["rounding"].detach()[..., *seen]
                if curvature is None:
                    curvature = _curvature_of(gradient, rounding)
                moved.grad = gradient + curvature * rounding
                optimizer.step()
                schedule.step()
    return best


def _curvature_of(gradient: Tensor, rounding: Tensor) -> Tensor:
    """Of a loss of any unit: how y_hat is drawn to y where rounding has moved it."""
    squares = rounding.square().sum().clamp(min=torch.finfo(rounding.dtype).tiny)
    return (-(gradient * rounding).sum() / squares).clamp(min=0)


def _width_of_a_step(codec: HumanMachineMixin, y: Tensor, own: list[Steps]) -> Tensor:
    """In y: where channels have gains, one of their own each. Like y."""
    y = y.clone().requires_grad_()
    rounding = codec.code_latent(y, own, gradients=True)["rounding"]
    (steps,) = torch.autograd.grad(rounding.sum(), y)
    return 1 / steps


@torch.no_grad()
def for_people(
    codec: HumanMachineMixin, x: Tensor, y: Tensor, steps: Steps
) -> Loss | None:
    """Bits a pixel and the squared error of x_hat, as dear as the step makes it.

    A codec says by its step what an error may cost: what the picture's bits fall by and
    its error grows by, if the step does. Where a map asks for finer steps, errors are
    dearer by as much as that of a uniform quantiser, 1/step^2.

    Args:
        codec: In eval mode.
        x: RGB in [0, 1], ``(1, 3, H, W)``.
        y: Its latent.
        steps: Its steps.

    Returns:
        For :func:`refine`; None if a finer step gives no better picture for more bits,
        as where there is nothing to see.
    """
    size = tuple(x.shape[-2:])
    width = step_values([steps], y.shape[-2:]).to(x)
    dear = (width.mean() / width).square()
    dear = dear.repeat_interleave(Y_STRIDE, 2).repeat_interleave(Y_STRIDE, 3)
    dear = dear[..., : size[0], : size[1]]

    def of(latent: dict[str, Any]) -> tuple[Tensor, Tensor]:
        x_hat = codec.synthesise(latent["y_hat"], size, ("human",))["x_hat"]
        rate = picture_bits(latent["likelihoods"], [size])[0] / (size[0] * size[1])
        return rate, ((x_hat - x).square() * dear).mean()

    near = OCTAVE // 2
    bases = max(steps.base - near, FIRST), min(steps.base + near, LAST)
    ends = [of(codec.code_latent(y, [Steps(k, steps.offsets)])) for k in bases]
    (finer, less), (coarser, more) = ends
    if finer <= coarser or more <= less:
        return None
    price = (finer - coarser) / (more - less)

    def loss(latent: dict[str, Any]) -> Tensor:
        rate, error = of(latent)
        return rate + price * error

    return loss


@contextlib.contextmanager
def _random_state_kept(device: torch.device) -> Iterator[None]:
    """Of the CPU and the device; no other is drawn from."""
    with torch.random.fork_rng([]):
        if device.type == "cpu":
            yield
            return
        own, at = torch.get_device_module(device), [device]
        if device.type == "mps":  # there is one
            at = []
        state = own.get_rng_state(*at)
        try:
            yield
        finally:
            own.set_rng_state(state, *at)


def _seed(device: torch.device) -> None:
    """Unlike torch.manual_seed's, it is of the CPU and of this device alone."""
    torch.default_generator.manual_seed(0)
    if device.type == "cpu":
        return
    own = torch.get_device_module(device)
    with contextlib.nullcontext() if device.type == "mps" else own.device(device):
        own.manual_seed(0)


@contextlib.contextmanager
def _gradients_for_y(codec: HumanMachineMixin) -> Iterator[None]:
    """And none for the weights; coding is eval mode's."""
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
