"""Plots as PNG and SVG, and a self-contained HTML page.

- ``charts``: draws every curve and point by matplotlib.
- ``picture_strips``: shows decoded pictures beside each other.
- ``environment``: lists the versions, weights and seconds of a sweep.
- ``page``: combines them.
"""

from .charts import draw_charts
from .page import write

__all__ = ["draw_charts", "write"]
