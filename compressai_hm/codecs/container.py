"""The bitstream file: one picture, for humans and machines.

Version 1 is written where the step of quantisation is 1, version 2 otherwise; both are
read for ever::

    offset  bytes  big-endian
         0      3  "HMC"
         3      1  format version
         4      2  model: CRC-32 of its registered name, the low half
         6      1  quality of the zoo entry, 0 for other weights; + 64 for the metric
                   person, + 128 for ms-ssim
         7      4  fingerprint of the entropy part (LatentCoder.fingerprint)
        11      3  height in pixels
        14      3  width in pixels
        17      3  bytes of z's stream
        20      4  version 1: bytes of y's stream
                   version 2: in the 10 high bits the step, k + 288 (see
                   entropy/steps.py); below, bytes of the map's stream, 0 without map
        24      4  CRC-32 of the rest of the file
        28      4  CRC-32 of bytes 0 to 23, the map's stream and the decoded symbols
                   (int16 little-endian, in coding order)
        32         z's stream, in version 2 the map's, y's stream

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

MAGIC = b"HMC"
VERSION = 1
"""Of files whose step is 1 everywhere."""

VERSION_WITH_STEP = 2
HEADER_BYTES = 32
METRICS = {"mse": 0, "person": 64, "ms-ssim": 128}
"""What a zoo entry's weights were trained for, and what that adds to the quality:
people by MSE or MS-SSIM, or people and detectors of persons."""

_MAP_BITS = 22
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
        symbols_crc: CRC-32 of the file's first 24 bytes, the map's stream and the
            decoded symbols.
        step: k of its step of quantisation; 0 is a step of 1.
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
    symbols_crc: int
    step: int = 0
    map: bytes = b""

    @classmethod
    def read(cls, data: bytes) -> "Bitstream":
        """Parses and checks a file; no weights needed.

        Raises:
            BitstreamError: If it is not one, or is damaged.
        """
        if data[:3] != MAGIC:
            raise BitstreamError(
                f"not a compressai_hm bitstream: it begins with {data[:3]!r}, "
                f"not {MAGIC!r}"
            )
        if len(data) < HEADER_BYTES:
            raise BitstreamError(
                f"the file is cut off: {len(data)} bytes, and the header alone has "
                f"{HEADER_BYTES}"
            )
        if data[3] not in (VERSION, VERSION_WITH_STEP):
            raise BitstreamError(
                f"the file has format version {data[3]}, this compressai_hm reads "
                f"{VERSION} and {VERSION_WITH_STEP}; use the version that wrote it"
            )
        model_id, quality = struct.unpack_from(">HB", data, 4)
        height, width, z_bytes = (int.from_bytes(data[i : i + 3]) for i in (11, 14, 17))
        last, crc, symbols_crc = struct.unpack_from(">III", data, 20)
        step, map_bytes = 0, 0
        if data[3] == VERSION:
            expected = HEADER_BYTES + last + z_bytes
            if len(data) != expected:
                raise BitstreamError(
                    f"the file has {len(data)} bytes, its header says {expected}: it "
                    "is cut off, damaged, or something was appended"
                )
        else:
            step, map_bytes = (last >> _MAP_BITS) + FIRST, last % 2**_MAP_BITS
        if zlib.crc32(data[28:], zlib.crc32(data[:24])) != crc:
            raise BitstreamError(
                "the file is damaged or cut off: its checksum does not match"
            )
        if not height or not width:
            raise BitstreamError(f"the file is forged: a picture of {width}x{height}")
        metric = max((m for m in METRICS if quality >= METRICS[m]), key=METRICS.get)
        after_z = HEADER_BYTES + z_bytes
        after_map = after_z + map_bytes
        if step > LAST or (data[3] == VERSION_WITH_STEP and not (step or map_bytes)):
            raise BitstreamError(f"the file is forged: step {step}")
        if after_map > len(data):
            raise BitstreamError(
                f"the file is forged: {len(data)} bytes, of which z and map have "
                f"{after_map - HEADER_BYTES}"
            )
        return cls(
            model=_names().get(model_id),
            model_id=model_id,
            quality=quality - METRICS[metric],
            metric=metric,
            fingerprint=data[7:11],
            size=(height, width),
            y=data[after_map:],
            z=data[HEADER_BYTES:after_z],
            symbols_crc=symbols_crc,
            step=step,
            map=data[after_z:after_map],
        )

    def steps(self) -> Steps:
        """The steps of quantisation by place.

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
        rest = struct.pack(">I", self.symbols_crc) + self.z + self.map + self.y
        head = self.head()
        return head + struct.pack(">I", zlib.crc32(rest, zlib.crc32(head))) + rest

    def head(self) -> bytes:
        """The file's first 24 bytes."""
        quality = self.quality + METRICS[self.metric]
        version, last = VERSION, len(self.y)
        if self.step or self.map:
            version = VERSION_WITH_STEP
            last = ((self.step - FIRST) << _MAP_BITS) + len(self.map)
        try:
            if len(self.map) >= 2**_MAP_BITS:
                raise OverflowError
            return b"".join(
                (
                    MAGIC,
                    struct.pack(">BHB", version, self.model_id, quality),
                    self.fingerprint,
                    *(n.to_bytes(3) for n in (*self.size, len(self.z))),
                    struct.pack(">I", last),
                )
            )
        except (OverflowError, struct.error):
            raise ValueError(
                f"a picture of {self.size[1]}x{self.size[0]} at quality {self.quality} "
                "does not fit the file format"
            ) from None

    def crc_of(self, symbols: np.ndarray) -> int:
        """What ``symbols_crc`` must be if these were decoded."""
        return zlib.crc32(
            symbols.tobytes(), zlib.crc32(self.map, zlib.crc32(self.head()))
        )

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
        ValueError: For a quality beyond 63, or a metric that is none of ``METRICS``.
    """
    if not 0 <= quality < 64:
        raise ValueError(
            f"quality {quality} does not fit the file format, which takes 0 to 63"
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
        symbols_crc=0,
        step=steps.base,
        map=b"" if steps.offsets is None else encode_map(steps.offsets),
    )
    return replace(stream, symbols_crc=stream.crc_of(coded.symbols[0])).to_bytes()


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
    if stream.crc_of(symbols[0]) != stream.symbols_crc:
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
