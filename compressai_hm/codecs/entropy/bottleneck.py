"""A factorized prior for z at several widths of quantization."""

import math
from functools import partial

import torch
from compressai.entropy_models import EntropyBottleneck
from torch import Tensor

from .fixed_point import FRACTION
from .steps import Z_CLASSES, z_widths

_LONGEST = 512
"""Symbols of a table to either side of the median."""


class SteppedBottleneck(EntropyBottleneck):
    """CompressAI's entropy bottleneck, whose z is quantized by one of 15 widths.

    There is one density a channel. A symbol's probability is its mass over as much as
    the width, and each width has tables: row ``c * channels + i`` is of class c
    (``steps.z_class``) and channel i.
    """

    @torch.no_grad()
    def update(self, force: bool = False, update_quantiles: bool = False) -> bool:
        """Writes the tables of all widths; see CompressAI."""
        if self._offset.numel() > 0 and not force:
            return False
        if update_quantiles:
            self._update_quantiles()
        median, (low, high) = self.quantiles[:, 0, 1].detach(), self._ends()
        width = (z_widths() * 2.0**-FRACTION).to(median)[:, None]
        minima = ((median - low) / width).ceil().clamp(0, _LONGEST)
        maxima = ((high - median) / width).ceil().clamp(0, _LONGEST)
        lengths = (minima + maxima + 1).int()
        longest = int(lengths.max())
        symbols = torch.arange(longest, device=median.device) - minima[..., None]
        at = (median[:, None] + symbols * width[..., None]).transpose(0, 1)
        half = (width / 2).expand(-1, longest).reshape(1, 1, -1)
        pmf, lower, upper = self.interval(at.flatten(1)[:, None], half)
        shape = len(at), Z_CLASSES, longest
        pmf, lower, upper = (x.view(shape).transpose(0, 1) for x in (pmf, lower, upper))
        tails = torch.sigmoid(lower[..., :1]) + torch.sigmoid(-upper[..., -1:])
        lengths = lengths.flatten()
        self._quantized_cdf = self._pmf_to_cdf(
            pmf.flatten(0, 1), tails.flatten(0, 1), lengths, longest
        )
        self._offset = -minima.int().flatten()
        self._cdf_length = lengths + 2
        return True

    def _ends(self) -> tuple[Tensor, Tensor]:
        """Where all but 2**-16 of each density lies between, ``(C,)`` each.

        Found in the density, for the quantiles follow it slowly in training; what is
        beyond is coded by escapes.
        """
        farthest = self.quantiles.new_full((self.channels, 1, 1), 1e4)
        logits = partial(self._logits_cumulative, stop_gradient=True)
        target = math.log(2**17 - 1)
        ends = (
            self._search_target(logits, end, -farthest, farthest)
            for end in (-target, target)
        )
        return tuple(end.flatten() for end in ends)

    def interval(self, at: Tensor, half: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The mass of the density between at - half and at + half.

        Args:
            at: ``(C, 1, n)``.
            half: That broadcasts with it.

        Returns:
            The mass, and the logits of the distribution at either end.
        """
        lower = self._logits_cumulative(at - half, stop_gradient=False)
        upper = self._logits_cumulative(at + half, stop_gradient=False)
        return torch.sigmoid(upper) - torch.sigmoid(lower), lower, upper
