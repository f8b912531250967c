"""What this machine's CPU can compute."""

from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_INSTRUCTIONS = {"avx512_bf16", "amx_bf16", "bf16"}
"""What Linux calls products of bfloat16 on x86 and on ARM."""


def has_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16, as far as Linux says.

    Without them torch emulates it: training takes eight times as long as in float32.
    """
    try:
        lines = _CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    flags = (line.split(":")[1] for line in lines if line.startswith(("flags", "Feat")))
    return any(_INSTRUCTIONS & set(own.split()) for own in flags)
