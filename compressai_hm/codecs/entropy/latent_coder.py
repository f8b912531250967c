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
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from . import order
from .bottleneck import SteppedBottleneck
from .coding_tables import CodingTables
from .devices import check_products, has_float64
from .families import Family, scale_and_mean
from .fixed_group import FixedGroup
from .fixed_point import (
    FRACTION,
    LIMIT,
    FixedConv,
    FixedNet,
    literal_list,
    to_fixed,
)
from .places import BORDER, Place, Span, places
from .rans import LOWEST, Decoder, DeviceTables, Encoder, Tables
from .steps import Z_CLASSES, Steps, step_rows, z_class, z_widths
from .threads import in_own_threads

_TOGETHER = 2**15
"""Of so many positions at most, what is known of a checkerboard is computed at once."""

_Z_BAND = 1024
"""h_s goes in bands of rows of at most about this many positions of z."""

Step = Tensor | None
"""D over 2**FRACTION in some rows, ``(N n, 1)``; None where it is 1."""

Exchange = Callable[[FixedGroup, Place, Tensor, Tensor, Step], Tensor]
"""Group, place, index of the scale's table, mean and step to symbols: the last three
and what it returns have a row for each row of the place."""


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
        self.groups = [FixedGroup(g, buffers(g.gaussian)) for g in family.groups()]
        self.z_tables = Tables(buffers(bottleneck))
        self.medians = to_fixed(bottleneck._get_medians().detach()[:, 0, 0].cpu())
        stepped = isinstance(bottleneck, SteppedBottleneck)
        self.z_widths = z_widths() if stepped else None
        expected = len(self.medians) * (Z_CLASSES if stepped else 1)
        if len(self.z_tables.sizes) != expected:
            raise ValueError(
                f"the bottleneck needs {expected} tables and has "
                f"{len(self.z_tables.sizes)}; make them anew with update(force=True)"
            )
        if len(self.medians) < 4:
            raise ValueError(
                f"z must have at least 4 channels, not {len(self.medians)}"
            )
        self.h_s = FixedNet(family.h_s)
        self.z_cost = DeviceTables(self.z_tables, torch.device("cpu"))
        self._fingerprint = self._digest()[:3]
        self.tells = any("step" in group.parts for group in self.groups)
        self.device = torch.device("cpu")
        self._to(torch.device(device))

    def _to(self, device: torch.device) -> None:
        if not has_float64(device):
            return
        if device.type != "cpu":
            check_products(device)
        self.h_s.move(device)
        for group in self.groups:
            group.move(device)
        self.z_cost = DeviceTables(self.z_tables, device)
        self.medians = self.medians.to(device)
        if self.z_widths is not None:
            self.z_widths = self.z_widths.to(device)
        self.device = device

    def _nets(self) -> Iterator[FixedNet]:
        yield self.h_s
        for group in self.groups:
            yield from group.nets()

    def _convs(self) -> Iterator[FixedConv]:
        for net in self._nets():
            yield from net.convs()

    def fingerprint(self) -> bytes:
        """3 bytes that differ where a stream would decode differently."""
        return self._fingerprint

    def _digest(self) -> bytes:
        digest = hashlib.sha256()
        for conv in self._convs():
            weight, bias = conv.integers()
            digest.update(weight.int().numpy().tobytes())
            digest.update(bias.long().numpy().tobytes())
        digest.update(literal_list(self._nets()).encode())
        digest.update(self.medians.long().numpy().tobytes())
        if self.z_widths is not None:
            digest.update(self.z_widths.long().numpy().tobytes())
        for group in self.groups:
            digest.update(group.literal().encode())
            digest.update(group.thresholds.long().numpy().tobytes())
        for tables in (self.z_tables, *(group.tables for group in self.groups)):
            rows = (f"[{', '.join(map(str, row))}]" for row in tables.rows)
            digest.update(f"[{', '.join(rows)}]".encode())
            digest.update(tables.offsets.tobytes())
        return digest.digest()

    @in_own_threads
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
        kept = _Kept(self._target(y), len(y))
        classes = self._z_classes(len(z), steps)
        q_z = self._symbols_of_z(z, classes)
        self._walk(q_z, y.shape[-2:], kept, steps, classes)
        finite = z.isfinite().all().to(self.device)  # z is made of y
        finite, q_z, kept_y = _on_host(finite, q_z, kept.symbols_and_index)
        _check_finite(finite)
        out = Coded([[], []], [], steps or [Steps()] * len(y))
        z_index = self._z_index(q_z.shape, steps)
        for z_values, z_own, y_values, y_index in zip(
            q_z, z_index, *kept_y, strict=True
        ):
            z_encoder, y_encoder = Encoder(self.z_tables), Encoder(self.z_tables)
            z_encoder.push(z_values.reshape(-1), z_own)
            for group, ends in kept.parts:
                values, index = (x[ends[0] : ends[-1]] for x in (y_values, y_index))
                ends = np.array(ends[1:]) - ends[0]
                if group.skips:
                    coded = index > 0
                    ends = np.cumsum(coded)[ends - 1]
                    values, index = values[coded], index[coded]
                y_encoder.tables = group.tables
                y_encoder.push_steps(values, index, ends)
            out.strings[0].append(y_encoder.finish())
            out.strings[1].append(z_encoder.finish())
            out.symbols.append(np.concatenate([z_values.reshape(-1), y_values]))
        return out

    @in_own_threads
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
        shape = len(z_strings), height, width, channels
        symbols, q_z = [], []
        for string, index in zip(z_strings, self._z_index(shape, steps), strict=True):
            count = len(index)
            decoder = Decoder(self.z_tables, string, count, count, "z")
            values = decoder.pull(index)
            decoder.finish()
            symbols.append(values.astype("<i2"))
            q_z.append(torch.from_numpy(values).view(height, width, channels))

        size = (height * self.h_s.stride, width * self.h_s.stride)
        channels = self.groups[-1].channels.stop
        count = size[0] * size[1] * channels
        largest = max(order.BAND, size[1]) * channels
        decoders = [
            Decoder(self.groups[0].tables, string, count, largest, "y")
            for string in y_strings
        ]

        pulled = _Pulled(decoders, count, self.device)
        classes = self._z_classes(len(q_z), steps)
        q_z = torch.stack(q_z).to(self.device)
        y_hat = self._walk(q_z, size, pulled, steps, classes)
        for decoder in decoders:
            decoder.finish()
        both = zip(symbols, pulled.symbols, strict=True)
        return y_hat, [np.concatenate(parts) for parts in both]

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
        _check_finite(z.isfinite().all())
        classes = self._z_classes(len(z), steps)
        q_z, kept = self._symbols_of_z(z, classes), _Kept(self._target(y), len(y))
        y_hat = self._walk(q_z, y.shape[-2:], kept, steps, classes)
        index = torch.arange(len(self.medians), device=self.device).expand(q_z.shape)
        if classes is not None:
            index = index + len(self.medians) * classes.view(-1, 1, 1, 1)
        p_z = self.z_cost.likelihood(q_z.flatten(), index.flatten())
        p_z = p_z.view(q_z.shape).permute(0, 3, 1, 2)
        p_y = kept.likelihood().transpose(1, 2).reshape(y.shape)
        likelihoods = {"y": p_y.to(y.device), "z": p_z.to(y.device)}
        return {"y_hat": y_hat.to(y.dtype).to(y.device), "likelihoods": likelihoods}

    def _target(self, y: Tensor) -> Tensor:
        """``(N h w, M)``, fixed point."""
        y = y.to(self.device).permute(0, 2, 3, 1)
        return to_fixed(y.reshape(-1, y.shape[-1]))

    def _symbols_of_z(self, z: Tensor, classes: Tensor | None) -> Tensor:
        """``(N, h', w', C)`` int16."""
        z = to_fixed(z.to(self.device)).permute(0, 2, 3, 1)
        return _nearest(z, self.medians, self._z_width(classes)).short()

    def _z_classes(self, count: int, steps: list[Steps] | None) -> Tensor | None:
        """Which width z has in each picture, ``(N,)``; None where there is but one."""
        if self.z_widths is None:
            return None
        own = [z_class(step) for step in steps or [Steps()] * count]
        return torch.tensor(own).to(self.device)

    def _z_width(self, classes: Tensor | None) -> Step:
        """Of each picture, ``(N, 1, 1, 1)``."""
        if classes is None:
            return None
        return self.z_widths.index_select(0, classes).view(-1, 1, 1, 1)

    def _z_index(self, shape: tuple[int, ...], steps: list[Steps] | None) -> np.ndarray:
        """Tables of q_z, ``(N, h' w' C)``."""
        count, height, width, channels = shape
        index = np.tile(np.arange(channels), (count, height * width))
        if self.z_widths is not None:
            own = [z_class(step) for step in steps or [Steps()] * count]
            index += channels * np.array(own)[:, None]
        return index

    def _walk(
        self,
        q_z: Tensor,
        size: tuple[int, int],
        exchange: Exchange,
        steps: list[Steps] | None,
        classes: Tensor | None,
    ) -> Tensor:
        """Walks the order; ``exchange`` turns scale index and mean into symbols.

        Args:
            q_z: ``(N, h', w', C)``.
            size: (h, w) of y.
            exchange: See ``Exchange``.
            steps: Of each picture.
            classes: See :meth:`_z_classes`.

        Returns:
            y_hat, ``(N, M, h, w)`` float64.
        """
        (n, *_), (height, width) = q_z.shape, size
        widths, said = step_rows(steps, n, (height, width), self.device, self.tells)
        z_width = self._z_width(classes)
        z_hat = q_z.double().mul_(2**FRACTION if z_width is None else z_width)
        z_hat.add_(self.medians).clamp_(-LIMIT, LIMIT)
        hyper = _Rows(self.h_s, z_hat, max(1, _Z_BAND // z_hat.shape[2]))
        bordered = (n, height + 2 * BORDER, width + 2 * BORDER)
        channels = self.groups[-1].channels.stop
        y_hat = _lazy_zeros((math.prod(bordered), channels), z_hat.device)
        picture = y_hat.view(*bordered, channels)
        picture = picture[:, BORDER:-BORDER, BORDER:-BORDER]

        for group in self.groups:
            known = {"hyper": hyper, "step": _Told(said)}
            if group.across:
                before = picture[..., : group.channels.start]
                band = max(16, order.BAND // width)
                known["channels"] = _Rows(group.across, before, band)
            own = y_hat[:, group.channels]
            shape = n, height, width
            parts, sums = [known[p] for p in group.parts if p != "spatial"], None
            # Both passes over a checkerboard need the same, and rows that lie together
            # are the faster ones.
            if group.order == "checkerboard" and math.prod(shape) <= _TOGETHER:
                sums = group.before([part.all() for part in parts])
            for span in places(group.order, shape, group.taps, self.device):
                if sums is None:
                    before = group.before([part.at(span) for part in parts])
                else:
                    before = [x.index_select(0, span.at) for x in sums]
                for place in span.steps:
                    context = (
                        None if place.read is None else _context(own, place, group)
                    )
                    rows = [x[place.first : place.end] for x in before]
                    params = group.predicted(rows, context)[: len(place.at)]
                    scale, mean = scale_and_mean(params, group.means_first, -1)
                    step = None
                    if widths is not None:
                        step = widths.index_select(0, place.at)
                    if group.log_scales:
                        scale = scale - said[:, :1].index_select(0, place.at)
                    elif step is not None:
                        scale = _over_step(scale, step)
                    index = group.index_of(scale)
                    q = exchange(group, place, index, mean, step)
                    if step is None:
                        values = torch.add(mean, q, alpha=2**FRACTION)
                    else:
                        values = (q * step).add_(mean)
                    own.index_copy_(0, place.inside, values.clamp_(-LIMIT, LIMIT))
        return picture.permute(0, 3, 1, 2) * 2.0**-FRACTION


class _Kept:
    """The exchange of an encoder: it keeps what is coded, where it was computed.

    Args:
        target: ``(N h w, M)``, fixed point.
        n: Pictures.

    Attributes:
        symbols_and_index: ``(2, N, h w M)`` int16, in coding order.
        parts: Each group, and where its steps end in it, after where the first begins.
    """

    def __init__(self, target: Tensor, n: int):
        self.target, self.n, self.end = target, n, 0
        self.symbols_and_index = target.new_empty(
            (2, n, target.numel() // n), dtype=torch.int16
        )
        self.parts: list[tuple[FixedGroup, list[int]]] = []
        self.order: list[list[Tensor]] = []

    def __call__(
        self, group: FixedGroup, place: Place, index: Tensor, mean: Tensor, step: Step
    ) -> Tensor:
        if not self.parts or self.parts[-1][0] is not group:
            self.parts.append((group, [self.end]))
            self.order.append([])
        target = self.target[:, group.channels].index_select(0, place.at)
        q = _nearest(target, mean, step)
        if group.skips:
            q.masked_fill_(index == 0, 0)
        first, self.end = self.end, self.end + q.numel() // self.n
        for kept, x in zip(self.symbols_and_index, (q, index), strict=True):
            kept[:, first : self.end].copy_(x.view(self.n, -1))
        self.parts[-1][1].append(self.end)
        self.order[-1].append(place.at[: len(place.at) // self.n])
        return q

    def likelihood(self) -> Tensor:
        """Of all symbols, ``(N, h w, M)`` float32."""
        out = self.target.new_empty(self.target.shape, dtype=torch.float32)
        out = out.view(self.n, -1, out.shape[-1])
        for (group, ends), order_ in zip(self.parts, self.order, strict=True):
            values, index = self.symbols_and_index[..., ends[0] : ends[-1]]
            p = group.cost.likelihood(values.reshape(-1), index.reshape(-1))
            if group.skips:
                p.masked_fill_(index.reshape(-1) == 0, 1)
            own = out[..., group.channels]
            own.index_copy_(1, torch.cat(order_), p.view(own.shape))
        return out


class _Pulled:
    """The exchange of a decoder.

    Args:
        decoders: Of each picture.
        count: Symbols of each.
        device: Where the symbols go.
    """

    def __init__(self, decoders: list[Decoder], count: int, device: torch.device):
        self.decoders, self.device, self.end = decoders, device, 0
        self.symbols = np.empty((len(decoders), count), dtype="<i2")

    def __call__(
        self, group: FixedGroup, place: Place, index: Tensor, mean: Tensor, step: Step
    ) -> Tensor:
        if self.device.type != "cpu":
            index = index.short().cpu()
        rows = index.view(len(self.decoders), -1).numpy()
        first, self.end = self.end, self.end + rows.shape[1]
        symbols = self.symbols[:, first : self.end]
        for decoder, own, out in zip(self.decoders, rows, symbols, strict=True):
            decoder.tables = group.tables
            if group.skips:
                coded = own > 0
                out[:] = 0
                out[coded] = decoder.pull(own[coded])
            else:
                out[:] = decoder.pull(own)
        return torch.from_numpy(symbols).to(self.device).reshape(mean.shape)


def _on_host(*tensors: Tensor) -> list[np.ndarray]:
    """As int16; from a device in one transfer."""
    if all(x.is_cpu for x in tensors):
        return [x.short().numpy() for x in tensors]
    every = torch.cat([x.flatten().short() for x in tensors]).cpu()
    parts = every.split([x.numel() for x in tensors])
    both = zip(parts, tensors, strict=True)
    return [part.view(x.shape).numpy() for part, x in both]


def _check_finite(finite: Tensor | np.ndarray) -> None:
    if not finite:
        raise ValueError("g_a or h_a gave values that are not finite")


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
        self.out = self.whole = None

    def at(self, span: Span) -> Tensor:
        """``(rows, C)`` of a span."""
        self._fill_to(span.last)
        return self.out.flatten(0, 1).index_select(0, span.at).double()

    def all(self) -> Tensor:
        """``(N h w, C)``."""
        self._fill_to(self.x.shape[1] * self.net.stride - 1)
        if self.whole is None:
            self.whole = self.out.flatten(0, 1).double()
        return self.whole

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


class _Told:
    """What networks are told of the steps, at the places of a span."""

    def __init__(self, rows: Tensor | None):
        self.rows = rows

    def at(self, span: Span) -> Tensor:
        """``(rows, 2)``."""
        return self.rows.index_select(0, span.at)

    def all(self) -> Tensor:
        """``(N h w, 2)``."""
        return self.rows


def _lazy_zeros(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Float64 zeros; on the CPU, memory is taken as they are written."""
    if device.type == "cpu":
        return torch.from_numpy(np.zeros(shape))
    return torch.zeros(shape, dtype=torch.float64, device=device)


def _context(y_hat: Tensor, place: Place, group: FixedGroup) -> Tensor:
    seen = y_hat.index_select(0, place.read)
    return group.spatial.layers[0].rows(seen.view(place.end - place.first, -1))


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
