"""The size that a raw stream of HEVC or VVC says, from its sequence parameter set."""

_KINDS = {
    # By standard: the type of that NAL unit, and where its header says it.
    "HEVC": (33, lambda head: head[0] >> 1 & 63),
    "VVC": (15, lambda head: head[1] >> 3),
}


def size_of(stream: bytes, standard: str) -> tuple[int, int] | None:
    """(H, W) in luma samples as coded, before any cropping; None if it says none.

    Args:
        stream: NAL units behind start codes (ITU-T H.265 and H.266, annex B).
        standard: "HEVC" or "VVC".
    """
    wanted, kind = _KINDS[standard]
    for unit in stream.split(b"\0\0\1")[1:]:
        if len(unit) > 2 and kind(unit) == wanted:
            payload = unit[2:].replace(b"\0\0\3", b"\0\0")  # emulation prevention
            try:
                return {"HEVC": _hevc, "VVC": _vvc}[standard](_Bits(payload))
            except IndexError:
                return None
    return None


class _Bits:
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


def _hevc(bits: _Bits) -> tuple[int, int]:
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


def _vvc(bits: _Bits) -> tuple[int, int]:
    bits.u(8)  # its own number, and the video parameter set's
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
