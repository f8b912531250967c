"""Classical image codecs behind the interface of the HM models: anchors of curves.

``compress`` gives the file that the codec writes, and ``decompress`` reads nothing
else, so its bytes compare with a learned codec's. All codecs see 8-bit RGB and give
it back. Those that offer it are tuned for PSNR rather than for the eye; each runs on
one thread, so its bytes do not depend on the machine and pictures can be coded in
parallel.

The video codecs code one intra picture as a raw stream. They get samples: RGB becomes
YCbCr here (BT.709, full range, as in CompressAI's bench), and the stream says nothing
of colour. With 4:2:0 a chroma sample is the mean of its four pixels and comes back by
bicubic interpolation between centres. Sides that a codec cannot code are padded by
replication and cropped again.
"""

import functools
import io
import os
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from compressai.registry import register_model
from compressai.transforms.functional import rgb2ycbcr, ycbcr2rgb
from PIL import Image, features
from torch import Tensor

from .checks import check_pictures, check_views
from .entropy import BitstreamError


class Anchor(nn.Module, ABC):
    """A codec without parameters.

    A subclass says ``limits`` and ``qualities``, and implements ``encode`` and
    ``decode`` of one picture.

    Args:
        quality: The codec's own knob, within ``limits``.

    Raises:
        ValueError: If the quality is outside.
    """

    knob = "quality"
    """What the codec calls it."""

    limits = (0, 100)
    """The lowest and the highest quality allowed."""

    qualities: Sequence[int]
    """About 0.1 to 1.5 bpp on photographs, ascending in rate."""

    def __init__(self, quality: int):
        super().__init__()
        low, high = self.limits
        if not isinstance(quality, int) or not low <= quality <= high:
            raise ValueError(
                f"quality of {type(self).__name__} is its {self.knob}, an integer from "
                f"{low} to {high}; got {quality!r}"
            )
        self.quality = quality

    @abstractmethod
    def encode(self, picture: Tensor) -> bytes:
        """The file of a picture, uint8 RGB, ``(3, H, W)``."""

    @abstractmethod
    def decode(self, string: bytes, size: tuple[int, int]) -> Tensor:
        """The picture of a file; its size is (H, W)."""

    def overhead(self, string: bytes) -> int:
        """Bytes of a file that are its container, not the picture."""
        return 0

    @torch.no_grad()
    def compress(self, x: Tensor) -> dict[str, Any]:
        """Codes pictures, each to a file of its own.

        Args:
            x: RGB in [0, 1], ``(N, 3, H, W)``, any H and W from 1; rounded to 8 bits.

        Returns:
            ``strings``: ``[[file per picture]]``; ``shape``: (H, W) of the pictures.

        Raises:
            ValueError: If x is not such a tensor or leaves [0, 1].
            RuntimeError: If the encoder is missing.
        """
        check_pictures(x)
        pictures = (x.cpu().float() * 255).round().byte()
        strings = [self.encode(picture) for picture in pictures]
        return {"strings": [strings], "shape": tuple(x.shape[-2:])}

    @torch.no_grad()
    def decompress(
        self,
        strings: list[list[bytes]],
        shape: tuple[int, int],
        views: tuple[str, ...] = ("human", "machine"),
    ) -> dict[str, Tensor]:
        """Decodes what :meth:`compress` returned.

        Args:
            strings: ``[[file per picture]]``.
            shape: (H, W) of the pictures.
            views: Any of "human" and "machine": here the same picture.

        Returns:
            ``x_hat`` and / or ``x_bar``, ``(N, 3, H, W)``, in [0, 1].

        Raises:
            BitstreamError: If a file is damaged or holds no picture of that shape.
            ValueError: For another view.
            RuntimeError: If the decoder is missing.
        """
        check_views(views)
        if len(strings) != 1 or not strings[0]:
            raise BitstreamError(
                f"strings must be [[file per picture]], got {[len(s) for s in strings]}"
            )
        if not views:
            return {}
        size = (int(shape[0]), int(shape[1]))
        x_hat = torch.stack([self.decode(s, size) for s in strings[0]]).float() / 255
        names = {"human": "x_hat", "machine": "x_bar"}
        return {names[view]: x_hat for view in names if view in views}


class _PillowAnchor(Anchor):
    """A file format of Pillow."""

    format: str
    feature: str
    fixed: dict[str, Any] = {}
    """Options of ``Image.save`` beside the quality."""

    def _options(self) -> dict[str, Any]:
        return {"quality": self.quality, **self.fixed}

    def encode(self, picture: Tensor) -> bytes:
        self._check()
        with io.BytesIO() as f:
            image = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
            image.save(f, self.format, **self._options())
            return f.getvalue()

    def decode(self, string: bytes, size: tuple[int, int]) -> Tensor:
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


def _segments(string: bytes, markers: Sequence[int]) -> int:
    """Bytes of a JPEG or JPEG 2000 header's segments with these markers."""
    total, at = 0, 2
    while string[at : at + 1] == b"\xff" and string[at + 1] not in (0xDA, 0x90):
        length = 2 + int.from_bytes(string[at + 2 : at + 4])
        total += length * (string[at + 1] in markers)
        at += length
    return total


def _outside_box(string: bytes, kind: bytes) -> int:
    """Bytes of an ISO base media file that are not the content of a box."""
    at = 0
    while at < len(string):
        length = int.from_bytes(string[at : at + 4]) or len(string) - at
        if string[at + 4 : at + 8] == kind:
            return len(string) - length + 8
        at += length
    return 0


@register_model("jpeg")
class JPEG(_PillowAnchor):
    """Baseline JPEG 4:2:0 with optimised Huffman tables (libjpeg-turbo)."""

    format, feature = "JPEG", "jpg"
    limits = (1, 100)
    qualities = (5, 10, 20, 35, 50, 70, 80)
    fixed = {"optimize": True}

    def overhead(self, string: bytes) -> int:
        """The JFIF segment and comments."""
        return _segments(string, (*range(0xE0, 0xF0), 0xFE))


@register_model("webp")
class WebP(_PillowAnchor):
    """Lossy WebP (libwebp), method 6; it has 4:2:0 only."""

    format, feature = "WEBP", "webp"
    qualities = (1, 10, 30, 55, 75, 85)
    fixed = {"method": 6}

    def overhead(self, string: bytes) -> int:
        """The RIFF and chunk headers, and padding."""
        return len(string) - int.from_bytes(string[16:20], "little")


@register_model("jpeg2000")
class JPEG2000(_PillowAnchor):
    """A JPEG 2000 codestream (OpenJPEG), 9/7 wavelet, 4:4:4."""

    format, feature = "JPEG2000", "jpg_2000"
    knob = "PSNR in dB"
    limits = (10, 60)
    qualities = (24, 26, 28, 31, 34, 37, 39)
    fixed = {"quality_mode": "dB", "irreversible": True, "mct": 1, "no_jp2": True}

    def _options(self) -> dict[str, Any]:
        return {"quality_layers": [self.quality], **self.fixed}

    def overhead(self, string: bytes) -> int:
        """The comment that names the encoder."""
        return _segments(string, (0x64,))


@register_model("avif")
class AVIF(_PillowAnchor):
    """AVIF 4:4:4, 8 bit (libaom), speed 4, one tile, all loop filters."""

    format, feature = "AVIF", "avif"
    qualities = (6, 15, 28, 40, 55, 65, 74)
    fixed = {
        **{"speed": 4, "subsampling": "4:4:4", "codec": "aom"},
        **{"max_threads": 1, "autotiling": False},
        "advanced": {"tune": "psnr", "enable-cdef": "1", "enable-restoration": "1"},
    }

    def overhead(self, string: bytes) -> int:
        """All boxes but the content of ``mdat``."""
        return _outside_box(string, b"mdat")


def _to_samples(x: Tensor, chroma: str, bits: int) -> bytes:
    """RGB in [0, 1], ``(1, 3, H, W)``, as samples; "rgb" interleaves the planes."""
    if chroma == "rgb":
        return (x * 255).round().byte()[0].permute(1, 2, 0).numpy().tobytes()
    top = 2**bits - 1
    y, c = rgb2ycbcr(x).split((1, 2), 1)
    if chroma == "420":
        c = F.avg_pool2d(c, 2)
    planes = (y * top, (c - 0.5) * top + 2 ** (bits - 1))
    kind = "<u1" if bits == 8 else "<u2"
    return b"".join(
        plane.round().clamp(0, top).numpy().astype(kind).tobytes() for plane in planes
    )


def _from_samples(
    samples: bytes, size: tuple[int, int], chroma: str, bits: int
) -> Tensor:
    """The picture, uint8 RGB, ``(3, H, W)``."""
    height, width = size
    half = 2 if chroma == "420" else 1
    counts = (height * width, 2 * (height // half) * (width // half))
    if len(samples) != sum(counts) * (1 if bits == 8 else 2):
        raise BitstreamError(
            f"the stream holds {len(samples)} bytes of samples, which is not one "
            f"picture of {width}x{height}"
        )
    values = np.frombuffer(samples, "<u1" if bits == 8 else "<u2").astype(np.float32)
    values = torch.from_numpy(values)
    if chroma == "rgb":
        return values.byte().view(height, width, 3).permute(2, 0, 1)
    y, c = values.split(counts)
    c = c.view(1, 2, height // half, width // half)
    if chroma == "420":
        c = F.interpolate(c, scale_factor=2, mode="bicubic", align_corners=False)
    top = 2**bits - 1
    c = (c - 2 ** (bits - 1)) / top + 0.5
    x = ycbcr2rgb(torch.cat((y.view(1, 1, height, width) / top, c), 1))
    return (x.clamp(0, 1) * 255).round().byte()[0]


class _SampleAnchor(Anchor):
    """A codec that is given raw samples."""

    knob = "QP"
    chroma = "444"
    bits = 8
    multiple = 1
    least = 1
    """Sides are padded to a multiple of the one, at least the other."""

    @abstractmethod
    def encode_samples(self, samples: bytes, size: tuple[int, int]) -> bytes:
        """The stream of a picture's samples; its size is (H, W)."""

    @abstractmethod
    def decode_samples(self, string: bytes, size: tuple[int, int]) -> bytes:
        """The samples of a stream."""

    def encode(self, picture: Tensor) -> bytes:
        height, width = picture.shape[-2:]
        coded = self._coded_size((height, width))
        pad = (0, coded[1] - width, 0, coded[0] - height)
        x = F.pad(picture[None].float() / 255, pad, mode="replicate")
        return self.encode_samples(_to_samples(x, self.chroma, self.bits), coded)

    def decode(self, string: bytes, size: tuple[int, int]) -> Tensor:
        coded = self._coded_size(size)
        samples = self.decode_samples(string, coded)
        picture = _from_samples(samples, coded, self.chroma, self.bits)
        return picture[:, : size[0], : size[1]]

    def _coded_size(self, size: tuple[int, int]) -> tuple[int, int]:
        m = self.multiple
        height, width = (max(self.least, -(-side // m) * m) for side in size)
        return height, width


class _ToolError(Exception):
    """A tool that failed; the message is a line of its error output."""


def _run(command: list, data: bytes = b"", line: int = -1) -> bytes:
    """The standard output of a tool that is given data.

    Args:
        command: Its path and arguments.
        data: Its standard input.
        line: Which line of its error output says what went wrong.
    """
    command = [str(part) for part in command]
    try:
        done = subprocess.run(command, input=data, capture_output=True)
    except OSError as e:
        raise RuntimeError(f"{command[0]} cannot be run: {e.strerror}") from e
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or b"?").splitlines()
        raise _ToolError(lines[line].decode(errors="replace"))
    return done.stdout


class _FFmpegAnchor(_SampleAnchor):
    """An encoder of the ffmpeg that comes with imageio-ffmpeg, through pipes.

    Raw streams hold no checksum: of the damages that leave their headers whole,
    ffmpeg notices some, with HEVC hardly any.
    """

    encoder: str
    muxer: str
    demuxer: str | None = None
    """Where it is not named as the muxer."""

    options: str
    """Of the encoder; ``{q}`` is the quality."""

    def encode_samples(self, samples: bytes, size: tuple[int, int]) -> bytes:
        command = (
            f"-f rawvideo -pix_fmt {self._pix_fmt()} -s {size[1]}x{size[0]} -i pipe:0 "
            f"-frames:v 1 -c:v {self.encoder} -threads 1 "
            f"{self.options.format(q=self._knob_value())} -f {self.muxer} pipe:1"
        )
        try:
            return self._ffmpeg(command, samples)
        except _ToolError as e:
            raise RuntimeError(f"{self.encoder} did not code the picture: {e}") from e

    def decode_samples(self, string: bytes, size: tuple[int, int]) -> bytes:
        # A crop to nothing, which is an error, where the size is not the expected.
        crop = f"if(eq(iw\\,{size[1]})*eq(ih\\,{size[0]})\\,iw\\,0):ih"
        command = (
            f"-threads 1 -f {self.demuxer or self.muxer} -i pipe:0 -vf crop={crop} "
            f"-f rawvideo -pix_fmt {self._pix_fmt()} pipe:1"
        )
        try:
            return self._ffmpeg(command, string)
        except _ToolError as e:
            raise BitstreamError(
                f"the stream holds no picture of {size[1]}x{size[0]}: {e}"
            ) from e

    def _ffmpeg(self, arguments: str, data: bytes) -> bytes:
        try:
            import imageio_ffmpeg

            ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
        except (ImportError, RuntimeError) as e:
            raise RuntimeError("ffmpeg is missing: pip install imageio-ffmpeg") from e
        if self.encoder not in _encoders(ffmpeg):
            raise RuntimeError(
                f"{ffmpeg} was built without {self.encoder}: pip install --upgrade "
                "imageio-ffmpeg, or set IMAGEIO_FFMPEG_EXE to an ffmpeg that has it"
            )
        arguments = f"-v error -nostdin -xerror -filter_threads 1 {arguments}"
        # The first line names the cause, the last ones only that there was one.
        return _run([ffmpeg, *arguments.split()], data, line=0)

    def _pix_fmt(self) -> str:
        if self.chroma == "rgb":
            return "rgb24"
        return f"yuv{self.chroma}p" + ("" if self.bits == 8 else f"{self.bits}le")

    def _knob_value(self) -> float:
        return self.quality


@functools.cache
def _encoders(ffmpeg: str) -> set[str]:
    """Names of what an ffmpeg encodes with."""
    lines = _run([ffmpeg, "-v", "error", "-encoders"]).decode().splitlines()
    return {line.split()[1] for line in lines if len(line.split()) > 1}


@register_model("hevc")
class HEVC(_FFmpegAnchor):
    """HEVC intra 4:4:4, 8 bit (libx265), preset slow, constant QP."""

    encoder, muxer = "libx265", "hevc"
    limits = (0, 51)
    qualities = (43, 39, 35, 31, 27, 22)
    least = 16
    options = (
        "-preset slow -tune psnr -x265-params qp={q}:ipratio=1:keyint=1:info=0:wpp=0:"
        "pools=none:frame-threads=1:log-level=error"
    )


@register_model("hevc-420")
class HEVC420(HEVC):
    """HEVC intra 4:2:0, 8 bit, otherwise as ``hevc``."""

    chroma, multiple = "420", 2


@register_model("vvc")
class VVC(_FFmpegAnchor):
    """VVC intra (libvvenc), preset medium; it has 4:2:0 with 10 bit only."""

    encoder, muxer = "libvvenc", "vvc"
    chroma, bits = "420", 10
    limits = (0, 63)
    qualities = (46, 42, 38, 34, 30, 26, 22)
    multiple, least = 8, 16
    options = (
        "-preset medium -qpa 0 -qp {q} "
        "-vvenc-params intraperiod=1:gopsize=1:threads=1:verbosity=1"
    )


@register_model("av1")
class AV1(_FFmpegAnchor):
    """AV1 intra 4:4:4, 10 bit (libaom), cpu-used 4, a still picture."""

    encoder, muxer = "libaom-av1", "obu"
    bits = 10
    knob = "CRF"
    limits = (0, 63)
    qualities = (56, 50, 44, 38, 31, 24, 17)
    options = "-still-picture 1 -cpu-used 4 -row-mt 0 -tune psnr -crf {q} -b:v 0"

    def overhead(self, string: bytes) -> int:
        """The temporal delimiter."""
        return 2 * string.startswith(b"\x12\0")


@register_model("jpegxl")
class JPEGXL(_FFmpegAnchor):
    """A JPEG XL codestream (libjxl), effort 7, XYB 4:4:4, not tuned for PSNR.

    The quality is cjxl's: 100 is lossless, 90 a Butteraugli distance of 1, 11 the 15
    at which ffmpeg stops: it does not reach 0.1 bpp on most photographs.
    """

    encoder, muxer, demuxer = "libjxl", "image2pipe", "jpegxl_pipe"
    chroma = "rgb"
    knob = "quality"
    limits = (11, 100)
    qualities = (11, 20, 35, 55, 75, 85)
    options = "-effort 7 -distance {q}"

    def _knob_value(self) -> float:
        # libjxl's JxlEncoderDistanceFromQuality; ffmpeg stops at a distance of 15.
        q = self.quality
        if q >= 100:
            return 0
        return 0.1 + (100 - q) * 0.09 if q >= 30 else 53 / 3000 * q**2 - 1.15 * q + 25

    def overhead(self, string: bytes) -> int:
        """All boxes but the codestream's content, where it is in any."""
        return 0 if string.startswith(b"\xff\x0a") else _outside_box(string, b"jxlc")


class _ReferenceAnchor(_SampleAnchor):
    """The reference software of a standard: 4:4:4, 8-bit input, all intra.

    The command lines are those of CompressAI's bench, but for HM without the hash of
    the decoded picture and the option of its screen-content branch.

    Args:
        quality: QP.
        encoder: Path of the binary. Defaults to the environment's ``<NAME>_ENCODER``.
        decoder: Likewise, ``<NAME>_DECODER``.
        config: The software's own all-intra configuration, ``<NAME>_CONFIG``.
    """

    tool: str
    arguments: tuple[str, ...] = ()
    multiple = 8
    qualities = (43, 39, 35, 31, 27, 22)

    def __init__(
        self,
        quality: int,
        encoder: str | Path | None = None,
        decoder: str | Path | None = None,
        config: str | Path | None = None,
    ):
        super().__init__(quality)
        self.paths = {"encoder": encoder, "decoder": decoder, "config": config}

    def encode_samples(self, samples: bytes, size: tuple[int, int]) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            source, stream = Path(folder, "x.yuv"), Path(folder, "x.bin")
            source.write_bytes(samples)
            command = [
                *(self._path("encoder"), "-i", source, "-c", self._path("config")),
                *("-q", self.quality, "-o", os.devnull, "-b", stream),
                *("-wdt", size[1], "-hgt", size[0], "-fr", 1, "-f", 1),
                *("--InputChromaFormat=444", "--InputBitDepth=8"),
                *("--ConformanceWindowMode=1", *self.arguments),
            ]
            try:
                _run(command)
                return stream.read_bytes()
            except (_ToolError, FileNotFoundError) as e:
                raise RuntimeError(f"{self.tool} did not code the picture: {e}") from e

    def decode_samples(self, string: bytes, size: tuple[int, int]) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            stream, decoded = Path(folder, "x.bin"), Path(folder, "x.yuv")
            stream.write_bytes(string)
            try:
                _run([self._path("decoder"), "-b", stream, "-o", decoded, "-d", 8])
                return decoded.read_bytes()
            except (_ToolError, FileNotFoundError) as e:
                raise BitstreamError(f"{self.tool} does not decode it: {e}") from e

    def _path(self, part: str) -> Path:
        variable = f"{self.tool}_{part.upper()}"
        path = self.paths[part] or os.environ.get(variable)
        if not path or not Path(path).is_file():
            raise RuntimeError(
                f"{self.tool}'s {part} is missing (found {path!r}): build {self.tool} "
                f"and give {part}=<path>, or set {variable}"
            )
        return Path(path)


@register_model("hm")
class HM(_ReferenceAnchor):
    """HM, the reference software of HEVC."""

    tool = "HM"
    limits = (0, 51)
    arguments = ("--Level=5.1",)


@register_model("vtm")
class VTM(_ReferenceAnchor):
    """VTM, the reference software of VVC."""

    tool = "VTM"
    limits = (0, 63)


ANCHORS = {
    "jpeg": JPEG,
    "webp": WebP,
    "jpeg2000": JPEG2000,
    "avif": AVIF,
    "hevc": HEVC,
    "hevc-420": HEVC420,
    "vvc": VVC,
    "av1": AV1,
    "jpegxl": JPEGXL,
    "hm": HM,
    "vtm": VTM,
}
