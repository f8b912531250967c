"""Classical image codecs behind the interface of the HM models.

``compress`` returns the file that the codec writes, and ``decompress`` reads nothing
else, so its bytes can be compared with a learned codec's. All codecs take and return
8-bit RGB. They are tuned for PSNR where they offer it. Each runs on one thread, so its
bytes do not depend on the machine and pictures can be coded in parallel.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from ..checks import check_pictures, check_views
from ..entropy import BitstreamError


class ClassicalCodec(nn.Module, ABC):
    """A codec without parameters.

    A subclass sets ``limits`` and ``qualities``, and implements ``encode_rgb`` and
    ``decode_rgb`` for one picture. ``@register_model`` gives it a name.

    Args:
        quality: The codec's quality parameter, within ``limits``.

    Raises:
        ValueError: If the quality is outside of ``limits``.
    """

    learned = False

    knob = "quality"
    """The codec's name of its quality parameter."""

    limits = (0, 100)
    """The lowest and the highest quality allowed."""

    qualities: Sequence[int]
    """Qualities for about 0.1 to 1.5 bpp on photographs, ascending in rate."""

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
    def encode_rgb(self, picture: Tensor) -> bytes:
        """Returns the file of a picture, uint8 RGB, ``(3, H, W)``."""

    @abstractmethod
    def decode_rgb(self, string: bytes, size: tuple[int, int]) -> Tensor:
        """Returns the picture of a file, uint8 RGB, ``(3, H, W)``.

        Args:
            string: The file.
            size: (H, W) of the picture.

        Raises:
            BitstreamError: If the file is damaged or holds no picture of that size.
        """

    def overhead(self, string: bytes) -> int:
        """Returns how many bytes of a file (``string``) belong to its container."""
        return 0

    def files(self) -> list[Path]:
        """Returns external binaries and configs whose content affects the bitstream."""
        return []

    @torch.no_grad()
    def compress(self, x: Tensor) -> dict[str, Any]:
        """Codes pictures, each to a separate file.

        Args:
            x: RGB in [0, 1], ``(N, 3, H, W)``, any H and W from 1; rounded to 8 bits.

        Returns:
            ``strings``: ``[[file per picture]]``; ``shape``: (H, W) of the pictures.

        Raises:
            ValueError: If x has another shape or values outside of [0, 1].
            RuntimeError: If the encoder is missing.
        """
        check_pictures(x)
        pictures = (x.cpu().float() * 255).round().byte()
        strings = [self.encode_rgb(picture) for picture in pictures]
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
            views: Any of "human" and "machine". Both are the same picture.

        Returns:
            ``x_hat`` and / or ``x_bar``, ``(N, 3, H, W)``, in [0, 1].

        Raises:
            BitstreamError: If a file is damaged or holds no picture of that shape.
            ValueError: If there is no such view.
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
        x_hat = (
            torch.stack([self.decode_rgb(s, size) for s in strings[0]]).float() / 255
        )
        names = {"human": "x_hat", "machine": "x_bar"}
        return {names[view]: x_hat for view in names if view in views}

    def encode(self, x: Tensor) -> bytes:
        """Returns the file of one picture.

        Args:
            x: RGB in [0, 1], ``(1, 3, H, W)``.

        Raises:
            ValueError, RuntimeError: See :meth:`compress`.
        """
        ((string,),) = self.compress(x)["strings"]
        return string

    def decode(
        self,
        data: bytes,
        size: tuple[int, int],
        views: tuple[str, ...] = ("human", "machine"),
    ) -> dict[str, Tensor]:
        """Returns the views of a file.

        Args:
            data: The file.
            size: (H, W) of the picture.
            views: Any of "human" and "machine".

        Raises:
            BitstreamError, ValueError, RuntimeError: See :meth:`decompress`.
        """
        return self.decompress([[data]], size, views)


def outside_box(string: bytes, kind: bytes) -> int:
    """Returns how many bytes of an ISO base media file are not the content of a box.

    Args:
        string: The file.
        kind: The box's type, 4 bytes.
    """
    start = 0
    while start < len(string):
        length = int.from_bytes(string[start : start + 4]) or len(string) - start
        if string[start + 4 : start + 8] == kind:
            return len(string) - length + 8
        start += length
    return 0
