"""The methods of a codec that evaluation needs, learned or classical."""

from typing import Protocol

from torch import Tensor


class PictureCodec(Protocol):
    """A codec that codes a picture to bytes and bytes to views.

    :class:`FileCodec`, for HM models, and :class:`ClassicalCodec` have these methods.
    """

    learned: bool
    """Whether it has weights, which can be trained, and a latent, which can be read."""

    def encode(self, x: Tensor) -> bytes:
        """Codes one picture.

        Args:
            x: RGB in [0, 1], ``(1, 3, H, W)``.

        Returns:
            The file.
        """

    def decode(
        self,
        data: bytes,
        size: tuple[int, int],
        views: tuple[str, ...] = ("human", "machine"),
    ) -> dict[str, Tensor]:
        """Decodes a file.

        Args:
            data: The file.
            size: (H, W) of the picture in pixels.
            views: Views to compute, of "human" and "machine". Defaults to both.

        Returns:
            ``x_hat`` and / or ``x_bar``, ``(1, 3, H, W)``, in [0, 1].
        """

    def overhead(self, data: bytes) -> int:
        """Returns the number of bytes of a file's container, which code no picture.

        Args:
            data: The file.
        """
