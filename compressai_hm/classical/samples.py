"""Codecs of raw samples: video codecs that code one intra picture.

RGB is converted to YCbCr (BT.709, full range, as in CompressAI's bench); the stream
does not name the color space. With 4:2:0 a chroma sample is the mean of its four
pixels, and is upsampled by bicubic interpolation. Sides that a codec cannot code are
padded by replication and cropped after decoding.
"""

import subprocess
from abc import abstractmethod

import numpy as np
import torch
import torch.nn.functional as F
from compressai.transforms.functional import rgb2ycbcr, ycbcr2rgb
from torch import Tensor

from ..entropy import BitstreamError
from ..geometry import padded_size
from .base import ClassicalCodec


def _to_samples(x: Tensor, chroma: str, bits: int) -> bytes:
    """Converts RGB in [0, 1], ``(1, 3, H, W)``, to planes of samples.

    With chroma "rgb" the planes are interleaved and remain RGB.
    """
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
    """Converts samples to a picture, uint8 RGB, ``(3, H, W)``."""
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


class SampleCodec(ClassicalCodec):
    """A codec that takes raw samples."""

    knob = "QP"
    chroma = "444"
    bits = 8
    multiple = 1
    least = 1
    """Sides are padded to a multiple of ``multiple``, and to ``least`` or more."""

    @abstractmethod
    def encode_samples(self, samples: bytes, size: tuple[int, int]) -> bytes:
        """Returns the stream of a picture's samples; its size is (H, W)."""

    @abstractmethod
    def decode_samples(self, string: bytes, size: tuple[int, int]) -> bytes:
        """Returns the samples of a stream.

        Args:
            string: The stream.
            size: (H, W) of the coded picture.

        Raises:
            BitstreamError: If the stream is damaged or holds another picture.
        """

    def encode_rgb(self, picture: Tensor) -> bytes:
        height, width = picture.shape[-2:]
        coded = self._coded_size((height, width))
        pad = (0, coded[1] - width, 0, coded[0] - height)
        x = F.pad(picture[None].float() / 255, pad, mode="replicate")
        return self.encode_samples(_to_samples(x, self.chroma, self.bits), coded)

    def decode_rgb(self, string: bytes, size: tuple[int, int]) -> Tensor:
        coded = self._coded_size(size)
        samples = self.decode_samples(string, coded)
        picture = _from_samples(samples, coded, self.chroma, self.bits)
        return picture[:, : size[0], : size[1]]

    def _coded_size(self, size: tuple[int, int]) -> tuple[int, int]:
        m = self.multiple
        height, width = (max(self.least, side) for side in padded_size(size, m))
        return height, width


class ToolError(Exception):
    """A tool that failed; the message is a line of its error output."""


def run_tool(command: list, data: bytes = b"", line: int | None = None) -> bytes:
    """Runs a tool and returns its standard output.

    Args:
        command: Its path and arguments.
        data: Its standard input. Defaults to nothing.
        line: Index of the line of its error output that names the cause of a failure.
            Defaults to the last line of its whole output with the word "error".

    Returns:
        The bytes of its standard output.

    Raises:
        ToolError: If the tool fails.
        RuntimeError: If it cannot be run.
    """
    command = [str(part) for part in command]
    try:
        done = subprocess.run(command, input=data, capture_output=True)
    except OSError as e:
        raise RuntimeError(f"{command[0]} cannot be run: {e.strerror}") from e
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or b"?").splitlines()
        if line is None:
            output = *done.stdout.splitlines(), *done.stderr.splitlines()
            lines = [text for text in output if b"error" in text.lower()] or lines
            line = -1
        raise ToolError(lines[line].decode(errors="replace").strip())
    return done.stdout
