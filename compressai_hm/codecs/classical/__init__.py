"""Classical codecs, for curves to compare with: ``CLASSICAL`` by registered name."""

import inspect
import warnings

from compressai.registry import MODELS, register_model

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


class _Renamed:
    """A codec under its name of before, which warns."""

    old: str
    new: str

    def __init_subclass__(cls) -> None:
        cls.__signature__ = inspect.signature(CLASSICAL[cls.new])
        CLASSICAL[cls.old] = register_model(cls.old)(cls)

    def __init__(self, *args, **kwargs):
        warnings.warn(
            f"codec {self.old!r} is called {self.new!r} now",
            FutureWarning,
            stacklevel=2,
        )
        super().__init__(*args, **kwargs)


class HM(_Renamed, HEVCHM):
    """Old name of ``hevc-hm``."""

    old, new = "hm", "hevc-hm"


class VTM(_Renamed, VVCVTM):
    """Old name of ``vvc-vtm``."""

    old, new = "vtm", "vvc-vtm"


__all__ = [
    "CLASSICAL",
    "ClassicalCodec",
    "find_classical",
    *(model.__name__ for model in _OWN),
]
