"""A factorized prior for z at several widths of quantization."""

import torch
from compressai.entropy_models import EntropyBottleneck
from torch import Tensor

from .fixed_point import FRACTION
from .steps import Z_CLASSES, z_widths


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
        low, median, high = self.quantiles[:, 0].detach().unbind(1)
        width = (z_widths() * 2.0**-FRACTION).to(median)[:, None]
        minima = ((median - low) / width).ceil().clamp(min=0)
        maxima = ((high - median) / width).ceil().clamp(min=0)
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

    def interval(
        self, at: Tensor, half: Tensor, frozen: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The mass of the density between at - half and at + half.

        Args:
            at: ``(C, 1, n)``.
            half: That broadcasts with it.
            frozen: Whether the density gets no gradient. Defaults to False.

        Returns:
            The mass, and the logits of the distribution at either end.
        """
        lower = self._logits_cumulative(at - half, stop_gradient=frozen)
        upper = self._logits_cumulative(at + half, stop_gradient=frozen)
        return torch.sigmoid(upper) - torch.sigmoid(lower), lower, upper
