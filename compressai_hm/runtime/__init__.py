"""Computation of the transforms: tiles and precision."""
