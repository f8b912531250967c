"""Convolutions on integers, so that every machine finds the same numbers.

An activation is an integer a that stands for a / 2**FRACTION, carried in float64, with
|a| <= LIMIT. A layer's weights are integers w that stand for w / 2**shift; its shift is
the largest for which no sum can leave +-2**53, whatever the activations::

    LIMIT sum_k |w_k| + |bias|  <=  2**53

Within that range float64 adds and multiplies integers exactly, in any order: thread
count, batch size, library and device change nothing. Weights become integers by
scaling with a power of two and rounding, which IEEE 754 defines to the bit; so the
float weights of a checkpoint are the integers, and all its readers find the same ones.

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
"""Winograd's way is the faster one from so many positions."""

_CHUNK = 2**22
"""im2col copies at most about this many numbers at a time."""


def to_fixed(x: Tensor) -> Tensor:
    """The nearest activations to real numbers: float64 integers, saturated."""
    return x.double().mul(2**FRACTION).round_().clamp_(-LIMIT, LIMIT)


def rounded_(sums: Tensor) -> Tensor:
    """A layer's sums, which hold their half, to activations, in place."""
    return sums.floor_().clamp_(-LIMIT, LIMIT)


def _spaced(weight: Tensor) -> Tensor:
    """A matrix whose rows do not lie a multiple of 4 KiB apart: they would share few
    lines of the cache, and cost a quarter more."""
    columns = weight.shape[1]
    room = weight.new_empty(len(weight), columns + 8 * (columns % 512 == 0))
    return room[:, :columns].copy_(weight)


def literal_list(parts: Iterable) -> str:
    """For fingerprints, written out so that renaming code changes none."""
    return f"[{', '.join(part.literal() for part in parts)}]"


class FixedConv:
    """A convolution of stride 1, as im2col and one matrix product.

    Args:
        weight: ``(taps, C_in, C_out)``, real numbers.
        bias: ``(C_out,)``, real numbers.
        taps: Per tap the (row, column) that it reads, relative to the output.

    Raises:
        ValueError: If the weights are not finite, or too large to be exact.
    """

    def __init__(self, weight: Tensor, bias: Tensor, taps: list[tuple[int, int]]):
        weight = weight.flatten(0, 1).cpu().double()  # in this order: MPS has no double
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
        # As fractions, so that sums need no shift; (C_out, taps C_in), for few rows.
        self.weight, self.bias = _spaced(w.t() * 2.0**-shift), b * 2.0**-shift

    def integers(self) -> tuple[Tensor, Tensor]:
        """Weight and bias as the integers that they stand for."""
        return self.weight * 2.0**self.shift, self.bias * 2.0**self.shift

    def move(self, device: torch.device) -> None:
        self.weight, self.bias = self.weight.to(device), self.bias.to(device)

    def literal(self) -> str:
        taps = ", ".join(f"({dy}, {dx})" for dy, dx in self.taps)
        return f"('conv', [{taps}], {self.shift})"

    def rows(self, x: Tensor) -> Tensor:
        """``(..., taps * C_in)`` to ``(..., C_out)``."""
        return rounded_(nn.functional.linear(x, self.weight, self.bias))

    def __call__(self, x: Tensor) -> Tensor:
        """``(N, H, W, C_in)`` to ``(N, H, W, C_out)``; beyond the border is zero."""
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
        """Not on a GPU, which would wait for the largest activation."""
        if self.taps != TAPS or not x.is_cpu or x[..., 0].numel() < _LEAST:
            return False
        return max(map(abs, map(float, x.aminmax()))) <= self._winograd.most

    @functools.cached_property
    def _winograd(self) -> Winograd:
        return Winograd(self.weight, self.shift)


class FixedUpsample:
    """s x s convolutions whose outputs interleave: a transposed convolution."""

    def __init__(self, phases: list[FixedConv], stride: int):
        self.phases, self.stride = phases, stride
        self.reach = max(p.reach for p in phases)

    def literal(self) -> str:
        return f"('upsample', {self.stride}, {literal_list(self.phases)})"

    def __call__(self, x: Tensor) -> Tensor:
        n, height, width, _ = x.shape
        s = self.stride
        out = x.new_empty(n, height, s, width, s, len(self.phases[0].bias))
        for i, phase in enumerate(self.phases):
            out[:, :, i // s, :, i % s] = phase(x)
        return out.view(n, height * s, width * s, -1)


class FixedPixelShuffle:
    """``(N, H, W, C s s)`` to ``(N, H s, W s, C)``."""

    reach = 0

    def __init__(self, stride: int):
        self.stride = stride

    def literal(self) -> str:
        return f"('shuffle', {self.stride})"

    def __call__(self, x: Tensor) -> Tensor:
        n, height, width, _ = x.shape
        s = self.stride
        x = x.view(n, height, width, -1, s, s).permute(0, 1, 4, 2, 5, 3)
        return x.reshape(n, height * s, width * s, -1)


class FixedLeakyReLU:
    """max(x, slope x) with a dyadic slope, rounded to nearest; slope 0 is ReLU."""

    reach, stride = 0, 1

    def __init__(self, slope: float):
        self.slope = round(slope * 2**SLOPE_SHIFT)

    def literal(self) -> str:
        return f"('leaky', {self.slope})"

    def __call__(self, x: Tensor) -> Tensor:
        if not self.slope:
            return x.clamp(min=0)
        # Of an x that is positive, and an integer, this leaves x.
        x = nn.functional.leaky_relu(x, self.slope * 2.0**-SLOPE_SHIFT)
        return x.add_(0.5).floor_()


class FixedNet:
    """A chain of layers.

    Args:
        modules: Conv2d of stride 1, ConvTranspose2d, PixelShuffle, ReLU, LeakyReLU,
            and Sequentials of these.

    Attributes:
        stride: By how much it upsamples.
        halo: How many input rows on either side an output row depends on.

    Raises:
        TypeError: For another module.
        ValueError: See :class:`FixedConv`.
    """

    def __init__(self, *modules: nn.Module):
        self.layers = [layer for m in _flat(modules) for layer in _fixed(m)]
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
        for conv in self.convs():
            conv.move(device)

    def convs(self) -> Iterable[FixedConv]:
        for layer in self.layers:
            if isinstance(layer, FixedUpsample):
                yield from layer.phases
            elif isinstance(layer, FixedConv):
                yield layer

    def literal(self) -> str:
        """All but the weights; fingerprints hold it, so it is frozen."""
        return literal_list(self.layers)


def _flat(modules: Iterable[nn.Module]) -> Iterable[nn.Module]:
    for module in modules:
        if isinstance(module, nn.Sequential):
            yield from _flat(module)
        elif not isinstance(module, nn.Identity):
            yield module


def _fixed(module: nn.Module) -> list:
    if isinstance(module, nn.PixelShuffle):
        return [FixedPixelShuffle(module.upscale_factor)]
    if isinstance(module, nn.ReLU):
        return [FixedLeakyReLU(0)]
    if isinstance(module, nn.LeakyReLU) and 0 <= module.negative_slope <= 1:
        return [FixedLeakyReLU(module.negative_slope)]
    if isinstance(module, nn.Conv2d) and _keeps_size(module):
        return [_fixed_conv(module)]
    if isinstance(module, nn.ConvTranspose2d) and _keeps_size(module):
        return [_fixed_transposed(module)]
    raise TypeError(
        f"the entropy part holds {module}, for which there is no exact counterpart; "
        "there is for Conv2d of stride 1, ConvTranspose2d, PixelShuffle, ReLU and "
        "LeakyReLU"
    )


def _keeps_size(conv: nn.Conv2d | nn.ConvTranspose2d) -> bool:
    """Or multiplies it by the stride, if transposed."""
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


def _fixed_conv(conv: nn.Conv2d) -> FixedConv:
    """Of a masked convolution only the taps that its mask leaves."""
    weight = _weight(conv).permute(2, 3, 1, 0)
    k = conv.kernel_size[0]
    kept = torch.ones(k, k, dtype=torch.bool)
    if isinstance(conv, MaskedConv2d):
        kept = conv.mask[0, 0].cpu() > 0
    at = kept.nonzero().tolist()
    weight = torch.stack([weight[i, j] for i, j in at])
    return FixedConv(weight, _bias(conv), [(i - k // 2, j - k // 2) for i, j in at])


def _fixed_transposed(conv: nn.ConvTranspose2d) -> FixedUpsample:
    # out[s i + a] = sum of w[k] x[i + d] over the k with s d = a + pad - k.
    weight = _weight(conv).permute(2, 3, 0, 1)
    size, s = conv.kernel_size[0], conv.stride[0]
    phases = []
    for a in range(s):
        for b in range(s):
            taps, parts = [], []
            for i in range((a + size // 2) % s, size, s):
                for j in range((b + size // 2) % s, size, s):
                    taps.append(((a + size // 2 - i) // s, (b + size // 2 - j) // s))
                    parts.append(weight[i, j])
            phases.append(FixedConv(torch.stack(parts), _bias(conv), taps))
    return FixedUpsample(phases, s) if s > 1 else phases[0]


def _weight(conv: nn.Conv2d | nn.ConvTranspose2d) -> Tensor:
    """As the next forward would have it: pruned, or normalised."""
    for hook in conv._forward_pre_hooks.values():
        if isinstance(hook, BasePruningMethod) and hook._tensor_name == "weight":
            return hook.apply_mask(conv).detach()
        if isinstance(hook, WeightNorm) and hook.name == "weight":
            return hook.compute_weight(conv).detach()
    return conv.weight.detach()


def weights_of(net: nn.Module) -> Iterable[Tensor]:
    """All tensors of a network that its :class:`FixedNet` is made of."""
    for module in _flat([net]):
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            weight = _weight(module)
            if isinstance(module, MaskedConv2d):
                yield module.mask[0, 0]
                weight = weight * module.mask  # as a step of training leaves it
            yield weight
            yield _bias(module)


def _bias(conv: nn.Conv2d | nn.ConvTranspose2d) -> Tensor:
    if conv.bias is None:
        return conv.weight.new_zeros(conv.out_channels)
    return conv.bias.detach()
