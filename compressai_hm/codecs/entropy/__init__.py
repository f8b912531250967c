"""Exact and parallel coding of the latents."""

from .families import Family, Group, family_of
from .latent_coder import Coded, LatentCoder
from .rans import BitstreamError

__all__ = [
    "BitstreamError",
    "Coded",
    "Family",
    "Group",
    "LatentCoder",
    "family_of",
]
