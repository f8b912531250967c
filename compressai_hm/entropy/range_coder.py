"""CompressAI's range coder (``compressai.ans``) with checks of bounds.

CompressAI checks none: reading past the end of a stream, or coding a value that a table
has no room for, is undefined behavior. This module prevents both:

- CompressAI's escapes, whose length is unlimited, are never reached: each table gets
one
  more entry of zero probability in their place. The last symbol of a table, its tail,
  is our escape, and two bytes with the value follow after the step's symbols.
- A symbol then takes at most 16 bits, and an escape 16 more, so padding for the largest
  step keeps every read inside, as long as no step begins beyond the end. The symbols'
  information content is the number of bits that were read: decoding stops as soon as
  they exceed the stream. (This needs a coder state of at least 2**31 at the start, as
  every encoder leaves it.)
- The padding begins with a mark. The coder's state ends as it began, so an undamaged
  stream always decodes to the same values after its last symbol. This check takes no
  byte of the file. (It misses a change of one symbol into another of equal probability;
  the file's checksums do not.)
"""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import torch
from compressai.ans import BufferedRansEncoder, RansDecoder
from torch import Tensor

from ..compat.compressai_private import CDF, CDF_LENGTH, OFFSET

TOTAL = 2**16
"""Sum of the frequencies of a table."""

LOWEST = -(2**15)
"""Symbols lie in [LOWEST, -LOWEST - 1]: an escape's two bytes."""

_FEWEST = 4
"""Streams of fewer symbols end with this many zero bytes."""

_PORTION = 2**18
"""About this many symbols are coded at a time, because lists take much memory."""

_END = bytes(range(0x9D, 0x9D + 32))


class BitstreamError(ValueError):
    """A bitstream that cannot be decoded: damaged, forged, or of other weights."""


_BYTES = [*range(0, TOTAL + 1, TOTAL // 256), TOTAL]


def _decode_past_end() -> list[int]:
    """Decodes the bytes that follow the end of every stream."""
    encoder, decoder = BufferedRansEncoder(), RansDecoder()
    args = [_BYTES], [len(_BYTES)], [0]
    encoder.encode_with_indexes([0] * 8, [0] * 8, *args)
    decoder.set_stream(encoder.flush() + _END)
    return decoder.decode_stream([0] * 32, *args)[8:]


_AFTER_END = _decode_past_end()


class Tables:
    """Frequency tables, one a row, from CompressAI's buffers.

    Args:
        buffers: An entropy model's buffers by name, on the CPU.

    Raises:
        ValueError: If the buffers are not such tables.
    """

    def __init__(self, buffers: Mapping[str, Tensor]):
        cdfs = buffers[CDF].numpy()
        self.sizes = buffers[CDF_LENGTH].numpy().astype(np.int64).reshape(-1) - 1
        self.offsets = buffers[OFFSET].numpy().astype(np.int64).reshape(-1)
        ok = len(cdfs) == len(self.sizes) == len(self.offsets) > 0 and all(
            1 <= size < cdfs.shape[1]
            and row[0] == 0
            and row[size] == TOTAL
            and (np.diff(row[: size + 1]) > 0).all()
            for row, size in zip(cdfs, self.sizes, strict=False)
        )
        if not ok:
            raise ValueError(
                "the entropy coder's tables are not frequency tables; make them anew "
                "with update(force=True)"
            )
        rows = [
            row[: size + 1].tolist() + [TOTAL]
            for row, size in zip(cdfs, self.sizes, strict=True)
        ]
        rows.append(_BYTES)
        self.rows = np.empty(len(rows), dtype=object)
        self.rows[:] = rows
        # Probability of every symbol; an escape's includes its two bytes.
        self.probability = np.zeros((len(self.sizes), self.sizes.max()))
        for p, row, size in zip(self.probability, cdfs, self.sizes, strict=True):
            p[:size] = np.diff(row[: size + 1]) / TOTAL
            p[size - 1] /= 2**16
        self.escapes = self.sizes - 1
        with np.errstate(divide="ignore"):
            self.bits = -np.log2(self.probability)

    def symbols(self, values: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Finds the symbol of its table that codes each value.

        Args:
            values: Integers, ``(n,)``.
            index: Table of each value, ``(n,)``.

        Returns:
            Symbols, ``(n,)``; the last symbol of a table is its escape.
        """
        symbols = values - self.offsets.take(index)
        escape = self.escapes.take(index)
        return np.where((symbols < 0) | (symbols > escape), escape, symbols)

    def used(self, index: np.ndarray) -> tuple[list, list, list, list]:
        """Returns the arguments that follow the symbols in CompressAI's calls.

        Args:
            index: Table of each value, ``(n,)``.
        """
        is_used = np.bincount(index) > 0
        rows = self.rows[: len(is_used)][is_used].tolist()
        place = (np.cumsum(is_used) - 1).take(index)
        return _to_list(place, len(rows)), rows, [*map(len, rows)], [0] * len(rows)

    def code_bytes(self, count: int) -> tuple[list, list, list, list]:
        """Returns the arguments that follow plain bytes in CompressAI's calls.

        Args:
            count: Number of bytes.
        """
        return self.used(np.full(count, len(self.rows) - 1))


class DeviceTables:
    """Probabilities of the symbols of tables, on a device.

    Args:
        tables: The tables.
        device: The device.
    """

    def __init__(self, tables: Tables, device: torch.device):
        self.offsets = torch.from_numpy(tables.offsets).to(device)
        self.escapes = torch.from_numpy(tables.escapes).to(device)
        self.stride = tables.probability.shape[1]
        probability = torch.from_numpy(tables.probability).float().to(device)
        self.probability = probability.reshape(-1)

    def likelihood(self, values: Tensor, index: Tensor) -> Tensor:
        """Returns the probabilities of values.

        Args:
            values: Integers, ``(n,)``.
            index: Table of each value, ``(n,)``.

        Returns:
            Probabilities, ``(n,)`` float32.
        """
        parts = zip(values.split(_PORTION), index.split(_PORTION), strict=True)
        return torch.cat([self._look_up(*part) for part in parts])

    def _look_up(self, values: Tensor, index: Tensor) -> Tensor:
        index = index.long()
        symbols = values - self.offsets.index_select(0, index)
        escapes = self.escapes.index_select(0, index)
        outside = (symbols < 0).logical_or_(symbols > escapes)
        places = torch.where(outside, escapes, symbols).add_(index.mul_(self.stride))
        return self.probability.index_select(0, places)


def _to_list(symbols: np.ndarray, below: int) -> list[int]:
    """Makes a list of integers below a bound; by way of bytes it is twice as fast."""
    if below > 256:
        return symbols.tolist()
    return list(symbols.astype(np.uint8).tobytes())


def _from_list(symbols: list[int], below: int) -> np.ndarray:
    if below > 256:
        return np.fromiter(symbols, np.int64, len(symbols))
    return np.frombuffer(bytes(symbols), np.uint8).astype(np.int64)


class Encoder:
    """Codes one stream: call ``push`` in the order of decoding, then ``finish``.

    Args:
        tables: The tables; they may be replaced between steps.
    """

    def __init__(self, tables: Tables):
        self.tables, self._count = tables, 0
        self._encoder = BufferedRansEncoder()

    def push(self, values: np.ndarray, index: np.ndarray) -> None:
        """Codes a step.

        Args:
            values: Integers from LOWEST to -LOWEST - 1, ``(n,)``.
            index: Table of each value, ``(n,)``.
        """
        self.push_steps(values, index, np.array([len(values)]))

    def push_steps(
        self, values: np.ndarray, index: np.ndarray, ends: np.ndarray
    ) -> None:
        """Codes several steps, as :meth:`push` does one after the other.

        Args:
            values: Values of all steps, ``(n,)``.
            index: Table of each value, ``(n,)``.
            ends: End of each step among the values, ``(steps,)``.
        """
        portion = ends // _PORTION
        last = [*ends[:-1][np.diff(portion) > 0], len(values)]
        for first, end in pairwise([0, *last]):
            step_ends = ends[(ends > first) & (ends <= end)] - first
            self._push(values[first:end].astype(np.int64), index[first:end], step_ends)

    def _push(self, values: np.ndarray, index: np.ndarray, ends: np.ndarray) -> None:
        tables = self.tables
        self._count += len(values)
        symbols = tables.symbols(values, index)
        escaped = np.flatnonzero(symbols == tables.escapes.take(index))
        # Escapes follow their step, so a step with escapes is the last one of a call.
        with_escapes = np.unique(np.searchsorted(ends, escaped, "right"))
        cuts = sorted({*ends.take(with_escapes).tolist(), len(values)})
        for first, end in pairwise([0, *cuts] if len(values) else []):
            self._encode(symbols[first:end], index[first:end])
            places = escaped[(escaped >= first) & (escaped < end)]
            if len(places):
                self._encode_bytes(values.take(places) - LOWEST)

    def _encode(self, symbols: np.ndarray, index: np.ndarray) -> None:
        places, rows, sizes, offsets = self.tables.used(index)
        symbols = _to_list(symbols, max(sizes))
        self._encoder.encode_with_indexes(symbols, places, rows, sizes, offsets)

    def _encode_bytes(self, raw: np.ndarray) -> None:
        raw = np.stack([raw % 256, raw // 256], 1).reshape(-1).tolist()
        self._encoder.encode_with_indexes(raw, *self.tables.code_bytes(len(raw)))

    def finish(self) -> bytes:
        """Returns the stream; nothing can be coded after that."""
        if self._count < _FEWEST:
            self._encode_bytes(np.full(_FEWEST // 2, 0))
        return self._encoder.flush()


class Decoder:
    """Decodes one stream of an :class:`Encoder`.

    Args:
        tables: The tables; they may be replaced between steps.
        string: The stream.
        count: Number of its symbols.
        largest: Largest number of symbols of a step.
        name: Name of its content, for errors.

    Raises:
        BitstreamError: If no encoder makes such a stream.
    """

    def __init__(
        self, tables: Tables, string: bytes, count: int, largest: int, name: str
    ):
        longest = 4 * count + 16
        if len(string) < 8 or len(string) % 4 or len(string) > longest:
            raise BitstreamError(
                f"the {name} stream has {len(string)} bytes, which {count} symbols "
                "never take; the file is damaged"
            )
        self.tables, self.name, self._count = tables, name, 0
        self._check(int.from_bytes(string[:8], "little") >= 2**31)
        # The coder's state is rounded, which costs up to 2**-14 bits a symbol.
        slack = 64 + count / 2**14
        self._bits_left = 8 * len(string) + slack
        self._largest = largest
        self._decoder = RansDecoder()
        padding = bytes(4 * min(largest, count) + int(slack / 8) + 64)
        self._decoder.set_stream(string + _END + padding)

    def pull(self, index: np.ndarray) -> np.ndarray:
        """Decodes a step.

        Args:
            index: Table of each value, ``(n,)``.

        Returns:
            Values, ``(n,)`` int64.

        Raises:
            BitstreamError: If the stream is too short for its symbols.
            ValueError: If the step is larger than ``largest``.
        """
        tables = self.tables
        if not len(index):
            return np.zeros(0, np.int64)
        if len(index) > self._largest:
            raise ValueError(f"a step of {len(index)} symbols, not {self._largest}")
        self._count += len(index)
        index = index.astype(np.int64, copy=False)
        places, rows, sizes, offsets = tables.used(index)
        symbols = self._decoder.decode_stream(places, rows, sizes, offsets)
        symbols = _from_list(symbols, max(sizes))
        cost = tables.bits.reshape(-1).take(index * tables.bits.shape[1] + symbols)
        self._bits_left -= cost.sum()
        self._check(self._bits_left >= 0)
        escaped = symbols == tables.escapes.take(index)
        values = symbols + tables.offsets.take(index)
        if escaped.any():
            raw = np.asarray(self._pull_bytes(2 * int(escaped.sum()))).reshape(-1, 2)
            values[escaped] = raw[:, 0] + 256 * raw[:, 1] + LOWEST
        return values

    def _pull_bytes(self, count: int) -> list[int]:
        return self._decoder.decode_stream(*self.tables.code_bytes(count))

    def finish(self) -> None:
        """Checks that exactly the whole stream was read.

        Raises:
            BitstreamError: If it was not.
        """
        if self._count < _FEWEST:
            self._check(not any(self._pull_bytes(_FEWEST)))
        self._check(self._pull_bytes(len(_AFTER_END)) == _AFTER_END)

    def _check(self, ok: bool) -> None:
        if not ok:
            raise BitstreamError(
                f"the {self.name} stream does not decode: it is damaged, or was coded "
                "with other weights"
            )
