"""A model's entropy part as one exact procedure that codes, decodes and measures.

::

    z ──► Q ──► h_s ─────────────► side ─┐
                                         ├─► parameters ─► index, mean ─► q ─► y_hat
    y_hat of the steps before ─► context ┘                                      │
                  ▲─────────────────────────────────────────────────────────────┘

Coding, decoding and the forward of evaluation walk the same steps (see ``order.py``) on
the same integers (see ``fixed_point.py``); they differ only in where a step's symbols
come from. All three therefore compute the same y_hat, and bits that agree. With a
quantization step different from 1 (see ``steps.py``) y_hat = q D + mean, where every
term is an integer: abs(q D) <= 2**15 2**18, far below 2**53.
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

from ..compat.compressai_private import get_medians
from . import order
from .bottleneck import SteppedBottleneck
from .coding_tables import CodingTables
from .devices import check_products, has_float64
from .families import Family, scale_and_mean
from .fixed_group import FixedGroup
from .fixed_point import FRACTION, LIMIT, FixedConv, FixedNet, literal_list, to_fixed
from .places import BORDER, Place, Span, places
from .range_coder import LOWEST, Decoder, DeviceTables, Encoder, Tables
from .steps import Z_CLASSES, QuantSteps, step_rows, z_class, z_widths
from .threads import in_own_threads

_TOGETHER = 2**15
"""Known parts of a checkerboard are computed at once up to this many positions."""

_Z_BAND = 1024
"""h_s is computed in bands of rows with about this many positions of z at most."""

Step = Tensor | None
"""D over 2**FRACTION by row, ``(N n, 1)``; None where all are 1."""

Exchange = Callable[[FixedGroup, Place, Tensor, Tensor, Step], Tensor]
"""Function from group, place, table index, mean and step to symbols. The last three
arguments and the result have one row for each row of the place."""


class LatentCoder:
    """Codes y and z of a model exactly.

    It is a value of weights and tables that never changes, so threads can share it.

    Args:
        family: The family of the model.
        tables: Tables of the model's entropy models.
        device: The device for computing; the CPU replaces one without float64. Defaults
            to "cpu".

    Raises:
        TypeError: If the structure of the entropy part is unknown here.
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
        self.medians = to_fixed(get_medians(bottleneck).detach()[:, 0, 0].cpu())
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

    def _iterate_nets(self) -> Iterator[FixedNet]:
        yield self.h_s
        for group in self.groups:
            yield from group.nets()

    def _iterate_convs(self) -> Iterator[FixedConv]:
        for net in self._iterate_nets():
            yield from net.convs()

    def fingerprint(self) -> bytes:
        """Returns 3 bytes that differ between coders that decode differently."""
        return self._fingerprint

    def _digest(self) -> bytes:
        digest = hashlib.sha256()
        for conv in self._iterate_convs():
            weight, bias = conv.integers()
            digest.update(weight.int().numpy().tobytes())
            digest.update(bias.long().numpy().tobytes())
        digest.update(literal_list(self._iterate_nets()).encode())
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
    def encode(
        self, y: Tensor, z: Tensor, steps: list[QuantSteps] | None = None
    ) -> "Coded":
        """Codes latents of pictures of one size.

        Args:
            y: Real numbers, ``(N, M, h, w)``.
            z: Real numbers, ``(N, C, h', w')``.
            steps: Steps of each picture. Defaults to None, 1 everywhere.

        Returns:
            Their streams and symbols.

        Raises:
            ValueError: If y or z is not finite.
        """
        exchange = _EncoderExchange(self._to_target(y), len(y))
        classes = self._classify_z(len(z), steps)
        q_z = self._quantize_z(z, classes)
        self._walk(q_z, y.shape[-2:], exchange, steps, classes)
        finite = z.isfinite().all().to(self.device)  # z is computed from y
        finite, q_z, coded_y = _copy_to_host(finite, q_z, exchange.symbols_and_index)
        _check_finite(finite)
        out = Coded([[], []], [], steps or [QuantSteps()] * len(y))
        z_index = self._index_z(q_z.shape, steps)
        for z_values, z_tables, y_values, y_index in zip(
            q_z, z_index, *coded_y, strict=True
        ):
            z_encoder, y_encoder = Encoder(self.z_tables), Encoder(self.z_tables)
            z_encoder.push(z_values.reshape(-1), z_tables)
            for group, ends in exchange.parts:
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
        steps: list[QuantSteps] | None = None,
    ) -> tuple[Tensor, list[np.ndarray]]:
        """Decodes the streams of :meth:`encode`.

        Args:
            y_strings: y's stream of each picture.
            z_strings: z's stream of each picture.
            z_shape: (h', w') of z.
            steps: Steps of each picture, those of encoding. Defaults to None, 1
                everywhere.

        Returns:
            y_hat, ``(N, M, h, w)`` float64, and the symbols of each picture.

        Raises:
            BitstreamError: If a stream is damaged or was coded with other weights.
        """
        height, width = z_shape
        channels = len(self.medians)
        shape = len(z_strings), height, width, channels
        symbols, q_z = [], []
        for string, index in zip(z_strings, self._index_z(shape, steps), strict=True):
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

        exchange = _DecoderExchange(decoders, count, self.device)
        classes = self._classify_z(len(q_z), steps)
        q_z = torch.stack(q_z).to(self.device)
        y_hat = self._walk(q_z, size, exchange, steps, classes)
        for decoder in decoders:
            decoder.finish()
        pairs = zip(symbols, exchange.symbols, strict=True)
        return y_hat, [np.concatenate(pair) for pair in pairs]

    @torch.no_grad()
    def measure(
        self, y: Tensor, z: Tensor, steps: list[QuantSteps] | None = None
    ) -> dict[str, Any]:
        """Computes what coding would give, without streams.

        Args:
            y: Real numbers, ``(N, M, h, w)``.
            z: Real numbers, ``(N, C, h', w')``.
            steps: Steps of each picture. Defaults to None, 1 everywhere.

        Returns:
            ``y_hat``, like y, and ``likelihoods`` ``{"y", "z"}``, the range coder's
            probabilities, float32.

        Raises:
            ValueError: If z is not finite.
        """
        _check_finite(z.isfinite().all())
        classes = self._classify_z(len(z), steps)
        q_z = self._quantize_z(z, classes)
        exchange = _EncoderExchange(self._to_target(y), len(y))
        y_hat = self._walk(q_z, y.shape[-2:], exchange, steps, classes)
        index = torch.arange(len(self.medians), device=self.device).expand(q_z.shape)
        if classes is not None:
            index = index + len(self.medians) * classes.view(-1, 1, 1, 1)
        p_z = self.z_cost.likelihood(q_z.flatten(), index.flatten())
        p_z = p_z.view(q_z.shape).permute(0, 3, 1, 2)
        p_y = exchange.likelihood().transpose(1, 2).reshape(y.shape)
        likelihoods = {"y": p_y.to(y.device), "z": p_z.to(y.device)}
        return {"y_hat": y_hat.to(y.dtype).to(y.device), "likelihoods": likelihoods}

    def _to_target(self, y: Tensor) -> Tensor:
        """Converts y to activations, ``(N h w, M)``."""
        y = y.to(self.device).permute(0, 2, 3, 1)
        return to_fixed(y.reshape(-1, y.shape[-1]))

    def _quantize_z(self, z: Tensor, classes: Tensor | None) -> Tensor:
        """Quantizes z to symbols, ``(N, h', w', C)`` int16."""
        z = to_fixed(z.to(self.device)).permute(0, 2, 3, 1)
        return _quantize(z, self.medians, self._find_z_width(classes)).short()

    def _classify_z(self, count: int, steps: list[QuantSteps] | None) -> Tensor | None:
        """Returns the class of z's width in each picture, ``(N,)``; None without."""
        if self.z_widths is None:
            return None
        classes = [z_class(step) for step in steps or [QuantSteps()] * count]
        return torch.tensor(classes).to(self.device)

    def _find_z_width(self, classes: Tensor | None) -> Step:
        """Returns z's width in each picture, ``(N, 1, 1, 1)``; None for 1."""
        if classes is None:
            return None
        return self.z_widths.index_select(0, classes).view(-1, 1, 1, 1)

    def _index_z(
        self, shape: tuple[int, ...], steps: list[QuantSteps] | None
    ) -> np.ndarray:
        """Returns the table of each symbol of z, ``(N, h' w' C)``."""
        count, height, width, channels = shape
        index = np.tile(np.arange(channels), (count, height * width))
        if self.z_widths is not None:
            classes = [z_class(step) for step in steps or [QuantSteps()] * count]
            index += channels * np.array(classes)[:, None]
        return index

    def _walk(
        self,
        q_z: Tensor,
        size: tuple[int, int],
        exchange: Exchange,
        steps: list[QuantSteps] | None,
        classes: Tensor | None,
    ) -> Tensor:
        """Walks the order; ``exchange`` gives the symbols of each step.

        Args:
            q_z: Symbols of z, ``(N, h', w', C)``.
            size: (h, w) of y.
            exchange: Gives the symbols; see ``Exchange``.
            steps: Steps of each picture; None where all are 1.
            classes: Classes of z's widths, from :meth:`_classify_z`.

        Returns:
            y_hat, ``(N, M, h, w)`` float64.
        """
        (n, *_), (height, width) = q_z.shape, size
        widths, features = step_rows(steps, n, (height, width), self.device, self.tells)
        z_width = self._find_z_width(classes)
        z_hat = q_z.double().mul_(2**FRACTION if z_width is None else z_width)
        z_hat.add_(self.medians).clamp_(-LIMIT, LIMIT)
        hyper = _LazyRows(self.h_s, z_hat, max(1, _Z_BAND // z_hat.shape[2]))
        bordered = (n, height + 2 * BORDER, width + 2 * BORDER)
        channels = self.groups[-1].channels.stop
        y_hat = _make_lazy_zeros((math.prod(bordered), channels), z_hat.device)
        picture = y_hat.view(*bordered, channels)
        picture = picture[:, BORDER:-BORDER, BORDER:-BORDER]

        for group in self.groups:
            known = {"hyper": hyper, "step": _StepFeatures(features)}
            if group.across:
                before = picture[..., : group.channels.start]
                band = max(16, order.BAND // width)
                known["channels"] = _LazyRows(group.across, before, band)
            decoded = y_hat[:, group.channels]
            shape = n, height, width
            parts, sums = [known[p] for p in group.parts if p != "spatial"], None
            # Both passes over a checkerboard need the same known parts, and contiguous
            # rows are faster.
            if group.order == "checkerboard" and math.prod(shape) <= _TOGETHER:
                sums = group.before([part.all() for part in parts])
            for span in places(group.order, shape, group.taps, self.device):
                if sums is None:
                    before = group.before([part.at(span) for part in parts])
                else:
                    before = [x.index_select(0, span.at) for x in sums]
                for place in span.steps:
                    context = None
                    if place.read is not None:
                        context = _compute_context(decoded, place, group)
                    rows = [x[place.first : place.end] for x in before]
                    params = group.predicted(rows, context)[: len(place.at)]
                    scale, mean = scale_and_mean(params, group.means_first, -1)
                    step = None
                    if widths is not None:
                        step = widths.index_select(0, place.at)
                    if group.log_scales:
                        scale = scale - features[:, :1].index_select(0, place.at)
                    elif step is not None:
                        scale = _over_step(scale, step)
                    index = group.find_table(scale)
                    q = exchange(group, place, index, mean, step)
                    if step is None:
                        values = torch.add(mean, q, alpha=2**FRACTION)
                    else:
                        values = (q * step).add_(mean)
                    decoded.index_copy_(0, place.inside, values.clamp_(-LIMIT, LIMIT))
        return picture.permute(0, 3, 1, 2) * 2.0**-FRACTION


class _EncoderExchange:
    """The exchange of an encoder, which stores symbols and tables on its device.

    Args:
        target: y as activations, ``(N h w, M)``.
        n: Number of pictures.

    Attributes:
        symbols_and_index: Symbols and their tables in coding order, ``(2, N, h w M)``
            int16.
        parts: Each group with the begin of its first step and the ends of all steps.
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
        q = _quantize(target, mean, step)
        if group.skips:
            q.masked_fill_(index == 0, 0)
        first, self.end = self.end, self.end + q.numel() // self.n
        for store, x in zip(self.symbols_and_index, (q, index), strict=True):
            store[:, first : self.end].copy_(x.view(self.n, -1))
        self.parts[-1][1].append(self.end)
        self.order[-1].append(place.at[: len(place.at) // self.n])
        return q

    def likelihood(self) -> Tensor:
        """Computes the probabilities of all symbols, ``(N, h w, M)`` float32."""
        out = self.target.new_empty(self.target.shape, dtype=torch.float32)
        out = out.view(self.n, -1, out.shape[-1])
        for (group, ends), order_ in zip(self.parts, self.order, strict=True):
            values, index = self.symbols_and_index[..., ends[0] : ends[-1]]
            p = group.cost.likelihood(values.reshape(-1), index.reshape(-1))
            if group.skips:
                p.masked_fill_(index.reshape(-1) == 0, 1)
            out_k = out[..., group.channels]
            out_k.index_copy_(1, torch.cat(order_), p.view(out_k.shape))
        return out


class _DecoderExchange:
    """The exchange of a decoder.

    Args:
        decoders: Decoder of each picture.
        count: Number of symbols of each picture.
        device: The device for the symbols.
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
        for decoder, row, out in zip(self.decoders, rows, symbols, strict=True):
            decoder.tables = group.tables
            if group.skips:
                coded = row > 0
                out[:] = 0
                out[coded] = decoder.pull(row[coded])
            else:
                out[:] = decoder.pull(row)
        return torch.from_numpy(symbols).to(self.device).reshape(mean.shape)


def _copy_to_host(*tensors: Tensor) -> list[np.ndarray]:
    """Converts tensors to int16 arrays; from a device in one transfer."""
    if all(x.is_cpu for x in tensors):
        return [x.short().numpy() for x in tensors]
    joined = torch.cat([x.flatten().short() for x in tensors]).cpu()
    parts = joined.split([x.numel() for x in tensors])
    pairs = zip(parts, tensors, strict=True)
    return [part.view(x.shape).numpy() for part, x in pairs]


def _check_finite(finite: Tensor | np.ndarray) -> None:
    if not finite:
        raise ValueError("g_a or h_a gave values that are not finite")


@dataclass
class Coded:
    """Streams of pictures and their symbols.

    Args:
        strings: ``[[y's bytes per picture], [z's bytes per picture]]``.
        symbols: Symbols of each picture in coding order, z first, int16.
        steps: Steps of each picture.
    """

    strings: list[list[bytes]]
    symbols: list[np.ndarray]
    steps: list[QuantSteps]


class _LazyRows:
    """The output of a network, computed in bands of input rows when it is needed."""

    def __init__(self, net: FixedNet, x: Tensor, band: int):
        self.net, self.x, self.band, self.done = net, x, band, 0
        self.out = self.whole = None

    def at(self, span: Span) -> Tensor:
        """Returns the rows of a span, ``(rows, C)``."""
        self._fill_to(span.last)
        return self.out.flatten(0, 1).index_select(0, span.at).double()

    def all(self) -> Tensor:
        """Returns all rows, ``(N h w, C)``."""
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
            if self.out is None:  # int32, as it holds the whole of a large picture
                size = (n, height * s * width * s, part.shape[-1])
                self.out = torch.empty(size, dtype=torch.int32, device=part.device)
            first = self.done * s * width * s
            self.out[:, first : first + part.shape[1]] = part
            self.done = end


class _StepFeatures:
    """Rows of ``steps.step_features``."""

    def __init__(self, rows: Tensor | None):
        self.rows = rows

    def at(self, span: Span) -> Tensor:
        """Returns the rows of a span, ``(rows, 2)``."""
        return self.rows.index_select(0, span.at)

    def all(self) -> Tensor:
        """Returns all rows, ``(N h w, 2)``."""
        return self.rows


def _make_lazy_zeros(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Makes float64 zeros; on the CPU they take memory only when written."""
    if device.type == "cpu":
        return torch.from_numpy(np.zeros(shape))
    return torch.zeros(shape, dtype=torch.float64, device=device)


def _compute_context(y_hat: Tensor, place: Place, group: FixedGroup) -> Tensor:
    seen = y_hat.index_select(0, place.read)
    return group.spatial.layers[0].rows(seen.view(place.end - place.first, -1))


def _quantize(target: Tensor, mean: Tensor, step: Step = None) -> Tensor:
    """Computes round((target - mean) / D), clamped to the coder's range, as float64."""
    q = target - mean
    q = q.mul_(2.0**-FRACTION) if step is None else q.div_(step)
    return q.round_().clamp_(LOWEST, -LOWEST - 1)


def _over_step(scale: Tensor, step: Tensor) -> Tensor:
    """Computes ceil(scale / D), which exceeds the same integer thresholds as scale / D.

    The result is exact: scale 2**FRACTION <= 2**41 and D <= 2**18, so a quotient that
        is
    not an integer is farther from one than float64 rounds.
    """
    return scale.mul(2**FRACTION).div_(step).ceil_()
