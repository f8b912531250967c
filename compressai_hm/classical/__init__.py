"""Classical codecs to compare with: ``CLASSICAL`` has them by registered name."""

from compressai.registry import MODELS

from .base import ClassicalCodec
from .ffmpeg import AV1, HEVC, HEVC420, JPEGXL, VVC
from .pillow import AVIF, JPEG, JPEG2000, WebP
from .reference import HEVCHM, VVCVTM

_CODECS = (JPEG, WebP, JPEG2000, AVIF, HEVC, HEVC420, VVC, AV1, JPEGXL, HEVCHM, VVCVTM)

CLASSICAL: dict[str, type[ClassicalCodec]] = {
    name: model for name, model in MODELS.items() if model in _CODECS
}


def find_classical(name: str | None) -> type[ClassicalCodec] | None:
    """Returns the classical codec of a registered name, or None if there is none.

    Args:
        name: A name of ``CLASSICAL``, or the name of another registered subclass.
    """
    model = MODELS.get(name)
    is_classical = isinstance(model, type) and issubclass(model, ClassicalCodec)
    return model if is_classical else None


__all__ = [
    "CLASSICAL",
    "ClassicalCodec",
    "find_classical",
    *(model.__name__ for model in _CODECS),
]
