"""Video codecs code one intra picture as a raw stream, of samples.

RGB becomes YCbCr here (BT.709, full range, as in CompressAI's bench), and the stream
says nothing of colour. With 4:2:0 a chroma sample is the mean of its four pixels and
comes back by bicubic interpolation between centres. Sides that a codec cannot code are
padded by replication and cropped again.
"""

import subprocess
from abc import abstractmethod

import numpy as np
import torch
import torch.nn.functional as F
from compressai.transforms.functional import rgb2ycbcr, ycbcr2rgb
from torch import Tensor

from ..entropy import BitstreamError
from .base import ClassicalCodec


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


class SampleCodec(ClassicalCodec):
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
        height, width = (max(self.least, -(-side // m) * m) for side in size)
        return height, width


class ToolError(Exception):
    """A tool that failed; the message is a line of its error output."""


def run_tool(command: list, data: bytes = b"", line: int | None = None) -> bytes:
    """The standard output of a tool that is given data.

    Args:
        command: Its path and arguments.
        data: Its standard input.
        line: Which line of its error output says what went wrong; left out, the last
            that speaks of an error in all that it says.
    """
    command = [str(part) for part in command]
    try:
        done = subprocess.run(command, input=data, capture_output=True)
    except OSError as e:
        raise RuntimeError(f"{command[0]} cannot be run: {e.strerror}") from e
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or b"?").splitlines()
        if line is None:
            said = *done.stdout.splitlines(), *done.stderr.splitlines()
            lines = [own for own in said if b"error" in own.lower()] or lines
            line = -1
        raise ToolError(lines[line].decode(errors="replace").strip())
    return done.stdout
