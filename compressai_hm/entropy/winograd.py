"""3x3 convolutions on integers with 4 multiplications instead of 9.

S. Winograd's F(2x2, 3x3) (A. Lavin and S. Gray, "Fast Algorithms for Convolutional
Neural Networks", 2016): sums and differences within each 4x4 inputs d go through 16
matrix products, and sums and differences of these are the 2x2 outputs::

    Y = A [ (G g G') * (B d B') ] A'

4 G holds integers, so all numbers are integers times a power of two, and exact as long
as no sum exceeds 2**53. Activations must therefore be at most ``most``, which is some
hundreds and less than a direct convolution allows.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

TAPS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
"""Taps of the convolutions, (row, column) relative to the output."""

_CHUNK = 2**21
"""About this many numbers are transformed at a time."""

_G = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]).double()
_A = torch.tensor([[1, 1, 1, 0], [0, 1, -1, -1]]).double()


class Winograd:
    """The sums of a convolution, without its bias.

    Args:
        weight: Integers over ``2**shift``, ``(C_out, 9 C_in)``.
        shift: Number of fractional bits of the weight.

    Attributes:
        most: The largest activations for which the sums are exact.
    """

    def __init__(self, weight: Tensor, shift: int):
        taps = weight.reshape(len(weight), 3, 3, -1)
        tile = torch.einsum("ai,bj,oijc->aboc", _G, _G, taps)
        # Bounds all sums for an output: its inputs are sums of 4, and G adds 2 bits.
        each = tile.abs().sum(-1)
        most = 4 * torch.einsum("ia,jb,abo->ijo", _A.abs(), _A.abs(), each).max()
        self.most = 2.0 ** (53 - shift - 2) / max(most.item(), 1e-9)
        self.tile = tile.flatten(0, 1).mT  # (16, C_in, C_out)

    def __call__(self, x: Tensor) -> Tensor:
        """Convolves ``(N, H, W, C_in)`` to ``(N, H, W, C_out)``, padded with zeros."""
        n, height, width, channels = x.shape
        rows, cols = (height + 1) // 2, (width + 1) // 2
        x = F.pad(x, (0, 0, 1, 1 + width % 2, 1, 1 + height % 2))
        c_out = self.tile.shape[2]
        out = x.new_empty(n, rows, 2, cols, 2, c_out)
        step = max(1, _CHUNK // (16 * n * cols * max(channels, c_out)))
        for top in range(0, rows, step):
            end = min(top + step, rows)
            self._compute_band(x[:, 2 * top : 2 * end + 2], out[:, top:end])
        return out.view(n, 2 * rows, 2 * cols, c_out)[:, :height, :width]

    def _compute_band(self, x: Tensor, out: Tensor) -> None:
        n, rows, _, cols, _, c_out = out.shape
        tiles = x.new_empty(4, 4, n, rows, cols, x.shape[-1])
        for part, row in zip(tiles, _transform_inputs(x, 1, 2 * rows), strict=True):
            for plane, difference in zip(
                part, _transform_inputs(row, 2, 2 * cols), strict=True
            ):
                plane.copy_(difference)
        products = torch.bmm(tiles.view(16, -1, x.shape[-1]), self.tile)
        products = products.view(4, 4, n, rows, cols, c_out)
        for i, row in enumerate(_transform_outputs(products)):
            for j, plane in enumerate(_transform_outputs(row)):
                out[:, :, i, :, j] = plane


def _transform_inputs(x: Tensor, dim: int, length: int) -> list[Tensor]:
    """Computes B d along an axis."""
    index = [slice(None)] * dim
    a, b, c, d = (x[(*index, slice(i, i + length, 2))] for i in range(4))
    return [a - c, b + c, c - b, b - d]


def _transform_outputs(m: Tensor) -> list[Tensor]:
    """Computes A m along the first axis."""
    middle, other = m[1] + m[2], m[1] - m[2]
    return [middle.add_(m[0]), other.sub_(m[3])]
