"""A picture at a size: the finest step of quantisation whose file is small enough."""

import bisect
import functools
import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from .container import pack
from .entropy import Coded, Steps
from .entropy.steps import FIRST, LAST, OCTAVE
from .human_machine import HumanMachineMixin, unwrapped

TOLERANCE = 0.02
"""A file is taken that is smaller than asked by at most this."""

_SLOPE = -1.35
"""Of the logarithm of a file's size over that of the step, on photographs."""

_TRIES = 12


@torch.no_grad()
def encode_to_size(
    net: HumanMachineMixin,
    x: Tensor,
    most: int,
    step: Steps | None = None,
    quality: int = 0,
    metric: str = "mse",
    y: Tensor | None = None,
) -> bytes:
    """The best file of a picture that has at most a number of bytes.

    The step is searched on the latent, by secants of logarithms; g_a runs once.

    Args:
        net: The codec.
        x: RGB in [0, 1], ``(1, 3, H, W)``.
        most: Bytes, the header included.
        step: A map whose offsets are kept while its base is moved.
        quality: Of the zoo entry that net is; 0 for other weights.
        metric: Of the zoo entry.
        y: What is coded instead of g_a(x).

    Raises:
        ValueError: If no step is coarse enough; says what is the least.
    """
    net = unwrapped(net)
    offsets = None if step is None else step.offsets
    y = net.analyse(x) if y is None else y
    size = tuple(x.shape[-2:])
    files: dict[int, bytes] = {}

    def at(base: int) -> int:
        if base not in files:
            coded: Coded = net.encode_latent(y, [Steps(base, offsets)])
            files[base] = pack(net, coded, size, quality, metric)
        return len(files[base])

    base = _finest(at, most, 0 if step is None else step.base)
    if base is None:
        raise ValueError(
            f"the picture does not fit into {most} bytes: with the coarsest step it "
            f"has {at(LAST)}; take weights of a lower rate"
        )
    return files[base]


def nearest_quality(
    qualities: Iterable[int], most: int, size: Callable[[int], int]
) -> int:
    """The quality whose file is nearest to a size before its step is moved.

    Args:
        qualities: Of a zoo entry; a higher one makes a larger file.
        most: Bytes.
        size: Bytes of the file with a quality; asked only where needed, and once.
    """
    size, qualities = functools.cache(size), sorted(qualities)
    after = bisect.bisect(qualities, most, key=size)
    around = qualities[max(0, after - 1) : after + 1]
    return min(around, key=lambda quality: abs(math.log(size(quality) / most)))


def _finest(size: Callable[[int], int], most: int, base: int) -> int | None:
    """The base of the finest step found that fits; None where none does.

    Args:
        size: Bytes with a base.
        most: Bytes.
        base: Where the search begins.
    """
    slope = _SLOPE
    fits, over = LAST + 1, FIRST - 1  # the finest known to fit, the coarsest too large
    for _ in range(_TRIES):
        now = size(base)
        if now <= most:
            fits = min(fits, base)
        else:
            over = max(over, base)
        if fits - over <= 1 or most * (1 - TOLERANCE) <= now <= most:
            break
        # Aimed between: neighbouring steps differ by about a hundredth.
        wanted = math.log(most * (1 - TOLERANCE / 2) / now)
        following = base + round(OCTAVE * wanted / slope / math.log(2))
        following = min(max(following, over + 1), fits - 1)
        if following == base:
            following += 1 if now > most else -1
        measured = math.log(size(following) / now) / ((following - base) / OCTAVE)
        if measured < 0:
            slope = min(max(measured / math.log(2), 3 * _SLOPE), _SLOPE / 6)
        base = following
    return fits if fits <= LAST else None
