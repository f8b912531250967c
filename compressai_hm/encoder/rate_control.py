"""Rate control: the finest quantization step whose file is small enough."""

import bisect
import functools
import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from ..bitstream.coding import encode, pack
from ..bitstream.format import Bitstream
from ..entropy import Coded, QuantSteps
from ..entropy.steps import FIRST, OCTAVE
from ..models.human_machine import HumanMachineMixin, unwrapped
from .refinement import refine

TOLERANCE = 0.02
"""The search ends with a file that is smaller than allowed by at most this fraction."""

_SLOPE = -1.35
"""Slope of log(file size) over log(step) on photographs."""

_TRIES = 12


@torch.no_grad()
def encode_to_size(
    net: HumanMachineMixin,
    x: Tensor,
    most: int,
    step: QuantSteps | None = None,
    quality: int = 0,
    metric: str = "mse",
    y: Tensor | None = None,
) -> bytes:
    """Codes a picture with the finest step found whose file has at most ``most`` bytes.

    The step is searched on the latent with the secant method on logarithms; g_a runs
    once.

    Args:
        net: The codec.
        x: RGB in [0, 1], ``(1, 3, H, W)``.
        most: Bytes of the file at most, with the header.
        step: Steps whose base the search moves and whose map it does not change.
            Defaults to None, a step of 1 without map.
        quality: Quality of the zoo entry of net. Defaults to 0, for other weights.
        metric: Metric of the zoo entry. Defaults to "mse".
        y: Latent to code instead of g_a(x). Defaults to None.

    Returns:
        The file.

    Raises:
        ValueError: If no step is coarse enough; the message gives the smallest size.
    """
    net = unwrapped(net)
    offsets = None if step is None else step.offsets
    y = net.analyze(x) if y is None else y
    size = tuple(x.shape[-2:])
    files: dict[int, bytes] = {}

    def measure_size(base: int) -> int:
        if base not in files:
            coded: Coded = net.encode_latent(y, [QuantSteps(base, offsets)])
            files[base] = pack(net, coded, size, quality, metric)
        return len(files[base])

    coarsest = QuantSteps.nearest(net.coarsest_step, size).base
    first = min(0 if step is None else step.base, coarsest)
    base = _find_finest(measure_size, most, first, coarsest)
    if base is None:
        raise ValueError(
            f"the picture does not fit into {most} bytes: with the coarsest step, "
            f"{net.coarsest_step:g}, it has {measure_size(coarsest)}; take weights of "
            "a lower rate"
        )
    return files[base]


def encode_picture(
    net: HumanMachineMixin,
    x: Tensor,
    steps: QuantSteps,
    most: int | None = None,
    quality: int = 0,
    metric: str = "mse",
    iterations: int = 0,
    y: Tensor | None = None,
) -> bytes:
    """Codes a picture with given steps or to a size, with or without refinement.

    Args:
        net: The codec.
        x: RGB in [0, 1], ``(1, 3, H, W)``.
        steps: Quantization steps; with ``most`` the search moves their base.
        most: Bytes of the file at most. Defaults to None: ``steps`` are used as they
            are.
        quality: Quality of the zoo entry of net. Defaults to 0, for other weights.
        metric: Metric of the zoo entry. Defaults to "mse".
        iterations: Iterations of :func:`refine`. With ``most``, the saved bytes allow a
            finer step, for which the latent is refined again. Defaults to 0.
        y: Latent to code instead of g_a(x); it is not refined. Defaults to None.

    Returns:
        The file.

    Raises:
        ValueError: If the picture does not fit into ``most`` bytes.
    """
    if y is None and iterations:
        for _ in range(1 if most is None else 2):
            if most is not None:
                data = encode_to_size(net, x, most, steps, y=y)
                steps = Bitstream.read(data).steps()
            y = refine(net, x, None, iterations, steps)
    if most is None:
        return encode(net, x, quality, metric, y, steps)
    return encode_to_size(net, x, most, steps, quality, metric, y)


def nearest_quality(
    qualities: Iterable[int], most: int, size: Callable[[int], int]
) -> int:
    """Returns the quality whose file is nearest to a size before its step is moved.

    Args:
        qualities: Qualities of a zoo entry; a higher one makes a larger file.
        most: The size in bytes.
        size: Function from a quality to the size of its file in bytes. It is called at
            most once for each quality.
    """
    size, qualities = functools.cache(size), sorted(qualities)
    after = bisect.bisect(qualities, most, key=size)
    around = qualities[max(0, after - 1) : after + 1]
    return min(around, key=lambda quality: abs(math.log(size(quality) / most)))


def _find_finest(
    size: Callable[[int], int], most: int, base: int, coarsest: int
) -> int | None:
    """Finds the base of the finest step that fits; returns None if none does.

    Args:
        size: Function from a base to the size of its file in bytes.
        most: Bytes of the file at most.
        base: First base of the search.
        coarsest: Last base of the search.
    """
    slope = _SLOPE
    # The finest known to fit, and the coarsest known to be too large.
    fits, over = coarsest + 1, FIRST - 1
    for _ in range(_TRIES):
        now = size(base)
        if now <= most:
            fits = min(fits, base)
        else:
            over = max(over, base)
        if fits - over <= 1 or most * (1 - TOLERANCE) <= now <= most:
            break
        # We aim at the middle: sizes of neighboring steps differ by about 1 %.
        change = math.log(most * (1 - TOLERANCE / 2) / now)
        following = base + round(OCTAVE * change / slope / math.log(2))
        following = min(max(following, over + 1), fits - 1)
        if following == base:
            following += 1 if now > most else -1
        measured = math.log(size(following) / now) / ((following - base) / OCTAVE)
        if measured < 0:
            slope = min(max(measured / math.log(2), 3 * _SLOPE), _SLOPE / 6)
        base = following
    return fits if fits <= coarsest else None
