"""A model's entropy part as one exact procedure: to code, to decode, to measure.

::

    z ──► Q ──► h_s ─────────────► side ─┐
                                         ├─► parameters ─► index, mean ─► q ─► y_hat
    y_hat of the steps before ─► context ┘                                      │
                  ▲─────────────────────────────────────────────────────────────┘

Coding, decoding and the forward of evaluation walk the same steps (see ``order.py``) on
the same integers (see ``fixed_point.py``); they differ only in where a step's symbols
come from. So all three find the same y_hat, and bits that agree. With a step of
quantisation other than 1 (see ``steps.py``) y_hat = q D + mean, of which every term is
an integer: abs(q D) <= 2**15 2**18, far below 2**53.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from . import order
from .coding_tables import CodingTables, check_scales
from .devices import check_products, has_float64
from .families import Family, Group
from .fixed_point import (
    FRACTION,
    LIMIT,
    FixedConv,
    FixedNet,
    literal_list,
    to_fixed,
)
from .rans import LOWEST, Decoder, Encoder, Tables, flat_int64
from .steps import Steps, batch_widths

_Z_BAND = 1024
"""h_s goes in bands of rows of at most about this many positions of z."""

Step = Tensor | None
"""D over 2**FRACTION at some positions, ``(N, n, 1)``; None where it is 1."""

Exchange = Callable[[Tensor, "_FixedGroup", Tensor, Tensor, Step], Tensor]
"""Positions, group, index of the scale's table, mean and step to symbols."""


class _FixedGroup:
    """A :class:`Group` in integers."""

    def __init__(self, group: Group, buffers: Mapping[str, Tensor]):
        self.channels, self.parts = group.channels, group.parts
        self.order, self.steps = group.order, order.ORDERS[group.order]
        self.means_first = group.means_first
        self.across = FixedNet(group.across) if group.across else None
        self.spatial = None
        if group.spatial is not None:
            self.spatial = _spatial(group.spatial, causal=group.order == "wavefront")
        self.parameters = FixedNet(*group.parameters)
        self.tables = Tables(buffers)
        scales = buffers["scale_table"].double()
        check_scales(scales)
        if len(scales) != len(self.tables.sizes):
            raise ValueError(
                f"the conditional Gaussian has {len(scales)} scales and tables of "
                f"{len(self.tables.sizes)}; make them anew with update(force=True)"
            )
        # CompressAI's rule: the smallest scale of the table that is not below.
        self.thresholds = (scales[:-1] * 2**FRACTION).floor()

    def literal(self) -> str:
        """All but weights and tables; fingerprints hold it, so it is frozen."""
        own, parts = self.channels, ", ".join(f"'{part}'" for part in self.parts)
        if len(self.parts) == 1:
            parts += ","
        return (
            f"((slice({own.start}, {own.stop}, None), ({parts}), {self.means_first}), "
            f"'{self.order}')"
        )


class LatentCoder:
    """Codes y and z of a model, exactly.

    A value: made of weights and tables, and never changed, so that threads share it.

    Args:
        family: The model's.
        tables: Of the model's entropy models.
        device: Where it computes; a device without float64 is replaced by the CPU.

    Raises:
        TypeError: If the entropy part has a structure unknown here.
        ValueError: If its weights or tables are broken.
    """

    def __init__(
        self,
        family: Family,
        tables: CodingTables,
        device: torch.device | str = "cpu",
    ):
        names = {id(module): n for n, module in family.model.named_modules()}

        def buffers(module: nn.Module) -> Mapping[str, Tensor]:
            return tables.buffers[names[id(module)]]

        bottleneck = family.bottleneck
        self.groups = [_FixedGroup(g, buffers(g.gaussian)) for g in family.groups()]
        self.z_tables = Tables(buffers(bottleneck))
        self.medians = to_fixed(bottleneck._get_medians().detach()[:, 0, 0].cpu())
        if len(self.medians) != len(self.z_tables.sizes):
            raise ValueError(
                f"the bottleneck has {len(self.medians)} channels and tables of "
                f"{len(self.z_tables.sizes)}; make them anew with update(force=True)"
            )
        if len(self.medians) < 4:
            raise ValueError(
                f"z must have at least 4 channels, not {len(self.medians)}"
            )
        self.h_s = FixedNet(family.h_s)
        self._fingerprint = self._digest()[:4]
        self.device = torch.device("cpu")
        self._to(torch.device(device))

    def _to(self, device: torch.device) -> None:
        if not has_float64(device):
            return
        if device.type != "cpu":
            check_products(device)
        for conv in self._convs():
            conv.weight, conv.bias = conv.weight.to(device), conv.bias.to(device)
        for group in self.groups:
            group.thresholds = group.thresholds.to(device)
        self.medians = self.medians.to(device)
        self.device = device

    def _nets(self) -> Iterator[FixedNet]:
        yield self.h_s
        for group in self.groups:
            yield from filter(None, (group.across, group.spatial, group.parameters))

    def _convs(self) -> Iterator[FixedConv]:
        for net in self._nets():
            yield from net.convs()

    def fingerprint(self) -> bytes:
        """4 bytes that differ where a stream would decode differently."""
        return self._fingerprint

    def _digest(self) -> bytes:
        digest = hashlib.sha256()
        for conv in self._convs():
            digest.update(conv.weight.int().numpy().tobytes())
            digest.update(conv.bias.long().numpy().tobytes())
        digest.update(literal_list(self._nets()).encode())
        digest.update(self.medians.long().numpy().tobytes())
        for group in self.groups:
            digest.update(group.literal().encode())
            digest.update(group.thresholds.long().numpy().tobytes())
        for tables in (self.z_tables, *(group.tables for group in self.groups)):
            rows = (f"[{', '.join(map(str, row))}]" for row in tables.rows)
            digest.update(f"[{', '.join(rows)}]".encode())
            digest.update(tables.offsets.tobytes())
        return digest.digest()

    @torch.no_grad()
    def encode(self, y: Tensor, z: Tensor, steps: list[Steps] | None = None) -> "Coded":
        """Codes latents of pictures of one size.

        Args:
            y: ``(N, M, h, w)``, real numbers.
            z: ``(N, C, h', w')``.
            steps: Of each picture; 1 everywhere if left out.

        Returns:
            Their streams and symbols.
        """
        q_z = self._symbols_of_z(z)
        z_index = self._z_index(q_z)
        z_encoders = [Encoder(self.z_tables) for _ in q_z]
        symbols = [[flat_int64(q).astype("<i2")] for q in q_z]
        for encoder, q in zip(z_encoders, q_z, strict=True):
            encoder.push(flat_int64(q), z_index)

        target = self._target(y)
        y_encoders = [Encoder(self.groups[0].tables) for _ in q_z]

        def exchange(
            at: Tensor, group: _FixedGroup, index: Tensor, mean: Tensor, step: Step
        ) -> Tensor:
            q = _nearest(target[:, at, group.channels], mean, step)
            for i, encoder in enumerate(y_encoders):
                values = flat_int64(q[i])
                encoder.tables = group.tables
                encoder.push(values, flat_int64(index[i]))
                symbols[i].append(values.astype("<i2"))
            return q

        self._walk(q_z, y.shape[-2:], exchange, steps)
        return Coded(
            [[e.finish() for e in y_encoders], [e.finish() for e in z_encoders]],
            [np.concatenate(s) for s in symbols],
            steps or [Steps()] * len(symbols),
        )

    @torch.no_grad()
    def decode(
        self,
        y_strings: list[bytes],
        z_strings: list[bytes],
        z_shape: tuple[int, int],
        steps: list[Steps] | None = None,
    ) -> tuple[Tensor, list[np.ndarray]]:
        """The reverse of :meth:`encode`.

        Args:
            y_strings: Of each picture.
            z_strings: Of each picture.
            z_shape: (h', w') of z.
            steps: With which they were coded.

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

        def exchange(
            at: Tensor, group: _FixedGroup, index: Tensor, mean: Tensor, step: Step
        ) -> Tensor:
            q = np.empty(index.shape)
            for i, decoder in enumerate(decoders):
                decoder.tables = group.tables
                values = decoder.pull(flat_int64(index[i]))
                symbols[i].append(values.astype("<i2"))
                q[i] = values.reshape(q[i].shape)
            return torch.from_numpy(q).to(self.device)

        y_hat = self._walk(torch.stack(q_z).to(self.device), size, exchange, steps)
        for decoder in decoders:
            decoder.finish()
        return y_hat, [np.concatenate(s) for s in symbols]

    @torch.no_grad()
    def measure(
        self, y: Tensor, z: Tensor, steps: list[Steps] | None = None
    ) -> dict[str, Any]:
        """What coding would give, without streams.

        Args:
            y: ``(N, M, h, w)``, real numbers.
            z: ``(N, C, h', w')``.
            steps: Of each picture; 1 everywhere if left out.

        Returns:
            ``y_hat``, like y, and ``likelihoods`` ``{"y", "z"}``, float32: the
            probabilities that the range coder uses.
        """
        q_z = self._symbols_of_z(z)
        z_index = np.tile(self._z_index(q_z), len(q_z))
        p_z = torch.from_numpy(_likelihood(self.z_tables, flat_int64(q_z), z_index))
        target = self._target(y)
        p_y = torch.empty(target.shape, dtype=torch.float64)

        def exchange(
            at: Tensor, group: _FixedGroup, index: Tensor, mean: Tensor, step: Step
        ) -> Tensor:
            q = _nearest(target[:, at, group.channels], mean, step)
            p = _likelihood(group.tables, flat_int64(q), flat_int64(index))
            p_y[:, at.cpu(), group.channels] = torch.from_numpy(p).view(q.shape)
            return q

        y_hat = self._walk(q_z, y.shape[-2:], exchange, steps)
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

    def _walk(
        self,
        q_z: Tensor,
        size: tuple[int, int],
        exchange: Exchange,
        steps: list[Steps] | None,
    ) -> Tensor:
        """Walks the order; ``exchange`` turns scale index and mean into symbols.

        Args:
            q_z: ``(N, h', w', C)``.
            size: (h, w) of y.
            exchange: See ``Exchange``.
            steps: Of each picture.

        Returns:
            y_hat, ``(N, M, h, w)`` float64.
        """
        (n, *_), (height, width) = q_z.shape, size
        widths = batch_widths(steps, size, self.device)
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
                step = None if widths is None else widths[:, at, None]
                if step is not None:
                    scale = _over_step(scale, step)
                index = torch.searchsorted(group.thresholds, scale.contiguous())
                q = exchange(at, group, index, mean, step)
                values = q * (2**FRACTION if step is None else step)
                values = values.add_(mean).clamp_(-LIMIT, LIMIT)
                y_hat[:, flat, group.channels] = values
        return picture.permute(0, 3, 1, 2) * 2.0**-FRACTION


@dataclass
class Coded:
    """Streams, and the symbols that they hold in coding order, z first.

    Args:
        strings: ``[[y's bytes per picture], [z's bytes per picture]]``.
        symbols: Per picture, int16.
        steps: Per picture.
    """

    strings: list[list[bytes]]
    symbols: list[np.ndarray]
    steps: list[Steps]


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
    y_hat: Tensor, flat: Tensor, pitch: int, group: _FixedGroup, zero: bool
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


def _nearest(target: Tensor, mean: Tensor, step: Step = None) -> Tensor:
    """round((target - mean) / D) as real symbols, within the coder's clamp."""
    q = target - mean
    q = q.mul_(2.0**-FRACTION) if step is None else q.div_(step)
    return q.round_().clamp_(LOWEST, -LOWEST - 1)


def _over_step(scale: Tensor, step: Tensor) -> Tensor:
    """ceil(scale / D): above the same integer thresholds as scale / D is.

    Exact: scale 2**FRACTION <= 2**41 and D <= 2**18, so that a quotient which is no
    integer is farther from one than float64 rounds.
    """
    return scale.mul(2**FRACTION).div_(step).ceil_()


def _likelihood(tables: Tables, values: np.ndarray, index: np.ndarray) -> np.ndarray:
    return tables.probability[index, tables.symbols(values, index)]


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
