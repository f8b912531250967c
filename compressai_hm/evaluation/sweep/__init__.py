"""Runs a sweep: codecs x qualities x sets of pictures.

- ``sweep``: what a config asks for, and where points are kept.
- ``run``: codes, decodes, measures, detects.
- ``cluster``: has Dask's workers do so.
- ``picture_set``, ``coders``, ``detectors``: what a config's entries become.
- ``digests``: whether something else would be measured than was.
"""

from .picture_set import PictureSet, read_picture
from .run import run
from .sweep import UNCOMPRESSED, Point, Sweep

__all__ = ["UNCOMPRESSED", "PictureSet", "Point", "Sweep", "read_picture", "run"]
