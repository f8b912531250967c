"""Coding at evaluation: one picture to its bits and to what decodes from them."""

from collections.abc import Callable

from torch import Tensor

from ..codecs import HumanMachineMixin, Steps, picture_bits
from ..codecs.entropy.steps import encode_map

Coded = tuple[dict[str, Tensor], float]
"""The views, clamped, with y_hat where it is asked for; and the bits."""


def by_bytes(
    codec: HumanMachineMixin, x: Tensor, steps: Steps, latent: bool = False
) -> Coded:
    """By a real bitstream, written and read.

    Args:
        codec: Learned or classical.
        x: One picture, RGB in [0, 1], ``(1, 3, H, W)``.
        steps: Of a learned codec; the bits of their map count.
        latent: Whether "y_hat" is wanted as well. Defaults to False.
    """
    coded = codec.compress(x) if steps.plain else codec.compress(x, steps)
    bits = 8 * sum(len(string) for part in coded["strings"] for string in part)
    bits += _map_bits(steps)
    if not latent:
        return _clamped(codec.decompress(**coded)), bits
    size = tuple(x.shape[-2:])
    y_hat, _ = codec.decode_latent(coded["strings"], size, [steps])
    return _clamped(codec.synthesise(y_hat, size)) | {"y_hat": y_hat}, bits


def by_forward(
    codec: HumanMachineMixin, x: Tensor, steps: Steps, latent: bool = False
) -> Coded:
    """By the codec's eval forward and its likelihoods; see :func:`by_bytes`."""
    size = tuple(x.shape[-2:])
    coded = codec.code_latent(codec.analyse(x), [steps])
    bits = float(picture_bits(coded["likelihoods"], [size])[0]) + _map_bits(steps)
    views = _clamped(codec.synthesise(coded["y_hat"], size))
    return views | {"y_hat": coded["y_hat"]}, bits


def _map_bits(steps: Steps) -> int:
    return 0 if steps.offsets is None else 8 * len(encode_map(steps.offsets))


CODINGS: dict[str, Callable[..., Coded]] = {"bytes": by_bytes, "forward": by_forward}
"""By what ``model.coding`` names."""


def _clamped(views: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: view.clamp(0, 1) for name, view in views.items()}
