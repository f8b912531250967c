"""Colors that a file names by numbers: PNG's cICP and AVIF's nclx.

The numbers are those of ITU-T H.273, "Coding-independent code points". Pillow does not
read them.
"""

import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO

import numpy as np

_UNSPECIFIED = 2
_PRIMARIES = {
    1: ((0.3127, 0.329), (0.64, 0.33), (0.3, 0.6), (0.15, 0.06)),  # BT.709, sRGB
    4: ((0.31, 0.316), (0.67, 0.33), (0.21, 0.71), (0.14, 0.08)),  # BT.470 M
    5: ((0.3127, 0.329), (0.64, 0.33), (0.29, 0.6), (0.15, 0.06)),  # BT.601, 625 lines
    6: ((0.3127, 0.329), (0.63, 0.34), (0.31, 0.595), (0.155, 0.07)),  # 525 lines
    7: ((0.3127, 0.329), (0.63, 0.34), (0.31, 0.595), (0.155, 0.07)),  # SMPTE 240M
    9: ((0.3127, 0.329), (0.708, 0.292), (0.17, 0.797), (0.131, 0.046)),  # BT.2020
    11: ((0.314, 0.351), (0.68, 0.32), (0.265, 0.69), (0.15, 0.06)),  # DCI-P3
    12: ((0.3127, 0.329), (0.68, 0.32), (0.265, 0.69), (0.15, 0.06)),  # Display P3
    22: ((0.3127, 0.329), (0.63, 0.34), (0.295, 0.605), (0.155, 0.077)),  # EBU 3213
}
"""White, red, green and blue, (x, y), by number."""

SRGB = 13
_LIKE_SRGB = (1, _UNSPECIFIED, 6, SRGB, 14, 15)
"""Transfer functions that are shown as sRGB's, as in browsers: those of SDR video."""

_EXPONENTS = {4: 2.2, 5: 2.8, 8: 1.0}
"""Exponents of transfer functions that are powers."""

_HDR = {16: "PQ", 18: "HLG"}


def code_points(f: BinaryIO, kind: str) -> tuple[int, int] | None:
    """Reads the numbers of a file's primaries and of its transfer function.

    Args:
        f: The file; its position does not change.
        kind: Its format in Pillow's names.

    Returns:
        Numbers of the primaries and of the transfer function; None without them.

    Raises:
        ValueError: If its values have a narrow range, which Pillow reads as a full one.
    """
    place = f.tell()
    try:
        numbers = None
        if kind == "PNG":
            numbers = _read_png(f)
        elif kind == "AVIF":
            f.seek(0)
            numbers = _read_avif(f.read())
        return None if numbers == (_UNSPECIFIED, _UNSPECIFIED) else numbers
    except (struct.error, IndexError):  # Pillow reports damage
        return None
    finally:
        f.seek(place)


def to_linear(transfer: int) -> Callable[[np.ndarray], np.ndarray] | None:
    """Finds the function from coded to linear values, both in [0, 1].

    Args:
        transfer: Number of the transfer function.

    Returns:
        The function; None if the number is unknown.

    Raises:
        ValueError: If the picture is of high dynamic range, which sRGB lacks.
    """
    if transfer in _HDR:
        raise ValueError(
            f"its colors are of high dynamic range ({_HDR[transfer]}); convert it to "
            "sRGB, which needs a choice of tone mapping"
        )
    if transfer in _LIKE_SRGB:
        return _srgb_to_linear
    if transfer in _EXPONENTS:
        return lambda v: v ** _EXPONENTS[transfer]
    return None


def chromaticities(primaries: int) -> tuple | None:
    """Returns (x, y) of white, red, green and blue; None if the number is unknown.

    Args:
        primaries: Number of the primaries.
    """
    return _PRIMARIES.get(1 if primaries == _UNSPECIFIED else primaries)


def _srgb_to_linear(values: np.ndarray) -> np.ndarray:
    return np.where(
        values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4
    )


def _read_png(f: BinaryIO) -> tuple[int, int] | None:
    f.seek(8)
    while len(head := f.read(8)) == 8 and head[4:] != b"IDAT":
        length = int.from_bytes(head[:4], "big")
        if head[4:] == b"cICP" and length == 4:
            primaries, transfer, _, full_range = f.read(4)
            if not full_range:
                raise ValueError(
                    "its values have a narrow range; save it with a full one"
                )
            return primaries, transfer
        f.seek(length + 4, 1)
    return None


def _split_boxes(data: bytes, start: int = 0) -> Iterator[tuple[bytes, bytes]]:
    """Yields the kind and the content of each box (ISO/IEC 14496-12)."""
    while start + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, start)
        head = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, start + 8)
            head = 16
        if size == 0:
            size = len(data) - start
        if size < head:
            return
        yield kind, data[start + head : start + size]
        start += size


def _read_avif(data: bytes) -> tuple[int, int] | None:
    """Reads the numbers of the primary item (ISO/IEC 23008-12)."""
    meta = dict(_split_boxes(dict(_split_boxes(data)).get(b"meta", b""), 4))
    if b"pitm" not in meta or b"iprp" not in meta:
        return None
    wide = meta[b"pitm"][0] > 0
    (primary,) = struct.unpack_from(">I" if wide else ">H", meta[b"pitm"], 4)
    properties = list(_split_boxes(dict(_split_boxes(meta[b"iprp"])).get(b"ipco", b"")))
    for kind, content in _split_boxes(meta[b"iprp"]):
        if kind != b"ipma":
            continue
        for number in _list_properties(primary, content):
            name, value = properties[number - 1]
            if name == b"colr" and value[:4] == b"nclx":
                return struct.unpack_from(">HH", value, 4)
    return None


def _list_properties(item: int, content: bytes) -> list[int]:
    """Lists the properties that an ipma box gives an item, counted from 1."""
    wide_ids, wide_numbers = content[0] > 0, content[3] & 1
    (count,) = struct.unpack_from(">I", content, 4)
    place = 8
    for _ in range(count):
        item_id, n = struct.unpack_from(">IB" if wide_ids else ">HB", content, place)
        place += 5 if wide_ids else 3
        form = f">{n}{'H' if wide_numbers else 'B'}"
        numbers = struct.unpack_from(form, content, place)
        place += struct.calcsize(form)
        if item_id == item:
            return [x & (0x7FFF if wide_numbers else 0x7F) for x in numbers]
    return []
