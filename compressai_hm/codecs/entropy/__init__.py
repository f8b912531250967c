"""Exact and parallel coding of the latents."""

from .bottleneck import SteppedBottleneck
from .families import Family, Group, family_of
from .latent_coder import Coded, LatentCoder
from .parallel_family import ParallelFamily
from .rans import BitstreamError
from .steps import Steps, step_values

__all__ = [
    "BitstreamError",
    "Coded",
    "Family",
    "Group",
    "LatentCoder",
    "ParallelFamily",
    "SteppedBottleneck",
    "Steps",
    "family_of",
    "step_values",
]
