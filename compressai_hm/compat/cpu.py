"""Instructions of this machine's CPU."""

from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_INSTRUCTIONS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Linux's names of the bfloat16 instructions of x86 and of ARM."""


def has_bfloat16() -> bool:
    """Says whether the CPU has instructions for bfloat16, according to Linux.

    Without them torch emulates bfloat16, and training takes eight times as long as in
    float32.
    """
    try:
        lines = _CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    flags = (line.split(":")[1] for line in lines if line.startswith(("flags", "Feat")))
    return any(_INSTRUCTIONS & set(names.split()) for names in flags)
