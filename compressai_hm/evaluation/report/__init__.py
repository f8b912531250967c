"""Plots as PNG and SVG, and one HTML page that needs nothing else.

- ``charts``: every curve and point, drawn by matplotlib.
- ``pictures``: decoded pictures beside each other.
- ``environment``: what ran, and how long.
- ``page``: puts them together.
"""

from .charts import draw_charts
from .page import write

__all__ = ["draw_charts", "write"]
