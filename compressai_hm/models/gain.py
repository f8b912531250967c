"""Gains of the channels that depend on the quantization step.

One step for all channels is best at the rate of a codec's training; at other rates some
channels need finer steps than others. One gain scales each channel by a function of the
step before quantization; another scales it back, and can shift it, before g_s (after Z.
Cui et al., "Asymmetric Gained Deep Image Compression With Continuous Rate Adaptation",
CVPR 2021).
"""

from typing import Any

import torch
from torch import Tensor, nn

from ..entropy import Coded, QuantSteps, step_values

_SPEED = 10
"""Factor of the parameters: Adam moves all weights about alike, and gains need more."""


class Gain(nn.Module):
    """y exp(a t + b t^2) + c + d t + e t^2 by channel, with t from :meth:`coarseness`.

    It is the identity before training. The shifts take the means of y out of what is
    coded: a predicted mean would have to follow the gain's curve exactly, and they tell
    g_s the step.

    Args:
        channels: Channels of y.
        shifts: Whether it has c, d and e. Defaults to False.
    """

    def __init__(self, channels: int, shifts: bool = False):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(2, channels))
        self.shift = nn.Parameter(torch.zeros(3, channels)) if shifts else None

    def forward(self, y: Tensor, t: Tensor) -> Tensor:
        """Scales y, ``(N, C, h, w)``, in the precision of the weights."""
        y = y.to(t.dtype) * torch.exp(_evaluate_curve(self.scale, t))
        if self.shift is None:
            return y
        constant = _SPEED * self.shift[0, :, None, None]
        return y + constant + _evaluate_curve(self.shift[1:], t)

    def coarseness(self, y: Tensor, steps: list[QuantSteps] | None) -> Tensor:
        """Computes log(step) / 2 at each position of y.

        Args:
            y: The latent, ``(N, C, h, w)``.
            steps: Steps of each picture; None where all are 1.

        Returns:
            ``(N, 1, h, w)``, or ``(N, 1, 1, 1)`` without maps, or zero,
            ``(1, 1, 1, 1)``, without steps.
        """
        if steps is None:
            return self.scale.new_zeros(1, 1, 1, 1)
        uniform = all(step.offsets is None for step in steps)
        values = step_values(steps, (1, 1) if uniform else y.shape[-2:])
        return (values.log() / 2).to(self.scale)


class GainsMixin:
    """Codes an HM model's latent between two gains; a base before HumanMachineMixin.

    Arguments and results are the y of g_a and the y_hat of g_s, without gains. The
    model has ``gain`` and ``inverse_gain``.
    """

    def code_latent(
        self, y: Tensor, steps: list[QuantSteps] | None = None, gradients: bool = False
    ) -> dict[str, Any]:
        """Computes what coding gives; see :meth:`HumanMachineMixin.code_latent`."""
        steps = self._expand_steps(len(y), steps)
        t = self.gain.coarseness(y, steps)
        coded = super().code_latent(self.gain(y, t), steps, gradients)
        return {**coded, "y_hat": self.inverse_gain(coded["y_hat"], t)}

    @torch.no_grad()
    def encode_latent(self, y: Tensor, steps: list[QuantSteps] | None = None) -> Coded:
        """Codes a latent; see :meth:`HumanMachineMixin.encode_latent`."""
        steps = self._expand_steps(len(y), steps)
        y = self.gain(y, self.gain.coarseness(y, steps))
        return super().encode_latent(y, steps)

    @torch.no_grad()
    def decode_latent(
        self,
        strings: list[list[bytes]],
        shape: tuple[int, int],
        steps: list[QuantSteps] | None = None,
    ) -> tuple[Tensor, list]:
        """Decodes a latent; see :meth:`HumanMachineMixin.decode_latent`."""
        y_hat, symbols = super().decode_latent(strings, shape, steps)
        t = self.gain.coarseness(y_hat, self._expand_steps(len(y_hat), steps))
        return self.inverse_gain(y_hat, t), symbols


def _evaluate_curve(weights: Tensor, t: Tensor) -> Tensor:
    a, b = _SPEED * weights[:, :, None, None]
    return a * t + b * t.square()
