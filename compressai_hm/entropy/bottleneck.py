"""Factorized prior of z for several quantization widths."""

import math

import torch
from compressai.entropy_models import EntropyBottleneck
from torch import Tensor

from ..compat import compressai_private as private
from .fixed_point import FRACTION
from .steps import Z_CLASSES, z_widths

_LONGEST = 512
"""Most symbols of a table on each side of the median."""


class SteppedBottleneck(EntropyBottleneck):
    """CompressAI's entropy bottleneck, whose z is quantized by one of 15 widths.

    Each channel has one density. A symbol's probability is the mass of the density over
    an interval as wide as the quantization. Each width has its tables: row
    ``c * channels + i`` belongs to class c (``steps.z_class``) and channel i.
    """

    @torch.no_grad()
    def update(self, force: bool = False, update_quantiles: bool = False) -> bool:
        """Writes the tables of all widths.

        Args:
            force: Whether to write them also where there are some.
            update_quantiles: Whether to find the quantiles in the density before.

        Returns:
            Whether anything was written.
        """
        if private.has_tables(self) and not force:
            return False
        if update_quantiles:
            private.refresh_quantiles(self)
        median, (low, high) = self.quantiles[:, 0, 1].detach(), self._find_ends()
        width = (z_widths() * 2.0**-FRACTION).to(median)[:, None]
        minima = ((median - low) / width).ceil().clamp(0, _LONGEST)
        maxima = ((high - median) / width).ceil().clamp(0, _LONGEST)
        lengths = (minima + maxima + 1).int()
        longest = int(lengths.max())
        symbols = torch.arange(longest, device=median.device) - minima[..., None]
        centers = (median[:, None] + symbols * width[..., None]).transpose(0, 1)
        half = (width / 2).expand(-1, longest).reshape(1, 1, -1)
        pmf, lower, upper = self.interval(centers.flatten(1)[:, None], half)
        shape = len(centers), Z_CLASSES, longest
        pmf, lower, upper = (x.view(shape).transpose(0, 1) for x in (pmf, lower, upper))
        tails = torch.sigmoid(lower[..., :1]) + torch.sigmoid(-upper[..., -1:])
        first, lengths = -minima.int().flatten(), lengths.flatten()
        pmf, tails = pmf.flatten(0, 1), tails.flatten(0, 1)
        private.write_tables(self, pmf, tails, first, lengths)
        return True

    def _find_ends(self) -> tuple[Tensor, Tensor]:
        """Finds the ends of each density, between which all but 2**-16 of it lies.

        We search the density, because the quantiles follow it slowly in training.
        Symbols beyond the ends are coded by escapes.

        Returns:
            The lower and the upper ends, ``(C,)`` each.
        """
        logit = math.log(2**17 - 1)
        return tuple(private.find_quantiles(self, x, 1e4) for x in (-logit, logit))

    def interval(self, at: Tensor, half: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Computes the mass of the density between at - half and at + half.

        Args:
            at: Values of z, ``(C, 1, n)``.
            half: Half the width of the interval; broadcasts with ``at``.

        Returns:
            The mass, and the logits of the cumulative distribution at the lower and the
            upper end, ``(C, 1, n)`` each.
        """
        lower = private.compute_cumulative_logits(self, at - half)
        upper = private.compute_cumulative_logits(self, at + half)
        return torch.sigmoid(upper) - torch.sigmoid(lower), lower, upper
