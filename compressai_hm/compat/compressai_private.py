"""Private members of CompressAI's entropy models and latent codecs.

A release of CompressAI may rename them, so no other file of this package uses them.
"""

from functools import partial

from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from compressai.entropy_models.entropy_models import EntropyModel
from torch import Tensor

OFFSET, CDF, CDF_LENGTH = "_offset", "_quantized_cdf", "_cdf_length"
"""Buffers of every entropy model: a table's first symbol, its cumulative frequencies
times 2**16, and how many of these it has."""

TABLE_BUFFERS = (OFFSET, CDF, CDF_LENGTH, "scale_table")
"""Buffers of entropy models that hold tables."""

LATENT_CODEC_METHODS = (
    *("forward", "_chunk", "merge", "merge_y", "merge_params", "_get_ctx_params"),
)
"""Methods of latent codecs that decide how a latent is coded."""


def get_medians(bottleneck: EntropyBottleneck) -> Tensor:
    """Returns the medians of the channels, ``(C, 1, 1)``, with gradients.

    Args:
        bottleneck: The entropy bottleneck.
    """
    return bottleneck._get_medians()


def compute_bottleneck_likelihood(bottleneck: EntropyBottleneck, z: Tensor) -> Tensor:
    """Computes the probabilities of symbols, without the lower bound.

    Args:
        bottleneck: The entropy bottleneck.
        z: Symbols, ``(C, 1, n)``.

    Returns:
        Probabilities, ``(C, 1, n)``.
    """
    return bottleneck._likelihood(z)[0]


def compute_gaussian_likelihood(
    gaussian: GaussianConditional, y: Tensor, scales: Tensor, means: Tensor
) -> Tensor:
    """Computes the probabilities of symbols, without the lower bound.

    Args:
        gaussian: The conditional Gaussian.
        y: Values in quantization steps, of any shape.
        scales: Standard deviations, like y.
        means: Means, like y.

    Returns:
        Probabilities, like y.
    """
    return gaussian._likelihood(y, scales, means)


def compute_cumulative_logits(bottleneck: EntropyBottleneck, z: Tensor) -> Tensor:
    """Computes the logits of the cumulative distribution, with gradients.

    Args:
        bottleneck: The entropy bottleneck.
        z: Values, ``(C, 1, n)``.

    Returns:
        Logits, ``(C, 1, n)``.
    """
    return bottleneck._logits_cumulative(z, stop_gradient=False)


def find_quantiles(
    bottleneck: EntropyBottleneck, logit: float, farthest: float
) -> Tensor:
    """Finds where the cumulative distribution of each channel reaches a logit.

    Args:
        bottleneck: The entropy bottleneck.
        logit: Logit of the cumulative distribution.
        farthest: The search goes from -farthest to farthest.

    Returns:
        Values, ``(C,)``.
    """
    ends = bottleneck.quantiles.new_full((bottleneck.channels, 1, 1), farthest)
    logits = partial(bottleneck._logits_cumulative, stop_gradient=True)
    return bottleneck._search_target(logits, logit, -ends, ends).flatten()


def refresh_quantiles(bottleneck: EntropyBottleneck) -> None:
    """Moves the quantiles to those of the present density.

    Args:
        bottleneck: The entropy bottleneck; changed in place.
    """
    bottleneck._update_quantiles()


def has_tables(model: EntropyModel) -> bool:
    """Says whether an entropy model's table buffers are filled.

    Args:
        model: The entropy model.
    """
    return model._offset.numel() > 0


def write_tables(
    model: EntropyModel, pmf: Tensor, tails: Tensor, first: Tensor, lengths: Tensor
) -> None:
    """Writes an entropy model's table buffers.

    Args:
        model: The entropy model; changed in place.
        pmf: Probabilities of symbols, ``(tables, longest)``.
        tails: Probability of all other symbols, ``(tables, 1)``.
        first: The first symbol of each table, ``(tables,)`` int32.
        lengths: Number of symbols of each table, ``(tables,)`` int32.
    """
    model._quantized_cdf = model._pmf_to_cdf(pmf, tails, lengths, pmf.shape[1])
    model._offset = first
    model._cdf_length = lengths + 2
