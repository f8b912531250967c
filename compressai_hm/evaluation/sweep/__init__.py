"""Runs a sweep: codecs x qualities x sets of pictures.

- ``sweep``: reads a config, and names the files of its points.
- ``run``: runs the points that are not finished.
- ``point``: codes, decodes, measures and detects for one point.
- ``cluster``: runs points on Dask's workers.
- ``picture_set``, ``sweep_codec``, ``detectors``: build the entries of a config.
- ``digests``: tell whether a point would be measured differently than it was.
"""

from .picture_set import PictureSet, read_picture
from .run import run
from .sweep import UNCOMPRESSED, Point, Sweep

__all__ = ["UNCOMPRESSED", "PictureSet", "Point", "Sweep", "read_picture", "run"]
