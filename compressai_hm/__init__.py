"""Learned image compression for humans and machines, from one bitstream.

Importing this package adds the HM models to CompressAI's registry and zoo. It needs
only torch and compressai; the OpenMMLab side is ``compressai_hm.detection``.
"""

from . import codecs, zoo

__version__ = "0.1.0"

__all__ = ["__version__", "codecs", "zoo"]
