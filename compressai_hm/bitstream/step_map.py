"""The map of quantization steps in a file.

The differences of a map along both axes are 0 except at the corners of regions. They
are taken modulo the number of offsets, so that every stream of differences is a map.
"""

import functools

import numpy as np
import torch

from ..compat.compressai_private import CDF, CDF_LENGTH, OFFSET
from ..entropy.range_coder import TOTAL, BitstreamError, Decoder, Encoder, Tables
from ..entropy.steps import FARTHEST

_COUNT = 2 * FARTHEST + 1
_DENSITIES = 8


@functools.cache
def _tables() -> Tables:
    """Makes tables for the differences by density, and one for the density itself."""
    rows = []
    for density in range(_DENSITIES):
        zero = TOTAL - TOTAL // 2 ** (density + 1)
        others, sizes = TOTAL - zero - 1, np.abs(np.arange(-FARTHEST, FARTHEST + 1))
        near = np.minimum(8, FARTHEST + 1 - sizes)
        near[FARTHEST] = 0
        frequencies = 1 + (others - _COUNT) * near // near.sum()
        frequencies[FARTHEST] = 0
        frequencies[FARTHEST] = TOTAL - 1 - frequencies.sum()
        rows.append([*frequencies, 1])  # the last symbol is the coder's escape
    even = [TOTAL // 2 // _DENSITIES] * _DENSITIES
    rows.append([*even, TOTAL - sum(even)])
    cdfs = np.zeros((len(rows), _COUNT + 2), dtype=np.int32)
    for cdf, row in zip(cdfs, rows, strict=True):
        cdf[1 : len(row) + 1] = np.cumsum(row)
    buffers = {
        CDF: cdfs,
        CDF_LENGTH: np.array([len(row) + 1 for row in rows], dtype=np.int32),
        OFFSET: np.array([-FARTHEST] * _DENSITIES + [0], dtype=np.int32),
    }
    return Tables({key: torch.from_numpy(value) for key, value in buffers.items()})


def encode_map(offsets: np.ndarray) -> bytes:
    """Codes a map with the density that gives the shortest stream.

    Args:
        offsets: The map, ``(h, w)`` int8, within +-FARTHEST.

    Returns:
        The stream.
    """
    padded = np.pad(offsets.astype(np.int64), ((1, 0), (1, 0)))
    differences = np.diff(np.diff(padded, axis=0), axis=1).reshape(-1)
    differences = (differences + FARTHEST) % _COUNT - FARTHEST
    streams = []
    for density in range(_DENSITIES):
        encoder = Encoder(_tables())
        index = np.full(len(differences), density)
        encoder.push(np.array([density]), np.array([_DENSITIES]))
        encoder.push(differences, index)
        streams.append(encoder.finish())
    return min(streams, key=len)


def decode_map(string: bytes, size: tuple[int, int]) -> np.ndarray:
    """Decodes a map.

    Args:
        string: The stream.
        size: (h, w) of the map.

    Returns:
        The map, ``(h, w)`` int8.

    Raises:
        BitstreamError: If the stream is damaged.
    """
    count = size[0] * size[1]
    decoder = Decoder(_tables(), string, count + 1, count + 1, "map")
    density = int(decoder.pull(np.array([_DENSITIES]))[0])
    if not 0 <= density < _DENSITIES:
        raise BitstreamError("the map stream does not decode: it is damaged")
    differences = decoder.pull(np.full(count, density)).reshape(size)
    decoder.finish()
    offsets = differences.cumsum(0).cumsum(1)
    return ((offsets + FARTHEST) % _COUNT - FARTHEST).astype(np.int8)
