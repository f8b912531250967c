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

Numbers of fixed length are big-endian. The others have 7 bits a byte, lowest first, and
the high bit is set in all but the last byte; only the shortest form is valid. Without a
map the header has at most 24 bytes if no side exceeds 16383 pixels and z's stream is
shorter than 64 KiB.

Every change of what a file decodes to is a new format version.
"""

import struct
import zlib
from dataclasses import dataclass

import numpy as np
from compressai.registry import MODELS

from ..entropy import BitstreamError, QuantSteps
from ..entropy.steps import FIRST, LAST
from ..geometry import padded_latent_size
from ..models.entries import ENTRIES
from ..models.human_machine import HumanMachineMixin
from .step_map import decode_map

MAGIC = b"HMB"
VERSION = 1
METRICS = {"mse": 0, "ms-ssim": 1, "person": 2}
"""Numbers in files for what a zoo entry's weights were trained for: people by MSE or
MS-SSIM, or people and detectors of persons."""

_OLD_MAGIC = b"HMC"
_FIXED = 16
_MOST_BYTES = 4
"""Most bytes of a number of variable length."""

_LEAST_WORDS = 2
"""Fewest words of 4 bytes of a stream."""


@dataclass(frozen=True)
class Bitstream:
    """The content of a file.

    Args:
        model: Registered name; None for a model that is not registered here.
        model_id: 2 bytes of the name's CRC-32.
        quality: Quality of the zoo entry; 0 for other weights.
        metric: What the zoo entry was trained for, one of ``METRICS``.
        fingerprint: Fingerprint of the entropy part that coded it, 3 bytes.
        size: (H, W) in pixels.
        y: y's stream.
        z: z's stream.
        symbols_check: 16 bits that the decoded symbols must give.
        step: k of the quantization step. Defaults to 0, a step of 1.
        map: Stream of the map of steps. Defaults to none, empty.
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
        """Reads and checks a file, which needs no weights.

        Args:
            data: The file.

        Returns:
            Its content.

        Raises:
            BitstreamError: If it is no such file, or is damaged.
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
        numbers = _NumberReader(data, _FIXED)
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
        after_z = numbers.place + streams[0]
        after_map = after_z + sum(streams[1:])
        if after_map > len(data):
            raise BitstreamError(
                f"the file is forged: {len(data)} bytes, of which z and map have "
                f"{sum(streams)}"
            )
        return cls(
            model=_list_names().get(model_id),
            model_id=model_id,
            quality=weights & 15,
            metric=list(METRICS)[weights >> 4],
            fingerprint=data[13:16],
            size=size,
            y=data[after_map:],
            z=data[numbers.place : after_z],
            symbols_check=symbols_check,
            step=step,
            map=data[after_z:after_map],
        )

    def steps(self) -> QuantSteps:
        """Returns the quantization steps by position.

        Raises:
            BitstreamError: If the map is damaged.
        """
        if not self.map:
            return QuantSteps(self.step)
        offsets = decode_map(self.map, padded_latent_size(self.size))
        return QuantSteps(self.step, offsets)

    def to_bytes(self) -> bytes:
        """Returns the file.

        Raises:
            ValueError: If a number does not fit the format.
        """
        first = MAGIC + bytes([VERSION])
        body = struct.pack(">H", self.symbols_check) + self.head()
        body += self.z + self.map + self.y
        return first + struct.pack(">I", zlib.crc32(body, zlib.crc32(first))) + body

    def head(self) -> bytes:
        """Returns the header from byte 10 on.

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
        return fixed + b"".join(map(_pack_number, numbers))

    @property
    def overhead(self) -> int:
        """Number of bytes of the header."""
        return 10 + len(self.head())

    def compute_check(self, symbols: np.ndarray) -> int:
        """Computes ``symbols_check``.

        Args:
            symbols: Decoded symbols in coding order, int16.

        Returns:
            16 bits.
        """
        crc = zlib.crc32(self.map, zlib.crc32(self.head()))
        return zlib.crc32(symbols.tobytes(), crc) & 0xFFFF

    def weights(self) -> str:
        """Returns a description of the weights that coded the file, for messages."""
        name = self.model or f"a model unknown here (id {self.model_id:04x})"
        entry = f" quality {self.quality} ({self.metric})" if self.quality else ""
        if entry and self.model in ENTRIES and ENTRIES[self.model].steps:
            # The weights are the same at every quality.
            entry = "" if self.metric == "mse" else f" ({self.metric})"
        return f"{name}{entry}, entropy part {self.fingerprint.hex()}"


class _NumberReader:
    """Reads numbers of variable length."""

    def __init__(self, data: bytes, place: int):
        self.data, self.place = data, place

    def next(self) -> int:
        value = 0
        for count in range(_MOST_BYTES):
            byte = self.data[self.place] if self.place < len(self.data) else 0x80
            self.place += 1
            value |= (byte & 0x7F) << 7 * count
            if byte < 0x80 and (byte or not count):
                return value
            if byte < 0x80:
                break
        raise BitstreamError("the file is forged: a number of its header has no end")


def _pack_number(number: int) -> bytes:
    out = []
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def model_id(name: str) -> int:
    """Returns the number that represents a registered name in files.

    Args:
        name: The registered name.
    """
    return zlib.crc32(name.encode()) & 0xFFFF


def _list_names() -> dict[int, str]:
    return {
        model_id(name): name
        for name, model in MODELS.items()
        if isinstance(model, type) and issubclass(model, HumanMachineMixin)
    }
