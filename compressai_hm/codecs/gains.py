"""Channels that weigh more or less as the step of quantisation moves.

One step for all channels is best at the rate that a codec was trained for; at others
some channels deserve finer steps than the rest. A gain scales each by a function of the
step before it is quantised, another undoes it, and more, before it is decoded (after
Z. Cui et al., "Asymmetric Gained Deep Image Compression With Continuous Rate
Adaptation", CVPR 2021).
"""

from typing import Any

import torch
from torch import Tensor, nn

from .entropy import Coded, Steps, step_values

_SPEED = 10
"""Optimizers move all weights about alike; gains have farther to go."""


class Gain(nn.Module):
    """y exp(a t + b t^2) + c t + d t^2, with t of :meth:`coarseness`, by channel.

    At a step of 1, and untrained, it is the identity.

    Args:
        channels: Of y.
        shifts: Whether there are c and d.
    """

    def __init__(self, channels: int, shifts: bool = False):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(2, channels))
        self.shift = nn.Parameter(torch.zeros(2, channels)) if shifts else None

    def forward(self, y: Tensor, t: Tensor) -> Tensor:
        """y, ``(N, C, h, w)``, in the precision of the weights."""
        y = y.to(t.dtype) * torch.exp(_curve(self.scale, t))
        return y if self.shift is None else y + _curve(self.shift, t)

    def coarseness(self, y: Tensor, steps: list[Steps] | None) -> Tensor:
        """log(step) / 2 at each place of y, ``(N, 1, h, w)`` or one for all; 0 of 1."""
        if steps is None:
            return self.scale.new_zeros(1, 1, 1, 1)
        uniform = all(own.offsets is None for own in steps)
        values = step_values(steps, (1, 1) if uniform else y.shape[-2:])
        return (values.log() / 2).to(self.scale)


class GainsMixin:
    """An HM model whose latent is coded between two gains, before HumanMachineMixin.

    y and y_hat are outside of them, as g_a gives and g_s takes them. The model has
    ``gain`` and ``inverse_gain``.
    """

    def code_latent(
        self, y: Tensor, steps: list[Steps] | None = None, gradients: bool = False
    ) -> dict[str, Any]:
        steps = self._steps_of(len(y), steps)
        t = self.gain.coarseness(y, steps)
        coded = super().code_latent(self.gain(y, t), steps, gradients)
        return {**coded, "y_hat": self.inverse_gain(coded["y_hat"], t)}

    @torch.no_grad()
    def encode_latent(self, y: Tensor, steps: list[Steps] | None = None) -> Coded:
        steps = self._steps_of(len(y), steps)
        y = self.gain(y, self.gain.coarseness(y, steps))
        return super().encode_latent(y, steps)

    @torch.no_grad()
    def decode_latent(
        self,
        strings: list[list[bytes]],
        shape: tuple[int, int],
        steps: list[Steps] | None = None,
    ) -> tuple[Tensor, list]:
        y_hat, symbols = super().decode_latent(strings, shape, steps)
        t = self.gain.coarseness(y_hat, self._steps_of(len(y_hat), steps))
        return self.inverse_gain(y_hat, t), symbols


def _curve(weights: Tensor, t: Tensor) -> Tensor:
    a, b = _SPEED * weights[:, :, None, None]
    return a * t + b * t.square()
