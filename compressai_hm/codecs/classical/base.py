"""Classical image codecs behind the interface of the HM models.

``compress`` gives the file that the codec writes, and ``decompress`` reads nothing
else, so its bytes compare with a learned codec's. All codecs see 8-bit RGB and give
it back. Those that offer it are tuned for PSNR rather than for the eye; each runs on
one thread, so its bytes do not depend on the machine and pictures can be coded in
parallel.
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

    A subclass says ``limits`` and ``qualities``, and implements ``encode_rgb`` and
    ``decode_rgb`` of one picture; ``@register_model`` gives it a name.

    Args:
        quality: The codec's own knob, within ``limits``.

    Raises:
        ValueError: If the quality is outside.
    """

    learned = False

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
    def encode_rgb(self, picture: Tensor) -> bytes:
        """The file of a picture, uint8 RGB, ``(3, H, W)``."""

    @abstractmethod
    def decode_rgb(self, string: bytes, size: tuple[int, int]) -> Tensor:
        """The picture of a file; its size is (H, W)."""

    def overhead(self, string: bytes) -> int:
        """Bytes of a file that are its container, not the picture."""
        return 0

    def files(self) -> list[Path]:
        """Those outside any package that it codes with: others would code otherwise."""
        return []

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
        x_hat = (
            torch.stack([self.decode_rgb(s, size) for s in strings[0]]).float() / 255
        )
        names = {"human": "x_hat", "machine": "x_bar"}
        return {names[view]: x_hat for view in names if view in views}

    def encode(self, x: Tensor) -> bytes:
        """The file of one picture, RGB in [0, 1], ``(1, 3, H, W)``."""
        ((string,),) = self.compress(x)["strings"]
        return string

    def decode(
        self,
        data: bytes,
        size: tuple[int, int],
        views: tuple[str, ...] = ("human", "machine"),
    ) -> dict[str, Tensor]:
        """The views of a file; see :meth:`decompress`."""
        return self.decompress([[data]], size, views)


def outside_box(string: bytes, kind: bytes) -> int:
    """Bytes of an ISO base media file that are not the content of a box."""
    at = 0
    while at < len(string):
        length = int.from_bytes(string[at : at + 4]) or len(string) - at
        if string[at + 4 : at + 8] == kind:
            return len(string) - length + 8
        at += length
    return 0
