"""Convolutions on integers, so that every machine computes the same numbers.

An activation is an integer a that stands for a / 2**FRACTION, carried in float64, with
|a| <= LIMIT. A layer's weights are integers w that stand for w / 2**shift; its shift is
the largest for which no sum can leave +-2**53, whatever the activations::

    LIMIT sum_k |w_k| + |bias|  <=  2**53

Within that range float64 adds and multiplies integers exactly, in any order: thread
count, batch size, library and device change nothing. Weights become integers by
scaling with a power of two and rounding, which IEEE 754 defines to the bit; so all
readers of a checkpoint get the same integers from its floating-point weights.

Tensors are ``(N, H, W, C)`` or rows ``(..., C)``.
"""

import functools
from collections.abc import Iterable

import torch
import torch.nn as nn
from compressai.layers import MaskedConv2d
from torch import Tensor
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.weight_norm import WeightNorm

from .winograd import TAPS, Winograd

FRACTION = 14
"""Bits of an activation after the binary point."""

LIMIT = 2**27
"""Activations saturate at +-LIMIT, which stands for +-8192."""

MAX_SHIFT = 24
SLOPE_SHIFT = 19
_LEAST = 256
"""From this many positions on, Winograd's convolution is the faster one."""

_CHUNK = 2**22
"""im2col copies at most about this many numbers at a time."""


def to_fixed(x: Tensor) -> Tensor:
    """Returns the activations nearest to real numbers.

    Args:
        x: Real numbers of any shape and dtype.

    Returns:
        Integers in float64 within +-LIMIT, like x.
    """
    return x.double().mul(2**FRACTION).round_().clamp_(-LIMIT, LIMIT)


def rounded_(sums: Tensor) -> Tensor:
    """Rounds a layer's sums to activations, in place.

    Args:
        sums: Sums in float64, with the half of rounding already added.

    Returns:
        The same tensor.
    """
    return sums.floor_().clamp_(-LIMIT, LIMIT)


def _space_rows(weight: Tensor) -> Tensor:
    """Copies a matrix so that its rows do not lie a multiple of 4 KiB apart.

    Such rows share few lines of the cache, and products take a quarter longer.
    """
    columns = weight.shape[1]
    room = weight.new_empty(len(weight), columns + 8 * (columns % 512 == 0))
    return room[:, :columns].copy_(weight)


def literal_list(parts: Iterable) -> str:
    """Returns parts as text, which fingerprints freeze.

    Args:
        parts: Objects with a ``literal()``.
    """
    return f"[{', '.join(part.literal() for part in parts)}]"


class FixedConv:
    """A convolution of stride 1, as im2col and one matrix product.

    Args:
        weight: ``(taps, C_in, C_out)``, real numbers.
        bias: ``(C_out,)``, real numbers.
        taps: (row, column) that each tap reads, relative to the output.

    Raises:
        ValueError: If the weights are not finite, or too large to be exact.
    """

    def __init__(self, weight: Tensor, bias: Tensor, taps: list[tuple[int, int]]):
        weight = weight.flatten(0, 1).cpu().double()  # in this order for MPS
        bias = bias.cpu().double()
        for shift in range(MAX_SHIFT, -1, -1):
            w = (weight * 2**shift).round()
            half = 2**shift // 2  # floor(sum + half) rounds to nearest
            b = (bias * 2 ** (FRACTION + shift)).round() + half
            if (w.abs().sum(0) * LIMIT + b.abs() + half <= 2**53).all():
                break
        else:
            raise ValueError(
                "the entropy part cannot be coded exactly: a layer's weights are "
                f"infinite or sum to more than {2**53 // LIMIT:g} "
                f"(largest found: {weight.abs().max():g})"
            )
        self.taps = taps
        self.reach = max(max(abs(dy), abs(dx)) for dy, dx in taps)
        self.shift = shift
        # Fractions, so that sums need no shift; (C_out, taps C_in), fast for few rows.
        self.weight, self.bias = _space_rows(w.t() * 2.0**-shift), b * 2.0**-shift

    def integers(self) -> tuple[Tensor, Tensor]:
        """Returns weight ``(C_out, taps C_in)`` and bias ``(C_out,)`` as integers."""
        return self.weight * 2.0**self.shift, self.bias * 2.0**self.shift

    def move(self, device: torch.device) -> None:
        """Moves the weights.

        Args:
            device: The device; it must have float64.
        """
        self.weight, self.bias = self.weight.to(device), self.bias.to(device)

    def literal(self) -> str:
        """Returns all but the weights as text, which fingerprints freeze."""
        taps = ", ".join(f"({dy}, {dx})" for dy, dx in self.taps)
        return f"('conv', [{taps}], {self.shift})"

    def rows(self, x: Tensor) -> Tensor:
        """Computes outputs from inputs that are already gathered.

        Args:
            x: Inputs of all taps, ``(..., taps * C_in)``.

        Returns:
            Activations, ``(..., C_out)``.
        """
        return rounded_(nn.functional.linear(x, self.weight, self.bias))

    def __call__(self, x: Tensor) -> Tensor:
        """Convolves ``(N, H, W, C_in)`` to ``(N, H, W, C_out)``, padded with zeros."""
        if self.taps == [(0, 0)]:
            return self.rows(x)
        if self._suits_winograd(x):
            return rounded_(self._winograd(x).add_(self.bias))
        n, height, width, channels = x.shape
        r = self.reach
        x = nn.functional.pad(x, (0, 0, r, r, r, r))
        out = x.new_empty(n, height, width, len(self.bias))
        step = max(1, _CHUNK // (n * width * channels * len(self.taps)))
        for top in range(0, height, step):
            end = min(top + step, height)
            views = [
                x[:, top + r + dy : end + r + dy, r + dx : r + dx + width]
                for dy, dx in self.taps
            ]
            out[:, top:end] = self.rows(torch.cat(views, -1))
        return out

    def _suits_winograd(self, x: Tensor) -> bool:
        """Says whether Winograd's convolution is fast and exact for x.

        On a GPU it is not used, because it would wait for the largest activation.
        """
        if self.taps != TAPS or not x.is_cpu or x[..., 0].numel() < _LEAST:
            return False
        return max(map(abs, map(float, x.aminmax()))) <= self._winograd.most

    @functools.cached_property
    def _winograd(self) -> Winograd:
        return Winograd(self.weight, self.shift)


class FixedUpsample:
    """A transposed convolution, as s x s convolutions whose outputs interleave.

    Args:
        phases: The convolutions, row by row.
        stride: s.
    """

    def __init__(self, phases: list[FixedConv], stride: int):
        self.phases, self.stride = phases, stride
        self.reach = max(p.reach for p in phases)

    def literal(self) -> str:
        """Returns all but the weights as text, which fingerprints freeze."""
        return f"('upsample', {self.stride}, {literal_list(self.phases)})"

    def __call__(self, x: Tensor) -> Tensor:
        n, height, width, _ = x.shape
        s = self.stride
        out = x.new_empty(n, height, s, width, s, len(self.phases[0].bias))
        for i, phase in enumerate(self.phases):
            out[:, :, i // s, :, i % s] = phase(x)
        return out.view(n, height * s, width * s, -1)


class FixedPixelShuffle:
    """Pixel shuffle from ``(N, H, W, C s s)`` to ``(N, H s, W s, C)``.

    Args:
        stride: s.
    """

    reach = 0

    def __init__(self, stride: int):
        self.stride = stride

    def literal(self) -> str:
        """Returns the layer as text, which fingerprints freeze."""
        return f"('shuffle', {self.stride})"

    def __call__(self, x: Tensor) -> Tensor:
        n, height, width, _ = x.shape
        s = self.stride
        x = x.view(n, height, width, -1, s, s).permute(0, 1, 4, 2, 5, 3)
        return x.reshape(n, height * s, width * s, -1)


class FixedLeakyReLU:
    """max(x, slope x) with a dyadic slope, rounded to nearest.

    Args:
        slope: From 0, which is ReLU, to 1.
    """

    reach, stride = 0, 1

    def __init__(self, slope: float):
        self.slope = round(slope * 2**SLOPE_SHIFT)

    def literal(self) -> str:
        """Returns the layer as text, which fingerprints freeze."""
        return f"('leaky', {self.slope})"

    def __call__(self, x: Tensor) -> Tensor:
        if not self.slope:
            return x.clamp(min=0)
        # A positive integer stays what it is.
        x = nn.functional.leaky_relu(x, self.slope * 2.0**-SLOPE_SHIFT)
        return x.add_(0.5).floor_()


class FixedNet:
    """A chain of layers.

    Args:
        modules: Conv2d of stride 1, ConvTranspose2d, PixelShuffle, ReLU, LeakyReLU,
            and Sequentials of these.

    Attributes:
        stride: Factor of upsampling.
        halo: Number of input rows on each side that an output row depends on.

    Raises:
        TypeError: For another module.
        ValueError: See :class:`FixedConv`.
    """

    def __init__(self, *modules: nn.Module):
        self.layers = [layer for m in _flatten(modules) for layer in _convert(m)]
        self.stride, halo = 1, 0.0
        for layer in self.layers:
            halo += layer.reach / self.stride
            self.stride *= getattr(layer, "stride", 1)
        self.halo = -int(-halo // 1)

    def __call__(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x

    def move(self, device: torch.device) -> None:
        """Moves the weights.

        Args:
            device: The device; it must have float64.
        """
        for conv in self.convs():
            conv.move(device)

    def convs(self) -> Iterable[FixedConv]:
        """Yields the convolutions, also those inside of other layers."""
        for layer in self.layers:
            if isinstance(layer, FixedUpsample):
                yield from layer.phases
            elif isinstance(layer, FixedConv):
                yield layer

    def literal(self) -> str:
        """Returns all but the weights as text, which fingerprints freeze."""
        return literal_list(self.layers)


def _flatten(modules: Iterable[nn.Module]) -> Iterable[nn.Module]:
    for module in modules:
        if isinstance(module, nn.Sequential):
            yield from _flatten(module)
        elif not isinstance(module, nn.Identity):
            yield module


def _convert(module: nn.Module) -> list:
    if isinstance(module, nn.PixelShuffle):
        return [FixedPixelShuffle(module.upscale_factor)]
    if isinstance(module, nn.ReLU):
        return [FixedLeakyReLU(0)]
    if isinstance(module, nn.LeakyReLU) and 0 <= module.negative_slope <= 1:
        return [FixedLeakyReLU(module.negative_slope)]
    if isinstance(module, nn.Conv2d) and _keeps_size(module):
        return [_convert_conv(module)]
    if isinstance(module, nn.ConvTranspose2d) and _keeps_size(module):
        return [_convert_transposed(module)]
    raise TypeError(
        f"the entropy part holds {module}, for which there is no exact counterpart; "
        "there is for Conv2d of stride 1, ConvTranspose2d, PixelShuffle, ReLU and "
        "LeakyReLU"
    )


def _keeps_size(conv: nn.Conv2d | nn.ConvTranspose2d) -> bool:
    """Says whether a convolution keeps the size, or multiplies it by its stride."""
    k, s = conv.kernel_size[0], conv.stride[0]
    transposed = isinstance(conv, nn.ConvTranspose2d)
    return (
        conv.kernel_size == (k, k)
        and k % 2 == 1
        and conv.stride == (s, s)
        and conv.padding == (k // 2, k // 2)
        and conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.padding_mode == "zeros"
        and (conv.output_padding == (s - 1, s - 1) if transposed else s == 1)
    )


def _convert_conv(conv: nn.Conv2d) -> FixedConv:
    """Converts a convolution; of a masked one only the taps that its mask leaves."""
    weight = _get_weight(conv).permute(2, 3, 1, 0)
    k = conv.kernel_size[0]
    mask = torch.ones(k, k, dtype=torch.bool)
    if isinstance(conv, MaskedConv2d):
        mask = conv.mask[0, 0].cpu() > 0
    taps = mask.nonzero().tolist()
    weight = torch.stack([weight[i, j] for i, j in taps])
    taps = [(i - k // 2, j - k // 2) for i, j in taps]
    return FixedConv(weight, _get_bias(conv), taps)


def _convert_transposed(conv: nn.ConvTranspose2d) -> FixedUpsample:
    # out[s i + a] = sum of w[k] x[i + d] over the k with s d = a + pad - k.
    weight = _get_weight(conv).permute(2, 3, 0, 1)
    size, s = conv.kernel_size[0], conv.stride[0]
    phases = []
    for a in range(s):
        for b in range(s):
            taps, parts = [], []
            for i in range((a + size // 2) % s, size, s):
                for j in range((b + size // 2) % s, size, s):
                    taps.append(((a + size // 2 - i) // s, (b + size // 2 - j) // s))
                    parts.append(weight[i, j])
            phases.append(FixedConv(torch.stack(parts), _get_bias(conv), taps))
    return FixedUpsample(phases, s) if s > 1 else phases[0]


def _get_weight(conv: nn.Conv2d | nn.ConvTranspose2d) -> Tensor:
    """Computes the weight of the next forward: pruned, or normalized."""
    for hook in conv._forward_pre_hooks.values():
        if isinstance(hook, BasePruningMethod) and hook._tensor_name == "weight":
            return hook.apply_mask(conv).detach()
        if isinstance(hook, WeightNorm) and hook.name == "weight":
            return hook.compute_weight(conv).detach()
    return conv.weight.detach()


def iterate_weights(net: nn.Module) -> Iterable[Tensor]:
    """Yields all tensors of a network that its :class:`FixedNet` is made of.

    Args:
        net: The network.
    """
    for module in _flatten([net]):
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            weight = _get_weight(module)
            if isinstance(module, MaskedConv2d):
                yield module.mask[0, 0]
                weight = weight * module.mask  # its forward does this to the weight
            yield weight
            yield _get_bias(module)


def _get_bias(conv: nn.Conv2d | nn.ConvTranspose2d) -> Tensor:
    if conv.bias is None:
        return conv.weight.new_zeros(conv.out_channels)
    return conv.bias.detach()
