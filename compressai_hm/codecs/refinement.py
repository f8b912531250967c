"""Adaptation at the encoder: better symbols for one picture, for the same decoder.

A picture's y is moved by gradient steps on a loss of what it decodes to. Weights,
tables and decoder stay what they are, so the file decodes like any other
(content-adaptive coding, J. Campos et al., "Content Adaptive Optimization for Neural
Image Compression", CVPR workshops 2019).
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from .entropy import Steps
from .entropy.steps import FIRST, LAST, OCTAVE, step_values
from .human_machine import Y_STRIDE, HumanMachineMixin, picture_bits

Loss = Callable[[dict[str, Any]], Tensor]

_CHECK_EVERY = 10
_LR = 0.005
"""Of Adam, in quantisation steps. With 0.02 the rate jumps, on photographs."""


def refine(
    codec: HumanMachineMixin,
    x: Tensor,
    loss: Loss | None,
    steps: int,
    step: float | Tensor | Steps | None = None,
) -> Tensor:
    """y of a picture, moved to a smaller loss.

    Latents are rounded in the coder's own order, straight through for gradients, so
    that contexts, means and rate are those of the file; noise, seeded so that a file
    can be made again, is left in the gradient of the rate. What counts is the coded
    loss: the best of the first, every tenth and the last y is taken, so that it is
    never worse than without refinement.

    Args:
        codec: Left as it was.
        x: RGB in [0, 1], ``(1, 3, H, W)``.
        loss: Of what ``codec.code_latent`` gives; a scalar. None is
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

    @torch.no_grad()
    def coded(y: Tensor) -> float:
        codec.eval()
        return float(loss(codec.code_latent(y, own)))

    with _random_state_kept(x.device), _rounded(codec):
        codec.eval()
        with torch.no_grad():
            best = codec.analyse(x)
        if not steps:
            return best
        loss = loss or for_people(codec, x, best, own[0])
        least = coded(best)
        y = best.clone().requires_grad_()
        width = step_values(own, y.shape[-2:]).to(y)
        optimizer = torch.optim.Adam([y], _LR * float(width.mean()))
        _seed(x.device)
        for count in range(1, steps + 1):
            codec.train()
            (y.grad,) = torch.autograd.grad(loss(codec.code_latent(y, own)), y)
            optimizer.step()
            if count % _CHECK_EVERY == 0 or count == steps:
                now = coded(y)
                if now < least:
                    best, least = y.detach().clone(), now
    return best


@torch.no_grad()
def for_people(codec: HumanMachineMixin, x: Tensor, y: Tensor, steps: Steps) -> Loss:
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
        For :func:`refine`.
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

    near = OCTAVE // 8
    bases = max(steps.base - near, FIRST), min(steps.base + near, LAST)
    ends = [of(codec.code_latent(y, [Steps(k, steps.offsets)])) for k in bases]
    (finer, less), (coarser, more) = ends
    price = ((finer - coarser) / (more - less)).clamp(min=0)
    if not price.isfinite():
        price = torch.zeros_like(price)

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
def _rounded(codec: HumanMachineMixin) -> Iterator[None]:
    """Latents rounded in training too; gradients, but none for the weights."""
    training, mixed = codec.training, codec.mixed_quantisation
    trainable = [p for p in codec.parameters() if p.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    codec.mixed_quantisation = True
    try:
        with torch.enable_grad():
            yield
    finally:
        codec.train(training)
        codec.mixed_quantisation = mixed
        for parameter in trainable:
            parameter.requires_grad_(True)
