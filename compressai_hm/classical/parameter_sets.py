"""Picture size of a raw HEVC or VVC stream, from its sequence parameter set."""


def read_stream_size(stream: bytes, standard: str) -> tuple[int, int] | None:
    """Reads the picture's size from a stream.

    Args:
        stream: NAL units behind start codes (ITU-T H.265 and H.266, annex B).
        standard: "HEVC" or "VVC".

    Returns:
        (H, W) in luma samples as coded, before cropping; None if the stream has no
        sequence parameter set.
    """
    read, set_type, get_type = _STANDARDS[standard]
    for unit in stream.split(b"\0\0\1")[1:]:
        if len(unit) > 2 and get_type(unit) == set_type:
            payload = unit[2:].replace(b"\0\0\3", b"\0\0")  # emulation prevention
            try:
                return read(_BitReader(payload))
            except IndexError:
                return None
    return None


class _BitReader:
    """Reads the syntax elements u(n) and ue(v) of the standards."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def u(self, count: int) -> int:
        value = 0
        for _ in range(count):
            value = value << 1 | self.data[self.at >> 3] >> (7 - self.at % 8) & 1
            self.at += 1
        return value

    def ue(self) -> int:
        zeros = 0
        while not self.u(1):
            zeros += 1
        return (1 << zeros) - 1 + self.u(zeros)

    def align(self) -> None:
        self.at = -(-self.at // 8) * 8


def _read_hevc(bits: _BitReader) -> tuple[int, int]:
    bits.u(4)  # video parameter set
    layers = bits.u(3)
    bits.u(1)
    bits.u(96)  # general profile, tier and level
    present = [(bits.u(1), bits.u(1)) for _ in range(layers)]
    if layers:
        bits.u(2 * (8 - layers))
    for profile, level in present:
        bits.u(88 * profile + 8 * level)
    bits.ue()
    if bits.ue() == 3:  # 4:4:4
        bits.u(1)
    width = bits.ue()
    return bits.ue(), width


def _read_vvc(bits: _BitReader) -> tuple[int, int]:
    bits.u(8)  # sequence and video parameter set
    layers = bits.u(3)
    bits.u(4)  # chroma format, size of a coding tree unit
    if bits.u(1):
        bits.u(18)  # profile, tier, level, frames only, several layers
        if bits.u(1):  # general constraints
            bits.u(71)
            bits.u(bits.u(8))
        bits.align()
        present = [bits.u(1) for _ in range(layers)]
        bits.align()
        bits.u(8 * sum(present))
        bits.u(32 * bits.u(8))
    bits.u(1)
    if bits.u(1):  # reference picture resampling
        bits.u(1)
    width = bits.ue()
    return bits.ue(), width


_STANDARDS = {
    "HEVC": (_read_hevc, 33, lambda header: header[0] >> 1 & 63),
    "VVC": (_read_vvc, 15, lambda header: header[1] >> 3),
}
"""How to read a sequence parameter set, its type, and how to read a NAL unit's type."""
