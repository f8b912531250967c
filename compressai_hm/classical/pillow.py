"""File formats that Pillow writes: JPEG, WebP, JPEG 2000, AVIF."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from compressai.registry import register_model
from PIL import Image, features
from torch import Tensor

from ..entropy import BitstreamError
from .base import ClassicalCodec, outside_box


class _PillowCodec(ClassicalCodec):
    """A file format of Pillow."""

    format: str
    feature: str
    fixed: dict[str, Any] = {}
    """Further options of ``Image.save``."""

    def _options(self) -> dict[str, Any]:
        return {"quality": self.quality, **self.fixed}

    def encode_rgb(self, picture: Tensor) -> bytes:
        self._check()
        with io.BytesIO() as f:
            image = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
            image.save(f, self.format, **self._options())
            return f.getvalue()

    def decode_rgb(self, string: bytes, size: tuple[int, int]) -> Tensor:
        self._check()
        try:
            with Image.open(io.BytesIO(string), formats=[self.format]) as image:
                if image.size != size[::-1]:
                    raise ValueError(f"it is {image.size[0]}x{image.size[1]}")
                return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
            raise BitstreamError(
                f"no {self.format} file of {size[1]}x{size[0]}: {e}"
            ) from e

    def _check(self) -> None:
        if not features.check(self.feature):
            raise RuntimeError(
                f"this Pillow was built without {self.feature}: pip install --upgrade "
                "pillow"
            )


def _measure_segments(string: bytes, markers: Sequence[int]) -> int:
    """Returns the bytes of a JPEG or JPEG 2000 header's segments with these markers."""
    total, start = 0, 2
    while string[start : start + 1] == b"\xff" and string[start + 1] not in (
        0xDA,
        0x90,
    ):
        length = 2 + int.from_bytes(string[start + 2 : start + 4])
        total += length * (string[start + 1] in markers)
        start += length
    return total


@register_model("jpeg")
class JPEG(_PillowCodec):
    """Baseline JPEG 4:2:0 with optimized Huffman tables (libjpeg-turbo)."""

    format, feature = "JPEG", "jpg"
    limits = (1, 100)
    qualities = (5, 10, 20, 35, 50, 70, 80)
    fixed = {"optimize": True}

    def overhead(self, string: bytes) -> int:
        """Returns the length of the JFIF segment and of comments."""
        return _measure_segments(string, (*range(0xE0, 0xF0), 0xFE))


@register_model("webp")
class WebP(_PillowCodec):
    """Lossy WebP (libwebp), method 6, 4:2:0."""

    format, feature = "WEBP", "webp"
    qualities = (1, 10, 30, 55, 75, 85)
    fixed = {"method": 6}

    def overhead(self, string: bytes) -> int:
        """Returns the length of the RIFF and chunk headers, and of padding."""
        return len(string) - int.from_bytes(string[16:20], "little")


@register_model("jpeg2000")
class JPEG2000(_PillowCodec):
    """A JPEG 2000 codestream (OpenJPEG), 9/7 wavelet, 4:4:4."""

    format, feature = "JPEG2000", "jpg_2000"
    knob = "PSNR in dB"
    limits = (10, 60)
    qualities = (24, 26, 28, 31, 34, 37, 39)
    fixed = {"quality_mode": "dB", "irreversible": True, "mct": 1, "no_jp2": True}

    def _options(self) -> dict[str, Any]:
        return {"quality_layers": [self.quality], **self.fixed}

    def overhead(self, string: bytes) -> int:
        """Returns the length of the comment that names the encoder."""
        return _measure_segments(string, (0x64,))


@register_model("avif")
class AVIF(_PillowCodec):
    """AVIF 4:4:4, 8 bit (libaom), speed 4, one tile, all loop filters."""

    format, feature = "AVIF", "avif"
    qualities = (6, 15, 28, 40, 55, 65, 74)
    fixed = {
        **{"speed": 4, "subsampling": "4:4:4", "codec": "aom"},
        **{"max_threads": 1, "autotiling": False},
        "advanced": {"tune": "psnr", "enable-cdef": "1", "enable-restoration": "1"},
    }

    def overhead(self, string: bytes) -> int:
        """Returns the bytes outside of the box ``mdat``."""
        return outside_box(string, b"mdat")
