"""Classical codecs, for curves to compare with: ``CLASSICAL`` by registered name."""

from compressai.registry import MODELS

from .base import ClassicalCodec
from .ffmpeg import AV1, HEVC, HEVC420, JPEGXL, VVC
from .pillow import AVIF, JPEG, JPEG2000, WebP
from .reference import HEVCHM, VVCVTM

_OWN = (JPEG, WebP, JPEG2000, AVIF, HEVC, HEVC420, VVC, AV1, JPEGXL, HEVCHM, VVCVTM)

CLASSICAL: dict[str, type[ClassicalCodec]] = {
    name: model for name, model in MODELS.items() if model in _OWN
}


def find_classical(name: str | None) -> type[ClassicalCodec] | None:
    """The classical codec that is registered under a name, also one of one's own."""
    model = MODELS.get(name)
    found = isinstance(model, type) and issubclass(model, ClassicalCodec)
    return model if found else None


__all__ = [
    "CLASSICAL",
    "ClassicalCodec",
    "find_classical",
    *(model.__name__ for model in _OWN),
]
