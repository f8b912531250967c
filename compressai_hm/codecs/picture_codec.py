"""What evaluation asks of a codec, learned or classical."""

from typing import Any, Protocol

from torch import Tensor


class PictureCodec(Protocol):
    """A picture to bytes, and bytes to views.

    HM models and :class:`compressai_hm.codecs.classical.ClassicalCodec` follow it.
    """

    learned: bool
    """Whether it has weights and a latent, so that it trains and its latent is read."""

    def compress(self, x: Tensor) -> dict[str, Any]:
        """Codes pictures of one size.

        Args:
            x: RGB in [0, 1], ``(N, 3, H, W)``.

        Returns:
            ``strings``, lists of the bytes of each picture, and ``shape``, (H, W).
        """

    def decompress(
        self,
        strings: list[list[bytes]],
        shape: tuple[int, int],
        views: tuple[str, ...] = ("human", "machine"),
    ) -> dict[str, Tensor]:
        """Decodes what :meth:`compress` returned.

        Returns:
            ``x_hat`` and / or ``x_bar``, ``(N, 3, H, W)``, in [0, 1].
        """

    def encode(self, x: Tensor) -> bytes:
        """The file of one picture, ``(1, 3, H, W)``."""

    def decode(
        self,
        data: bytes,
        size: tuple[int, int],
        views: tuple[str, ...] = ("human", "machine"),
    ) -> dict[str, Tensor]:
        """The views of a file, as :meth:`decompress` gives them; its size is (H, W)."""

    def overhead(self, data: bytes) -> int:
        """Bytes of a file that are its container, not the picture."""
