"""Exact and parallel coding of the latents."""

from .latent_coder import Coded, LatentCoder
from .rans import BitstreamError

__all__ = ["BitstreamError", "Coded", "LatentCoder"]
