"""Exact and parallel coding of the latents."""

from .bottleneck import SteppedBottleneck
from .families import Family, Group, find_family
from .latent_coder import Coded, LatentCoder
from .parallel_family import ParallelFamily
from .range_coder import BitstreamError
from .steps import QuantSteps, step_values

__all__ = [
    "BitstreamError",
    "Coded",
    "Family",
    "Group",
    "LatentCoder",
    "ParallelFamily",
    "QuantSteps",
    "SteppedBottleneck",
    "find_family",
    "step_values",
]
