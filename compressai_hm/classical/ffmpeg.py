"""Codecs of ffmpeg, which imageio-ffmpeg contains: HEVC, VVC, AV1, JPEG XL."""

import functools
import itertools
import math

from compressai.registry import register_model
from torch import Tensor

from ..entropy import BitstreamError
from ..geometry import latent_size
from .base import outside_box
from .samples import SampleCodec, ToolError, run_tool


class _FFmpegCodec(SampleCodec):
    """An encoder of imageio-ffmpeg's ffmpeg, through pipes.

    Raw streams hold no checksum. Where the headers are whole, ffmpeg notices some of
    the damages, and hardly any in HEVC.
    """

    encoder: str
    muxer: str
    demuxer: str | None = None
    """The demuxer's name where it differs from the muxer's."""

    options: str
    """The encoder's options; ``{q}`` is the quality."""

    filters = ""
    """ffmpeg's filters for the picture, before it is coded."""

    def encode_samples(self, samples: bytes, size: tuple[int, int]) -> bytes:
        command = (
            f"-f rawvideo -pix_fmt {self._pix_fmt()} -s {size[1]}x{size[0]} -i pipe:0 "
            f"-frames:v 1 {self.filters} -c:v {self.encoder} -threads 1 "
            f"{self.options.format(q=self._knob_value())} -f {self.muxer} pipe:1"
        )
        try:
            return self._ffmpeg(command, samples)
        except ToolError as e:
            raise RuntimeError(f"{self.encoder} did not code the picture: {e}") from e

    def decode_samples(self, string: bytes, size: tuple[int, int]) -> bytes:
        # At another size than the expected one, a crop to width 0 makes ffmpeg fail.
        crop = f"if(eq(iw\\,{size[1]})*eq(ih\\,{size[0]})\\,iw\\,0):ih"
        command = (
            f"-threads 1 -f {self.demuxer or self.muxer} -i pipe:0 -vf crop={crop} "
            f"-f rawvideo -pix_fmt {self._pix_fmt()} pipe:1"
        )
        try:
            return self._ffmpeg(command, string)
        except ToolError as e:
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
        # The first line names the cause; the last ones say only that there was one.
        return run_tool([ffmpeg, *arguments.split()], data, line=0)

    def _pix_fmt(self) -> str:
        if self.chroma == "rgb":
            return "rgb24"
        return f"yuv{self.chroma}p" + ("" if self.bits == 8 else f"{self.bits}le")

    def _knob_value(self) -> float:
        return self.quality


@functools.cache
def _encoders(ffmpeg: str) -> set[str]:
    """Returns the names of an ffmpeg's encoders."""
    lines = run_tool([ffmpeg, "-v", "error", "-encoders"]).decode().splitlines()
    return {line.split()[1] for line in lines if len(line.split()) > 1}


def _make_filters(step: Tensor) -> str:
    """Returns ffmpeg's filters that give runs of blocks another QP."""
    filters = []
    for row, values in enumerate(step.tolist()):
        runs = itertools.groupby(range(len(values)), values.__getitem__)
        for value, run in runs:
            first, *rest = run
            if value != 1:
                place = f"x={16 * first}:y={16 * row}:w={16 * (1 + len(rest))}:h=16"
                offset = 6 * math.log2(value) / 51  # as a share of the largest QP
                filters.append(f"addroi={place}:qoffset={offset:.5f}")
    return f"-vf {','.join(filters)}" if filters else ""


@register_model("hevc")
class HEVC(_FFmpegCodec):
    """HEVC intra 4:4:4, 8 bit (libx265), preset slow, constant QP."""

    encoder, muxer = "libx265", "hevc"
    limits = (0, 51)
    qualities = (43, 39, 35, 31, 27, 22)
    least = 16
    options = (
        "-preset slow -tune psnr -x265-params qp={q}:ipratio=1:keyint=1:info=0:wpp=0:"
        "pools=none:frame-threads=1:log-level=error"
    )

    def encode(self, x: Tensor, step: Tensor | None = None) -> bytes:
        """Returns the file of one picture.

        Args:
            x: RGB in [0, 1], ``(1, 3, H, W)``.
            step: A map of quantization steps as for HM codecs,
                ``(ceil(H / 16), ceil(W / 16))``. Where it is not 1, QP differs by 6 for
                each octave. Defaults to None, the same QP everywhere.

        Raises:
            ValueError: If the map has another shape, or see :meth:`compress`.
        """
        if step is None:
            return super().encode(x)
        shape = latent_size(x.shape[-2:])
        if tuple(step.shape) != shape:
            raise ValueError(
                f"step must be a map {shape} for each 16x16 pixels, got "
                f"{tuple(step.shape)}"
            )
        codec = type(self)(self.quality)
        codec.filters = _make_filters(step)
        # x265 has no regions at a constant QP, nor without adaptive quantization.
        codec.options = self.options.replace("qp=", "aq-mode=1:aq-strength=0.001:crf=")
        return codec.encode(x)


@register_model("hevc-420")
class HEVC420(HEVC):
    """HEVC intra 4:2:0, 8 bit, with the settings of ``hevc``."""

    chroma, multiple = "420", 2


@register_model("vvc")
class VVC(_FFmpegCodec):
    """VVC intra 4:2:0, 10 bit (libvvenc has no other), preset medium."""

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
class AV1(_FFmpegCodec):
    """AV1 intra 4:4:4, 10 bit (libaom), cpu-used 4, a still picture."""

    encoder, muxer = "libaom-av1", "obu"
    bits = 10
    knob = "CRF"
    limits = (0, 63)
    qualities = (56, 50, 44, 38, 31, 24, 17)
    options = "-still-picture 1 -cpu-used 4 -row-mt 0 -tune psnr -crf {q} -b:v 0"

    def overhead(self, string: bytes) -> int:
        """Returns the length of the temporal delimiter."""
        return 2 * string.startswith(b"\x12\0")


@register_model("jpegxl")
class JPEGXL(_FFmpegCodec):
    """A JPEG XL codestream (libjxl), effort 7, XYB 4:4:4, not tuned for PSNR.

    The quality is cjxl's: 100 is lossless, and 90 is a Butteraugli distance of 1. The
    lowest, 11, is a distance of 15, the largest that ffmpeg takes. It does not reach
    0.1 bpp on most photographs.
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
        """Returns the bytes outside of the codestream; 0 if there is no container."""
        return 0 if string.startswith(b"\xff\x0a") else outside_box(string, b"jxlc")
