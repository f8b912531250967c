"""CompressAI's range coder (``compressai.ans``), guarded.

It checks no bounds: reading past the end of a stream, or coding a value with a table
that has no room for it, is undefined behaviour there. Here

- a symbol takes at most 16 bits, and 16 more if it is coded as an escape, so padding a
  stream to that many bits keeps every read inside it;
- CompressAI's own escapes, of unlimited length, are never reached: each table gets one
  more entry of no probability in their place. The last symbol of a table, its tail, is
  our escape, and two bytes with the value follow after the step's symbols;
- the padding begins with a mark. The coder's state ends as it began, so what decodes
  after the last symbol is always the same, if the stream is what was coded: a check
  that takes no byte of the file. (It misses a change of one symbol into another of
  equal probability; the file's checksums do not.)
- in long streams a mark of two bytes follows at every 2**18 symbols, so that a broken
  one is noticed soon;
- its encoder, which writes past its buffer for fewer than 4 symbols, gets more.
"""

import numpy as np
from compressai.ans import BufferedRansEncoder, RansDecoder
from torch import Tensor

TOTAL = 2**16
"""Frequencies of a table sum to this."""

LOWEST = -(2**15)
"""Symbols lie in [LOWEST, -LOWEST - 1]: an escape's two bytes."""

_MARK = [0x5A, 0xC3]
_END = bytes(range(0x9D, 0x9D + 32))
_MARK_EVERY = 2**18


class BitstreamError(ValueError):
    """A bitstream that cannot be decoded: damaged, forged, or of other weights."""


_BYTES = [*range(0, TOTAL + 1, TOTAL // 256), TOTAL]


def _after_end() -> list[int]:
    """The bytes that decode after the end of any stream."""
    encoder, decoder = BufferedRansEncoder(), RansDecoder()
    args = [_BYTES], [len(_BYTES)], [0]
    encoder.encode_with_indexes([0] * 8, [0] * 8, *args)
    decoder.set_stream(encoder.flush() + _END)
    return decoder.decode_stream([0] * 32, *args)[8:]


_AFTER_END = _after_end()


class Tables:
    """Frequency tables, one a row, from CompressAI's buffers.

    Args:
        model: An entropy model after ``update()``.

    Raises:
        ValueError: If the buffers are not such tables.
    """

    def __init__(self, model):
        cdfs = model._quantized_cdf.cpu().numpy()
        self.sizes = model._cdf_length.cpu().numpy().astype(np.int64).reshape(-1) - 1
        self.offsets = model._offset.cpu().numpy().astype(np.int64).reshape(-1)
        ok = len(cdfs) == len(self.sizes) == len(self.offsets) > 0 and all(
            1 <= size < cdfs.shape[1]
            and row[0] == 0
            and row[size] == TOTAL
            and (np.diff(row[: size + 1]) > 0).all()
            for row, size in zip(cdfs, self.sizes, strict=False)
        )
        if not ok:
            raise ValueError(
                f"the {type(model).__name__}'s tables are not frequency tables; "
                "make them anew with update(force=True)"
            )
        rows = [
            row[: size + 1].tolist() + [TOTAL]
            for row, size in zip(cdfs, self.sizes, strict=True)
        ]
        rows.append(_BYTES)
        self.rows = np.empty(len(rows), dtype=object)
        self.rows[:] = rows
        # The probability of every symbol; an escape's with its two bytes.
        self.probability = np.zeros((len(self.sizes), self.sizes.max()))
        for p, row, size in zip(self.probability, cdfs, self.sizes, strict=True):
            p[:size] = np.diff(row[: size + 1]) / TOTAL
            p[size - 1] /= 2**16

    def symbols(self, values: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Which symbol of its table codes each value; the last is the escape."""
        symbols = values - self.offsets[index]
        escape = self.sizes[index] - 1
        return np.where((symbols < 0) | (symbols > escape), escape, symbols)

    def used(self, index: np.ndarray) -> tuple[list, list, list, list]:
        """The arguments after the symbols of CompressAI's calls."""
        is_used = np.bincount(index) > 0
        rows = self.rows[: len(is_used)][is_used].tolist()
        index = np.cumsum(is_used)[index] - 1
        return index.tolist(), rows, [len(r) for r in rows], [0] * len(rows)

    def code_bytes(self, count: int) -> tuple[list, list, list, list]:
        return self.used(np.full(count, len(self.rows) - 1))


class Encoder:
    """One stream; ``push`` in the order of decoding, then ``finish``."""

    def __init__(self, tables: Tables):
        self.tables = tables
        self._encoder = BufferedRansEncoder()
        self._since_mark = 0

    def push(self, values: np.ndarray, index: np.ndarray) -> None:
        """Codes a step: values in the clamp, ``(n,)``, with table ``index[i]``."""
        symbols = self.tables.symbols(values, index)
        self._encoder.encode_with_indexes(symbols.tolist(), *self.tables.used(index))
        escaped = symbols == self.tables.sizes[index] - 1
        if escaped.any():
            raw = values[escaped] - LOWEST
            self._push_bytes(np.stack([raw % 256, raw // 256], 1).reshape(-1).tolist())
        self._since_mark += len(values)
        if self._since_mark >= _MARK_EVERY:
            self._push_bytes(_MARK)
            self._since_mark = 0

    def _push_bytes(self, values: list[int]) -> None:
        self._encoder.encode_with_indexes(values, *self.tables.code_bytes(len(values)))

    def finish(self) -> bytes:
        return self._encoder.flush()


class Decoder:
    """The reverse of :class:`Encoder`.

    Args:
        string: The stream.
        count: How many symbols it holds.

    Raises:
        BitstreamError: If the stream's length is impossible.
    """

    def __init__(self, tables: Tables, string: bytes, count: int, name: str):
        longest = 4 * count + 2 * (count // _MARK_EVERY) + 16
        if len(string) < 8 or len(string) % 4 or len(string) > longest:
            raise BitstreamError(
                f"the {name} stream has {len(string)} bytes, which {count} symbols "
                "never take; the file is damaged"
            )
        self.tables, self.name = tables, name
        self._decoder = RansDecoder()
        padding = _END + bytes(longest - len(string) + 32)
        self._decoder.set_stream(string + padding)
        self._since_mark = 0

    def pull(self, index: np.ndarray) -> np.ndarray:
        """Decodes a step: ``(n,)`` values coded with table ``index[i]``."""
        tables = self.tables
        symbols = np.asarray(
            self._decoder.decode_stream(*tables.used(index)), dtype=np.int64
        )
        escaped = symbols == tables.sizes[index] - 1
        values = symbols + tables.offsets[index]
        if escaped.any():
            raw = np.asarray(self._pull_bytes(2 * int(escaped.sum()))).reshape(-1, 2)
            values[escaped] = raw[:, 0] + 256 * raw[:, 1] + LOWEST
        self._since_mark += len(values)
        if self._since_mark >= _MARK_EVERY:
            self._check(self._pull_bytes(2) == _MARK)
            self._since_mark = 0
        return values

    def _pull_bytes(self, count: int) -> list[int]:
        return self._decoder.decode_stream(*self.tables.code_bytes(count))

    def finish(self) -> None:
        """Checks that all of the stream was read, and no more.

        Raises:
            BitstreamError: If not.
        """
        self._check(self._pull_bytes(len(_AFTER_END)) == _AFTER_END)

    def _check(self, ok: bool) -> None:
        if not ok:
            raise BitstreamError(
                f"the {self.name} stream does not decode: it is damaged, or was coded "
                "with other weights"
            )


def numpy(x: Tensor) -> np.ndarray:
    """A flat int64 array."""
    return x.reshape(-1).to("cpu").long().numpy()
