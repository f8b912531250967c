"""Choices of the encoder: rate control, regions of interest and refinement."""
