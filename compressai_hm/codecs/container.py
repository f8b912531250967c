"""The bitstream file: one picture, for humans and machines.

::

    offset  bytes
         0      3  "HMB"
         3      1  format version, 1
         4      4  CRC-32 of bytes 0 to 3 and of all from byte 8 on
         8      2  low half of the CRC-32 of the header from byte 10 on, the map's
                   stream and the decoded symbols (int16 little-endian, in coding order)
        10      2  model: low half of the CRC-32 of its registered name
        12      1  high 4 bits: what its weights were trained for, a number of METRICS;
                   low 4 bits: quality of the zoo entry, 0 for other weights
        13      3  fingerprint of the entropy part (LatentCoder.fingerprint)
        16    1-4  height in pixels
              1-4  width in pixels
              1-2  2 (k + 288), of the quantization step k (see entropy/steps.py); + 1
                   where there is a map
              1-4  z's stream: words of 4 bytes beyond the first two
              0-4  the map's stream, where there is one: the same
                   z's stream, the map's, y's

Fixed numbers are big-endian. The others have 7 bits a byte, lowest first, and the high
bit on all but the last byte; the shortest form is the only one. Without a map the
header has at most 24 bytes if no side is over 16383 pixels and z's stream is under
64 KiB.

Any change to what a file decodes to is a new format version.
"""

import struct
import zlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from compressai.registry import MODELS
from torch import Tensor

from .checks import check_finite, check_pictures
from .entropy import BitstreamError, Coded, Steps
from .entropy.steps import FIRST, LAST, decode_map, encode_map
from .human_machine import (
    Y_STRIDE,
    Z_STRIDE,
    HumanMachineMixin,
    registered_name,
    unwrapped,
)
from .models import ENTRIES
from .readers import StreamReader

MAGIC = b"HMB"
VERSION = 1
METRICS = {"mse": 0, "ms-ssim": 1, "person": 2}
"""Targets that a zoo entry's weights can be trained for: people by MSE or MS-SSIM, or
people and detectors of persons."""

_OLD_MAGIC = b"HMC"
_FIXED = 16
_MOST_BYTES = 4
"""Longest form of a number of variable length."""

_LEAST_WORDS = 2
"""The fewest words of 4 bytes that a stream has."""

MAX_PIXELS = 2**26
"""Larger pictures are refused unless asked for: a forged size costs time and memory."""


@dataclass(frozen=True)
class Bitstream:
    """What a file holds.

    Args:
        model: Registered name; None for a model that is not registered here.
        model_id: 2 bytes of the name's CRC-32.
        quality: Of the zoo entry; 0 for other weights.
        metric: What the zoo entry was trained for, one of ``METRICS``.
        fingerprint: Of the entropy part that it was coded with.
        size: (H, W) in pixels.
        y: y's stream.
        z: z's stream.
        symbols_check: 16 bits that the decoded symbols must give.
        step: k of its quantization step; 0 is a step of 1.
        map: The stream of the map that moves it by place; empty where there is none.
    """

    model: str | None
    model_id: int
    quality: int
    metric: str
    fingerprint: bytes
    size: tuple[int, int]
    y: bytes
    z: bytes
    symbols_check: int
    step: int = 0
    map: bytes = b""

    @classmethod
    def read(cls, data: bytes) -> "Bitstream":
        """Parses and checks a file; no weights needed.

        Raises:
            BitstreamError: If it is not one, or is damaged.
        """
        if data[:3] == _OLD_MAGIC:
            raise BitstreamError(
                "the file was written before the first release of compressai_hm, whose "
                "format is another: encode the picture again"
            )
        if data[:3] != MAGIC:
            raise BitstreamError(
                f"not a compressai_hm bitstream: it begins with {data[:3]!r}, "
                f"not {MAGIC!r}"
            )
        if len(data) <= _FIXED:
            raise BitstreamError(
                f"the file is cut off: {len(data)} bytes, and the header alone has more"
            )
        if data[3] != VERSION:
            raise BitstreamError(
                f"the file has format version {data[3]}, this compressai_hm reads "
                f"{VERSION}; use the version that wrote it"
            )
        crc, symbols_check, model_id, weights = struct.unpack_from(">IHHB", data, 4)
        if zlib.crc32(data[8:], zlib.crc32(data[:4])) != crc:
            raise BitstreamError(
                "the file is damaged, cut off, or something was appended: its checksum "
                "does not match"
            )
        numbers = _Numbers(data, _FIXED)
        size = numbers.next(), numbers.next()
        step, has_map = divmod(numbers.next(), 2)
        streams = [4 * (numbers.next() + _LEAST_WORDS) for _ in range(1 + has_map)]
        step += FIRST
        if not all(size):
            width, height = size[::-1]
            raise BitstreamError(f"the file is forged: a picture of {width}x{height}")
        if weights >> 4 >= len(METRICS) or step > LAST:
            raise BitstreamError(
                f"the file is forged: step {step}, weights {weights >> 4}"
            )
        after_z = numbers.at + streams[0]
        after_map = after_z + sum(streams[1:])
        if after_map > len(data):
            raise BitstreamError(
                f"the file is forged: {len(data)} bytes, of which z and map have "
                f"{sum(streams)}"
            )
        return cls(
            model=_names().get(model_id),
            model_id=model_id,
            quality=weights & 15,
            metric=list(METRICS)[weights >> 4],
            fingerprint=data[13:16],
            size=size,
            y=data[after_map:],
            z=data[numbers.at : after_z],
            symbols_check=symbols_check,
            step=step,
            map=data[after_z:after_map],
        )

    def steps(self) -> Steps:
        """The quantization steps by place.

        Raises:
            BitstreamError: If the map is damaged.
        """
        if not self.map:
            return Steps(self.step)
        size = tuple(-(-side // Z_STRIDE) * Z_STRIDE // Y_STRIDE for side in self.size)
        return Steps(self.step, decode_map(self.map, size))

    def to_bytes(self) -> bytes:
        """The file.

        Raises:
            ValueError: If a number does not fit the format.
        """
        first = MAGIC + bytes([VERSION])
        rest = struct.pack(">H", self.symbols_check) + self.head()
        rest += self.z + self.map + self.y
        return first + struct.pack(">I", zlib.crc32(rest, zlib.crc32(first))) + rest

    def head(self) -> bytes:
        """The header from byte 10 on.

        Raises:
            ValueError: If a number does not fit the format.
        """
        numbers = [*self.size, 2 * (self.step - FIRST) + bool(self.map)]
        streams = [self.z, self.map] if self.map else [self.z]
        numbers += [len(stream) // 4 - _LEAST_WORDS for stream in streams]
        fits = min(numbers) >= 0 and max(numbers) < 2 ** (7 * _MOST_BYTES)
        if not (0 <= self.quality < 16 and fits):
            raise ValueError(
                f"a picture of {self.size[1]}x{self.size[0]} at quality {self.quality} "
                "does not fit the file format"
            )
        weights = METRICS[self.metric] << 4 | self.quality
        fixed = struct.pack(">HB", self.model_id, weights) + self.fingerprint
        return fixed + b"".join(map(_packed, numbers))

    @property
    def overhead(self) -> int:
        """Bytes of the header."""
        return 10 + len(self.head())

    def check_of(self, symbols: np.ndarray) -> int:
        """What ``symbols_check`` must be if these were decoded."""
        crc = zlib.crc32(self.map, zlib.crc32(self.head()))
        return zlib.crc32(symbols.tobytes(), crc) & 0xFFFF

    def weights(self) -> str:
        """For people: which weights it was coded with."""
        name = self.model or f"a model unknown here (id {self.model_id:04x})"
        entry = f" quality {self.quality} ({self.metric})" if self.quality else ""
        if entry and self.model in ENTRIES and ENTRIES[self.model].steps:
            # They are the same at every quality.
            entry = "" if self.metric == "mse" else f" ({self.metric})"
        return f"{name}{entry}, entropy part {self.fingerprint.hex()}"


@torch.no_grad()
def encode(
    net: HumanMachineMixin,
    x: Tensor,
    quality: int = 0,
    metric: str = "mse",
    y: Tensor | None = None,
    step: float | Tensor | Steps | None = None,
) -> bytes:
    """Codes a picture to a file.

    Args:
        net: The codec.
        x: RGB in [0, 1], ``(1, 3, H, W)``.
        quality: Of the zoo entry that net is; 0 for other weights.
        metric: Of the zoo entry.
        y: What is coded instead of g_a(x), such as :func:`refine` gives.
        step: Of quantisation, from 1/8 (more bits) to 16 (fewer); or a map of them,
            ``(ceil(H / 16), ceil(W / 16))``, one for each 16x16 pixels. The model's
            ``step`` if left out.

    Raises:
        ValueError: If x is not such a picture, or too large for the format; for a step
            or map that cannot be.
    """
    net = unwrapped(net)
    check_pictures(x)
    if len(x) != 1:
        raise ValueError(f"a file holds one picture, got {len(x)}")
    if y is None:
        y = net.analyse(x)
    elif y.shape[-2:] != tuple(
        -(-side // Z_STRIDE) * Z_STRIDE // Y_STRIDE for side in x.shape[-2:]
    ):
        raise ValueError(
            f"y of {tuple(y.shape)} is not of a picture of {tuple(x.shape)}"
        )
    size = tuple(x.shape[-2:])
    coded = net.encode_latent(y, [Steps.of(net.step if step is None else step, size)])
    return pack(net, coded, size, quality, metric)


def pack(
    net: HumanMachineMixin,
    coded: Coded,
    size: tuple[int, int],
    quality: int = 0,
    metric: str = "mse",
) -> bytes:
    """The file of one picture's streams; see :func:`encode`.

    Args:
        net: The codec that coded them.
        coded: What its ``encode_latent`` gave for one picture.
        size: (H, W) of the picture.
        quality: Of the zoo entry that net is; 0 for other weights.
        metric: Of the zoo entry.

    Raises:
        ValueError: For a quality beyond 15, or a metric that is none of ``METRICS``.
    """
    if not 0 <= quality < 16:
        raise ValueError(
            f"quality {quality} does not fit the file format, which takes 0 to 15"
        )
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {list(METRICS)}, got {metric!r}")
    steps = coded.steps[0]
    stream = Bitstream(
        model=None,
        model_id=_id(_name_of(net)),
        quality=quality,
        metric=metric,
        fingerprint=net.latent_coder().fingerprint(),
        size=size,
        y=coded.strings[0][0],
        z=coded.strings[1][0],
        symbols_check=0,
        step=steps.base,
        map=b"" if steps.offsets is None else encode_map(steps.offsets),
    )
    check = stream.check_of(coded.symbols[0])
    return replace(stream, symbols_check=check).to_bytes()


@torch.no_grad()
def decode(
    net: HumanMachineMixin,
    data: bytes,
    views: tuple[str, ...] = ("human", "machine"),
    max_pixels: int = MAX_PIXELS,
    reader: StreamReader | None = None,
) -> dict[str, Any]:
    """Decodes a file.

    Args:
        net: The codec that coded it.
        data: The file.
        views: Any of "human" and "machine"; only these are computed.
        max_pixels: Pictures of more pixels are refused.
        reader: Makes the machine's view, in place of the codec's g_t.

    Returns:
        ``x_hat`` and / or ``x_bar``, ``(1, 3, H, W)`` in [0, 1]; or instead of x_bar
        ``features``, the pyramid of a reader that reads y_hat.

    Raises:
        ValueError: If the reader was trained on other streams, or the weights give
            values that are not finite.
        BitstreamError: If the file is damaged, forged, of other weights or too large.
    """
    net = unwrapped(net)
    stream = Bitstream.read(data)
    height, width = stream.size
    # What is coded is padded: a long thin picture costs many times its pixels.
    coded = -(-height // Z_STRIDE) * -(-width // Z_STRIDE) * Z_STRIDE**2
    if height * width > max_pixels or coded > max(max_pixels, 2**22):
        raise BitstreamError(
            f"the file says that the picture has {width}x{height} pixels, more than "
            f"max_pixels={max_pixels}; raise that if you trust the file"
        )
    name, own = _name_of(net), net.latent_coder().fingerprint()
    if (stream.model_id, stream.fingerprint) != (_id(name), own):
        raise BitstreamError(
            f"the file was coded with other weights: it needs {stream.weights()}; "
            f"given is {name}, entropy part {own.hex()}"
        )
    if reader is not None:
        reader.check(net)
    strings, steps = [[stream.y], [stream.z]], [stream.steps()]
    y_hat, symbols = net.decode_latent(strings, stream.size, steps)
    if stream.check_of(symbols[0]) != stream.symbols_check:
        raise BitstreamError("the file is damaged: it decodes to other symbols")
    g_t, features = None, {}
    if reader is not None and "machine" in views:
        own = reader.net.to(y_hat.device).eval()
        if reader.reads == "y_hat":
            features["features"] = own(y_hat)
            views = tuple(view for view in views if view != "machine")
        else:
            g_t = own
    out = net.synthesise(y_hat, stream.size, views, g_t)
    check_finite(out)
    return {**{key: view.clamp(0, 1) for key, view in out.items()}, **features}


class _Numbers:
    """Reads numbers of variable length."""

    def __init__(self, data: bytes, at: int):
        self.data, self.at = data, at

    def next(self) -> int:
        value = 0
        for place in range(_MOST_BYTES):
            byte = self.data[self.at] if self.at < len(self.data) else 0x80
            self.at += 1
            value |= (byte & 0x7F) << 7 * place
            if byte < 0x80 and (byte or not place):
                return value
            if byte < 0x80:
                break
        raise BitstreamError("the file is forged: a number of its header has no end")


def _packed(number: int) -> bytes:
    out = []
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _id(name: str) -> int:
    return zlib.crc32(name.encode()) & 0xFFFF


def _names() -> dict[int, str]:
    return {
        _id(name): name
        for name, model in MODELS.items()
        if isinstance(model, type) and issubclass(model, HumanMachineMixin)
    }


def _name_of(net: HumanMachineMixin) -> str:
    name = registered_name(net)
    if name is None:
        raise ValueError(
            f"{type(net).__name__} has no registered name to write into the file; "
            'register it with @register_model("hm-...")'
        )
    return name
