"""A model's entropy part as one exact procedure: to code, to decode, to measure.

::

    z ──► Q ──► h_s ─────────────► side ─┐
                                         ├─► parameters ─► index, mean ─► q ─► y_hat
    y_hat of the steps before ─► context ┘                                      │
                  ▲─────────────────────────────────────────────────────────────┘

Coding, decoding and the forward of evaluation walk the same steps (see ``order.py``) on
the same integers (see ``fixed_point.py``); they differ only in where a step's symbols
come from. So all three find the same y_hat, and bits that agree.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn as nn
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from compressai.latent_codecs import (
    ChannelGroupsLatentCodec,
    CheckerboardLatentCodec,
    GaussianConditionalLatentCodec,
    HyperpriorLatentCodec,
)
from torch import Tensor

from . import order
from .fixed_point import FRACTION, LIMIT, FixedConv, FixedNet, to_fixed
from .rans import LOWEST, Decoder, Encoder, Tables, numpy

_Z_BAND = 1024
"""h_s goes in bands of rows of at most about this many positions of z."""

Exchange = Callable[[Tensor, "Group", Tensor, Tensor], Tensor]


@dataclass
class Group:
    """Channels of y that are coded together.

    Args:
        channels: Which.
        steps: Their order.
        parameters: From the parts to scale and mean.
        parts: Its inputs: "hyper", "channels" (of the groups before), "spatial".
        tables: Of the conditional Gaussian.
        thresholds: The scales of the tables but the last, fixed point.
        means_first: Whether the means precede the scales; None without means.
        spatial: The convolution over what is decoded of these channels.
        across: The network over the groups before.
    """

    channels: slice
    steps: Callable[[int, int], order.Steps]
    parameters: FixedNet
    parts: tuple[str, ...]
    tables: Tables
    thresholds: Tensor
    means_first: bool | None = False
    spatial: FixedNet | None = None
    across: FixedNet | None = None


class LatentCoder:
    """Codes y and z of a model, exactly.

    Made from the present weights and tables; make another when they change.

    Args:
        model: A CompressAI model with a hyperprior.
        tables: Entropy models that stand in for the model's, by module name.

    Raises:
        TypeError: If the entropy part has a structure unknown here.
        ValueError: If its weights or tables are broken.
    """

    def __init__(self, model: nn.Module, tables: dict[str, nn.Module] | None = None):
        names = {id(module): name for name, module in model.named_modules()}
        tables = tables or {}
        bottleneck, h_s, self.groups = _structure(
            model, lambda module: tables.get(names[id(module)], module)
        )
        self.z_tables = Tables(bottleneck)
        self.medians = to_fixed(bottleneck.quantiles.detach()[:, 0, 1].cpu())
        if len(self.medians) < 4:
            raise ValueError(
                f"z must have at least 4 channels, not {len(self.medians)}"
            )
        self.h_s = FixedNet(h_s)
        self.device = torch.device("cpu")
        self._fingerprint: bytes | None = None

    def to(self, device: torch.device | str) -> "LatentCoder":
        """Moves the integers; a device without float64 is replaced by the CPU."""
        device = torch.device(device)
        try:
            torch.zeros(1, dtype=torch.float64, device=device)
        except (TypeError, RuntimeError):
            device = torch.device("cpu")
        if device != self.device:
            for conv in self._convs():
                conv.weight, conv.bias = conv.weight.to(device), conv.bias.to(device)
            for group in self.groups:
                group.thresholds = group.thresholds.to(device)
            self.medians = self.medians.to(device)
            self.device = device
        return self

    def _nets(self) -> Iterator[FixedNet]:
        yield self.h_s
        for group in self.groups:
            yield from filter(None, (group.across, group.spatial, group.parameters))

    def _convs(self) -> Iterator[FixedConv]:
        for net in self._nets():
            yield from net.convs()

    def fingerprint(self) -> bytes:
        """4 bytes that differ where a stream would decode differently."""
        if self._fingerprint is None:
            self._fingerprint = self._digest()[:4]
        return self._fingerprint

    def _digest(self) -> bytes:
        digest = hashlib.sha256()
        for conv in self._convs():
            digest.update(conv.weight.cpu().int().numpy().tobytes())
            digest.update(conv.bias.cpu().long().numpy().tobytes())
        digest.update(repr([net.signature() for net in self._nets()]).encode())
        digest.update(self.medians.cpu().long().numpy().tobytes())
        for group in self.groups:
            structure = group.channels, group.parts, group.means_first
            digest.update(repr((structure, group.steps.__name__)).encode())
            digest.update(group.thresholds.cpu().long().numpy().tobytes())
        for tables in (self.z_tables, *(group.tables for group in self.groups)):
            digest.update(repr(tables.rows.tolist()).encode())
            digest.update(tables.offsets.tobytes())
        return digest.digest()

    @torch.no_grad()
    def encode(self, y: Tensor, z: Tensor) -> "Coded":
        """Codes latents of pictures of one size.

        Args:
            y: ``(N, M, h, w)``, real numbers.
            z: ``(N, C, h', w')``.

        Returns:
            Their streams and symbols.
        """
        q_z = self._symbols_of_z(z)
        z_index = self._z_index(q_z)
        z_encoders = [Encoder(self.z_tables) for _ in q_z]
        symbols = [[numpy(q).astype("<i2")] for q in q_z]
        for encoder, q in zip(z_encoders, q_z, strict=True):
            encoder.push(numpy(q), z_index)

        target = self._target(y)
        y_encoders = [Encoder(self.groups[0].tables) for _ in q_z]

        def exchange(at: Tensor, group: Group, index: Tensor, mean: Tensor) -> Tensor:
            q = _nearest(target[:, at, group.channels], mean)
            for i, encoder in enumerate(y_encoders):
                values = numpy(q[i])
                encoder.tables = group.tables
                encoder.push(values, numpy(index[i]))
                symbols[i].append(values.astype("<i2"))
            return q

        self._walk(q_z, y.shape[-2:], exchange)
        return Coded(
            [[e.finish() for e in y_encoders], [e.finish() for e in z_encoders]],
            [np.concatenate(s) for s in symbols],
        )

    @torch.no_grad()
    def decode(
        self, y_strings: list[bytes], z_strings: list[bytes], z_shape: tuple[int, int]
    ) -> tuple[Tensor, list[np.ndarray]]:
        """The reverse of :meth:`encode`.

        Args:
            y_strings: Of each picture.
            z_strings: Of each picture.
            z_shape: (h', w') of z.

        Returns:
            y_hat, ``(N, M, h, w)`` float64, and the symbols.

        Raises:
            BitstreamError: If a stream is damaged or of other weights.
        """
        height, width = z_shape
        channels = len(self.medians)
        z_index = np.tile(np.arange(channels), height * width)
        symbols, q_z = [], []
        for string in z_strings:
            count = len(z_index)
            decoder = Decoder(self.z_tables, string, count, count, "z")
            values = decoder.pull(z_index)
            decoder.finish()
            symbols.append([values.astype("<i2")])
            q_z.append(torch.from_numpy(values).view(height, width, channels))

        size = (height * self.h_s.stride, width * self.h_s.stride)
        channels = self.groups[-1].channels.stop
        count = size[0] * size[1] * channels
        largest = max(order.BAND, size[1]) * channels
        decoders = [
            Decoder(self.groups[0].tables, string, count, largest, "y")
            for string in y_strings
        ]

        def exchange(at: Tensor, group: Group, index: Tensor, mean: Tensor) -> Tensor:
            q = np.empty(index.shape)
            for i, decoder in enumerate(decoders):
                decoder.tables = group.tables
                values = decoder.pull(numpy(index[i]))
                symbols[i].append(values.astype("<i2"))
                q[i] = values.reshape(q[i].shape)
            return torch.from_numpy(q).to(self.device)

        y_hat = self._walk(torch.stack(q_z).to(self.device), size, exchange)
        for decoder in decoders:
            decoder.finish()
        return y_hat, [np.concatenate(s) for s in symbols]

    @torch.no_grad()
    def measure(self, y: Tensor, z: Tensor) -> dict[str, Any]:
        """What coding would give, without streams.

        Args:
            y: ``(N, M, h, w)``, real numbers.
            z: ``(N, C, h', w')``.

        Returns:
            ``y_hat``, like y, and ``likelihoods`` ``{"y", "z"}``, float32: the
            probabilities that the range coder uses.
        """
        q_z = self._symbols_of_z(z)
        z_index = np.tile(self._z_index(q_z), len(q_z))
        p_z = torch.from_numpy(_likelihood(self.z_tables, numpy(q_z), z_index))
        target = self._target(y)
        p_y = torch.empty(target.shape, dtype=torch.float64)

        def exchange(at: Tensor, group: Group, index: Tensor, mean: Tensor) -> Tensor:
            q = _nearest(target[:, at, group.channels], mean)
            p = _likelihood(group.tables, numpy(q), numpy(index))
            p_y[:, at.cpu(), group.channels] = torch.from_numpy(p).view(q.shape)
            return q

        y_hat = self._walk(q_z, y.shape[-2:], exchange)
        likelihoods = {
            "y": p_y.transpose(1, 2).reshape(y.shape).float().to(y.device),
            "z": p_z.view(q_z.shape).permute(0, 3, 1, 2).float().to(y.device),
        }
        return {"y_hat": y_hat.to(y.dtype).to(y.device), "likelihoods": likelihoods}

    def _target(self, y: Tensor) -> Tensor:
        """``(N, h w, M)``, fixed point."""
        return to_fixed(y.to(self.device)).flatten(2).transpose(1, 2)

    def _symbols_of_z(self, z: Tensor) -> Tensor:
        if not z.isfinite().all():  # so is y, of which it is made
            raise ValueError("g_a or h_a gave values that are not finite")
        z = to_fixed(z.to(self.device)).permute(0, 2, 3, 1)
        return _nearest(z, self.medians)

    def _z_index(self, q_z: Tensor) -> np.ndarray:
        _, height, width, channels = q_z.shape
        return np.tile(np.arange(channels), height * width)

    def _walk(self, q_z: Tensor, size: tuple[int, int], exchange: Exchange) -> Tensor:
        """Walks the steps; ``exchange`` turns a step's index and mean into symbols.

        Args:
            q_z: ``(N, h', w', C)``.
            size: (h, w) of y.

        Returns:
            y_hat, ``(N, M, h, w)`` float64.
        """
        (n, *_), (height, width) = q_z.shape, size
        z_hat = q_z.double().mul_(2**FRACTION).add_(self.medians).clamp_(-LIMIT, LIMIT)
        hyper = _Rows(self.h_s, z_hat, max(1, _Z_BAND // z_hat.shape[2]))
        # Two positions of border, for the contexts at the edge.
        pitch = width + 4
        channels = self.groups[-1].channels.stop
        y_hat = _lazy_zeros((n, (height + 4) * pitch, channels), z_hat.device)
        picture = y_hat.view(n, height + 4, pitch, channels)[:, 2:-2, 2:-2]

        for group in self.groups:
            across = None
            if group.across:
                before = picture[..., : group.channels.start]
                across = _Rows(group.across, before, max(16, order.BAND // width))
            for at, has_context in group.steps(height, width):
                at = at.to(self.device)
                rows, cols = at // width, at % width
                flat = (rows + 2) * pitch + cols + 2
                parts = []
                for part in group.parts:
                    if part == "hyper":
                        parts.append(hyper.at(rows, at))
                    elif part == "channels":
                        parts.append(across.at(rows, at))
                    else:
                        parts.append(
                            _context(y_hat, flat, pitch, group, zero=not has_context)
                        )
                params = group.parameters(torch.cat(parts, -1))
                scale, mean = _scale_and_mean(params, group.means_first)
                index = torch.searchsorted(group.thresholds, scale.contiguous())
                q = exchange(at, group, index, mean)
                values = q.mul(2**FRACTION).add_(mean).clamp_(-LIMIT, LIMIT)
                y_hat[:, flat, group.channels] = values
        return picture.permute(0, 3, 1, 2) * 2.0**-FRACTION


@dataclass
class Coded:
    """Streams, and the symbols that they hold in coding order, z first.

    Args:
        strings: ``[[y's bytes per picture], [z's bytes per picture]]``.
        symbols: Per picture, int16.
    """

    strings: list[list[bytes]]
    symbols: list[np.ndarray]


class _Rows:
    """A network's output, computed in bands of input rows as they are asked for."""

    def __init__(self, net: FixedNet, x: Tensor, band: int):
        self.net, self.x, self.band, self.done = net, x, band, 0
        self.out = None

    def at(self, rows: Tensor, positions: Tensor) -> Tensor:
        """``(N, n, C)`` at flat positions of these rows."""
        if len(rows):
            self._fill_to(int(rows[-1]))
        return self.out[:, positions].double()

    def _fill_to(self, row: int) -> None:
        n, height, width, _ = self.x.shape
        net, s = self.net, self.net.stride
        while self.done * s <= row:
            end = min(self.done + self.band, height)
            top = max(0, self.done - net.halo)
            bottom = min(height, end + net.halo)
            part = net(self.x[:, top:bottom])
            part = part[:, (self.done - top) * s : (end - top) * s].flatten(1, 2)
            if self.out is None:  # int32: the whole of a large picture stays in memory
                size = (n, height * s * width * s, part.shape[-1])
                self.out = torch.empty(size, dtype=torch.int32, device=part.device)
            first = self.done * s * width * s
            self.out[:, first : first + part.shape[1]] = part
            self.done = end


def _lazy_zeros(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Float64 zeros; on the CPU, memory is taken as they are written."""
    if device.type == "cpu":
        return torch.from_numpy(np.zeros(shape))
    return torch.zeros(shape, dtype=torch.float64, device=device)


def _context(
    y_hat: Tensor, flat: Tensor, pitch: int, group: Group, zero: bool
) -> Tensor:
    (conv,), n = group.spatial.layers, len(y_hat)
    if zero:
        return y_hat.new_zeros(n, len(flat), len(conv.bias))
    taps = flat.new_tensor([dy * pitch + dx for dy, dx in conv.taps])
    read = (flat[:, None] + taps).flatten()
    seen = y_hat[..., group.channels].index_select(1, read)
    return conv.rows(seen.view(n, len(flat), -1))


def _scale_and_mean(params: Tensor, means_first: bool | None) -> tuple[Tensor, Tensor]:
    if means_first is None:
        return params, torch.zeros_like(params)
    first, second = params.chunk(2, -1)
    return (second, first) if means_first else (first, second)


def _nearest(target: Tensor, mean: Tensor) -> Tensor:
    """round(target - mean) as real symbols, within the coder's clamp."""
    q = (target - mean).mul_(2.0**-FRACTION).round_()
    return q.clamp_(LOWEST, -LOWEST - 1)


def _likelihood(tables: Tables, values: np.ndarray, index: np.ndarray) -> np.ndarray:
    return tables.probability[index, tables.symbols(values, index)]


def _structure(
    model: nn.Module, own: Callable[[nn.Module], nn.Module]
) -> tuple[EntropyBottleneck, nn.Module, list[Group]]:
    """The bottleneck, h_s and the groups of y, for the seven families."""
    if isinstance(getattr(model, "latent_codec", None), HyperpriorLatentCodec):
        hyper, y = model.latent_codec["hyper"], model.latent_codec["y"]
        groups = list(_latent_codec_groups(y, own))
        return own(hyper.entropy_bottleneck), hyper.h_s, groups
    if not all(
        hasattr(model, x) for x in ("entropy_bottleneck", "gaussian_conditional", "h_s")
    ):
        raise TypeError(
            f"{type(model).__name__} has an entropy part of unknown structure: neither "
            "entropy_bottleneck, gaussian_conditional and h_s, nor a "
            "HyperpriorLatentCodec as latent_codec"
        )
    gaussian = own(model.gaussian_conditional)
    context = getattr(model, "context_prediction", None)
    if context is not None:
        context = _spatial(context, causal=True)
    parameters = getattr(model, "entropy_parameters", nn.Identity())
    h_s = FixedNet(model.h_s)
    widths = [len(conv.bias) for conv in h_s.convs()]
    has_means = context is not None or widths[-1] == 2 * model.M
    group = Group(
        slice(0, model.M),
        order.wavefront if context is not None else order.raster,
        FixedNet(parameters),
        ("hyper", "spatial") if context is not None else ("hyper",),
        Tables(gaussian),
        _thresholds(gaussian),
        means_first=False if has_means else None,
        spatial=context,
    )
    return own(model.entropy_bottleneck), model.h_s, [group]


def _latent_codec_groups(y: nn.Module, own, first: int = 0) -> Iterator[Group]:
    if isinstance(y, ChannelGroupsLatentCodec):
        for k, count in enumerate(y.groups):
            (group,) = _latent_codec_groups(y.latent_codec[f"y{k}"], own, first)
            if k:
                group.across = FixedNet(y.channel_context[f"y{k}"])
                i = group.parts.index("hyper")
                group.parts = (*group.parts[:i], "channels", *group.parts[i:])
            first += count
            yield group
        return
    if isinstance(y, CheckerboardLatentCodec) and y.anchor_parity == "even":
        inner, spatial = y.latent_codec["y"], _spatial(y.context_prediction)
        channels, parameters = y.context_prediction.in_channels, y.entropy_parameters
        steps, parts = order.checkerboard, ("spatial", "hyper")
    else:
        raise TypeError(
            f"no exact coding is known for a {type(y).__name__} inside a "
            "HyperpriorLatentCodec; there is for ChannelGroupsLatentCodec and "
            "CheckerboardLatentCodec"
        )
    if not isinstance(inner, GaussianConditionalLatentCodec) or set(inner.chunks) != {
        "scales",
        "means",
    }:
        raise TypeError(
            "no exact coding is known for latents that are not conditionally Gaussian "
            f"with scales and means: {inner}"
        )
    gaussian = own(inner.gaussian_conditional)
    yield Group(
        slice(first, first + channels),
        steps,
        FixedNet(parameters, inner.entropy_parameters),
        parts,
        Tables(gaussian),
        _thresholds(gaussian),
        means_first=inner.chunks[0] == "means",
        spatial=spatial,
    )


def _spatial(context: nn.Module, causal: bool = False) -> FixedNet:
    """The context's net, if the orders here suit it."""
    net = FixedNet(context)
    suits = len(net.layers) == 1 and net.layers[0].reach <= 2
    if suits and causal:
        suits = all(tap < (0, 0) for tap in net.layers[0].taps)
    if suits and not causal:  # neighbours of the other parity only
        suits = all((dy + dx) % 2 for dy, dx in net.layers[0].taps)
    if not suits:
        raise TypeError(
            f"no order of coding is known for the context {context}; there is for "
            "MaskedConv2d and CheckerboardMaskedConv2d of at most 5x5"
        )
    return net


def _thresholds(gaussian: GaussianConditional) -> Tensor:
    """CompressAI's rule: the smallest scale of the table that is not below."""
    return (gaussian.scale_table[:-1].cpu().double() * 2**FRACTION).floor()
