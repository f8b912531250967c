"""Reference software of HEVC (HM) and VVC (VTM), which the user builds."""

import os
import tempfile
from pathlib import Path

from compressai.registry import register_model

from ..entropy import BitstreamError
from .parameter_sets import read_stream_size
from .samples import SampleCodec, ToolError, run_tool


class _ReferenceCodec(SampleCodec):
    """The reference software of a standard: 4:4:4, 8-bit input, all intra.

    The command lines are those of CompressAI's bench, except that HM's lacks the hash
    of the decoded picture and the option of its screen-content branch.

    Args:
        quality: QP.
        encoder: Path of the encoder. Defaults to the environment's ``<NAME>_ENCODER``.
        decoder: Path of the decoder. Defaults to ``<NAME>_DECODER``.
        config: The software's all-intra configuration. Defaults to ``<NAME>_CONFIG``.
    """

    tool: str
    standard: str
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
                run_tool(command)
                return stream.read_bytes()
            except (ToolError, FileNotFoundError) as e:
                raise RuntimeError(f"{self.tool} did not code the picture: {e}") from e

    def decode_samples(self, string: bytes, size: tuple[int, int]) -> bytes:
        coded = read_stream_size(string, self.standard)
        if coded not in (None, size):  # with equally many samples rows would mix
            raise BitstreamError(
                f"the stream says that its picture has {coded[1]}x{coded[0]} samples, "
                f"not {size[1]}x{size[0]}"
            )
        with tempfile.TemporaryDirectory() as folder:
            stream, decoded = Path(folder, "x.bin"), Path(folder, "x.yuv")
            stream.write_bytes(string)
            try:
                run_tool([self._path("decoder"), "-b", stream, "-o", decoded, "-d", 8])
            except ToolError as e:
                raise BitstreamError(f"{self.tool} does not decode it: {e}") from e
            if not decoded.is_file():
                raise BitstreamError(f"{self.tool} finds no picture in the stream")
            return decoded.read_bytes()

    def files(self) -> list[Path]:
        return [self._path(part) for part in self.paths]

    def _path(self, part: str) -> Path:
        variable = f"{self.tool}_{part.upper()}"
        path = self.paths[part] or os.environ.get(variable)
        if not path or not Path(path).is_file():
            raise RuntimeError(
                f"{self.tool}'s {part} is missing (found {path!r}): build {self.tool} "
                f"and give {part}=<path>, or set {variable}"
            )
        return Path(path)


@register_model("hevc-hm")
class HEVCHM(_ReferenceCodec):
    """HM, the reference software of HEVC."""

    tool, standard = "HM", "HEVC"
    limits = (0, 51)
    arguments = ("--Level=5.1",)


@register_model("vvc-vtm")
class VVCVTM(_ReferenceCodec):
    """VTM, the reference software of VVC."""

    tool, standard = "VTM", "VVC"
    limits = (0, 63)
