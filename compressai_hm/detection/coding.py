"""Coding of one picture at evaluation: its bits, and the views decoded from them."""

from collections.abc import Callable

from torch import Tensor

from ..bitstream.step_map import encode_map
from ..entropy import QuantSteps
from ..models.human_machine import HumanMachineMixin, picture_bits

ViewsAndBits = tuple[dict[str, Tensor], float]
"""The views, clamped to [0, 1], with y_hat where it is asked for; and the bits."""


def code_to_bytes(
    codec: HumanMachineMixin, x: Tensor, steps: QuantSteps, latent: bool = False
) -> ViewsAndBits:
    """Returns a picture's decoded views and bits, through a real bitstream.

    Args:
        codec: A learned or classical codec.
        x: One picture, RGB in [0, 1], ``(1, 3, H, W)``.
        steps: Quantization steps of a learned codec. If they form a map, its bits
            count.
        latent: Whether y_hat is returned as well. Defaults to False.

    Returns:
        The views by name, ``(1, 3, H, W)``, clamped to [0, 1], with "y_hat",
        ``(1, M, h, w)``, if ``latent``; and the number of bits.
    """
    coded = codec.compress(x) if steps.plain else codec.compress(x, steps)
    bits = 8 * sum(len(string) for part in coded["strings"] for string in part)
    bits += _count_map_bits(steps)
    if not latent:
        return _clamp(codec.decompress(**coded)), bits
    size = tuple(x.shape[-2:])
    y_hat, _ = codec.decode_latent(coded["strings"], size, [steps])
    return _clamp(codec.synthesize(y_hat, size)) | {"y_hat": y_hat}, bits


def code_by_forward(
    codec: HumanMachineMixin, x: Tensor, steps: QuantSteps, latent: bool = False
) -> ViewsAndBits:
    """Returns a picture's decoded views and bits, through the codec's eval forward.

    The bits are those that the likelihoods estimate.

    Args:
        codec: A learned codec.
        x: One picture, RGB in [0, 1], ``(1, 3, H, W)``.
        steps: Quantization steps. If they form a map, its bits count.
        latent: Not used, y_hat is always returned. Defaults to False.

    Returns:
        As :func:`code_to_bytes`.
    """
    size = tuple(x.shape[-2:])
    coded = codec.code_latent(codec.analyze(x), [steps])
    bits = float(picture_bits(coded["likelihoods"], [size])[0]) + _count_map_bits(steps)
    views = _clamp(codec.synthesize(coded["y_hat"], size))
    return views | {"y_hat": coded["y_hat"]}, bits


def _count_map_bits(steps: QuantSteps) -> int:
    """Returns the bits of a map of steps, 0 if there is none."""
    return 0 if steps.offsets is None else 8 * len(encode_map(steps.offsets))


CODINGS: dict[str, Callable[..., ViewsAndBits]] = {
    "bytes": code_to_bytes,
    "forward": code_by_forward,
}
"""The functions that the values of ``model.coding`` name."""


def _clamp(views: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: view.clamp(0, 1) for name, view in views.items()}
