"""Adaptation at the encoder: better symbols for one picture, for the same decoder.

A picture's y is moved by gradient steps on the loss that the codec was trained with.
Weights, tables and decoder stay what they are, so the file decodes like any other
(content-adaptive coding, J. Campos et al., "Content Adaptive Optimization for Neural
Image Compression", CVPR workshops 2019).
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from .human_machine import HumanMachineMixin

Loss = Callable[[dict[str, Any]], Tensor]

_CHECK_EVERY = 10


def refine(
    codec: HumanMachineMixin, x: Tensor, loss: Loss, steps: int, lr: float = 0.02
) -> Tensor:
    """y of a picture, moved to a smaller loss.

    Gradients come from CompressAI's noise, seeded so that a file can be made again;
    what counts is the coded loss: the best of the first, every tenth and the last y is
    taken, so that it is never worse than without refinement.

    Args:
        codec: Left as it was.
        x: RGB in [0, 1], ``(1, 3, H, W)``.
        loss: Of what ``codec.code_latent`` gives; a scalar.
        steps: Of Adam.
        lr: Its learning rate, in quantisation steps.

    Returns:
        y, ``(1, M, h, w)``, for :func:`compressai_hm.codecs.encode`.

    Raises:
        ValueError: If steps is negative, or the codec has no latent.
    """
    if steps < 0:
        raise ValueError(f"steps must be 0 or more, got {steps}")
    if not codec.learned:
        raise ValueError(f"{type(codec).__name__} has no latent to refine")

    @torch.no_grad()
    def coded(y: Tensor) -> float:
        codec.eval()
        return float(loss(codec.code_latent(y)))

    with _random_state_kept(x.device), _only_y(codec):
        codec.eval()
        with torch.no_grad():
            best = codec.analyse(x)
        if not steps:
            return best
        least = coded(best)
        y = best.clone().requires_grad_()
        optimizer = torch.optim.Adam([y], lr)
        _seed(x.device)
        for step in range(1, steps + 1):
            codec.train()
            (y.grad,) = torch.autograd.grad(loss(codec.code_latent(y)), y)
            optimizer.step()
            if step % _CHECK_EVERY == 0 or step == steps:
                now = coded(y)
                if now < least:
                    best, least = y.detach().clone(), now
    return best


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
def _only_y(codec: HumanMachineMixin) -> Iterator[None]:
    """Gradients, but none for the weights; and the mode is put back."""
    training = codec.training
    trainable = [p for p in codec.parameters() if p.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        with torch.enable_grad():
            yield
    finally:
        codec.train(training)
        for parameter in trainable:
            parameter.requires_grad_(True)
