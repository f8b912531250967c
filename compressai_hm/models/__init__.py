"""Codecs with a view for machines, and their entries in the model zoo."""

from . import compact, compressai_based  # noqa: F401, registers their entries
