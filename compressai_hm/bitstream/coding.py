"""Coding of a picture to a file, and of a file to its views."""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..checks import check_finite, check_pictures
from ..entropy import BitstreamError, Coded, QuantSteps
from ..geometry import MAX_PIXELS, padded_latent_size, padded_size
from ..models.human_machine import HumanMachineMixin, registered_name, unwrapped
from .format import METRICS, Bitstream, model_id
from .reader import StreamReader
from .step_map import encode_map


@torch.no_grad()
def encode(
    net: HumanMachineMixin,
    x: Tensor,
    quality: int = 0,
    metric: str = "mse",
    y: Tensor | None = None,
    step: float | Tensor | QuantSteps | None = None,
) -> bytes:
    """Codes a picture to a file.

    Args:
        net: The codec.
        x: RGB in [0, 1], ``(1, 3, H, W)``.
        quality: Quality of the zoo entry of net. Defaults to 0, for other weights.
        metric: Metric of the zoo entry. Defaults to "mse".
        y: Latent to code instead of g_a(x), such as :func:`refine` returns. Defaults to
            None.
        step: Quantization step, from 1/8 (more bits) to 16 (fewer bits), or a map with
            one step for each 16x16 pixels, ``(ceil(H / 16), ceil(W / 16))``. Defaults
            to None, the model's ``step``.

    Returns:
        The file.

    Raises:
        ValueError: If x is not such a picture, or is too large for the format, or if a
            step or map is invalid.
    """
    net = unwrapped(net)
    check_pictures(x)
    if len(x) != 1:
        raise ValueError(f"a file holds one picture, got {len(x)}")
    if y is None:
        y = net.analyze(x)
    elif y.shape[-2:] != padded_latent_size(x.shape[-2:]):
        raise ValueError(
            f"y of {tuple(y.shape)} is not of a picture of {tuple(x.shape)}"
        )
    size = tuple(x.shape[-2:])
    coded = net.encode_latent(
        y, [QuantSteps.nearest(net.step if step is None else step, size)]
    )
    return pack(net, coded, size, quality, metric)


def pack(
    net: HumanMachineMixin,
    coded: Coded,
    size: tuple[int, int],
    quality: int = 0,
    metric: str = "mse",
) -> bytes:
    """Makes the file of one picture's streams; see :func:`encode`.

    Args:
        net: The codec that coded them.
        coded: The result of its ``encode_latent`` for one picture.
        size: (H, W) of the picture in pixels.
        quality: Quality of the zoo entry of net. Defaults to 0, for other weights.
        metric: Metric of the zoo entry. Defaults to "mse".

    Returns:
        The file.

    Raises:
        ValueError: If the quality is above 15, or the metric is not in ``METRICS``.
    """
    if not 0 <= quality < 16:
        raise ValueError(
            f"quality {quality} does not fit the file format, which takes 0 to 15"
        )
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {list(METRICS)}, got {metric!r}")
    steps = coded.steps[0]
    stream = Bitstream(
        model=None,
        model_id=model_id(_get_name(net)),
        quality=quality,
        metric=metric,
        fingerprint=net.latent_coder().fingerprint(),
        size=size,
        y=coded.strings[0][0],
        z=coded.strings[1][0],
        symbols_check=0,
        step=steps.base,
        map=b"" if steps.offsets is None else encode_map(steps.offsets),
    )
    check = stream.compute_check(coded.symbols[0])
    return replace(stream, symbols_check=check).to_bytes()


@torch.no_grad()
def decode_to_latent(
    net: HumanMachineMixin,
    data: bytes,
    max_pixels: int = MAX_PIXELS,
    reader: StreamReader | None = None,
) -> tuple[Bitstream, Tensor]:
    """Decodes the latent of a file, which readers read.

    Args:
        net: The codec that coded it.
        data: The file.
        max_pixels: Larger pictures are refused. Defaults to 2**26.
        reader: Reader that is checked against the codec. Defaults to None.

    Returns:
        The file's content, and y_hat, ``(1, M, h, w)``.

    Raises:
        ValueError: If the reader was trained on other streams.
        BitstreamError: If the file is damaged, forged or too large, or was coded with
            other weights.
    """
    net = unwrapped(net)
    stream = Bitstream.read(data)
    height, width = stream.size
    # The padded picture counts: it is many times as large as a long thin picture.
    coded = math.prod(padded_size(stream.size))
    if height * width > max_pixels or coded > max(max_pixels, 2**22):
        raise BitstreamError(
            f"the file says that the picture has {width}x{height} pixels, more than "
            f"max_pixels={max_pixels}; raise that if you trust the file"
        )
    name, fingerprint = _get_name(net), net.latent_coder().fingerprint()
    if (stream.model_id, stream.fingerprint) != (model_id(name), fingerprint):
        raise BitstreamError(
            f"the file was coded with other weights: it needs {stream.weights()}; "
            f"given is {name}, entropy part {fingerprint.hex()}"
        )
    if reader is not None:
        reader.check(net)
    strings, steps = [[stream.y], [stream.z]], [stream.steps()]
    y_hat, symbols = net.decode_latent(strings, stream.size, steps)
    if stream.compute_check(symbols[0]) != stream.symbols_check:
        raise BitstreamError("the file is damaged: it decodes to other symbols")
    return stream, y_hat


@torch.no_grad()
def decode(
    net: HumanMachineMixin,
    data: bytes,
    views: tuple[str, ...] = ("human", "machine"),
    max_pixels: int = MAX_PIXELS,
    reader: StreamReader | None = None,
) -> dict[str, Any]:
    """Decodes a file.

    Args:
        net: The codec that coded it.
        data: The file.
        views: Views to compute, of "human" and "machine". Defaults to both.
        max_pixels: Larger pictures are refused. Defaults to 2**26.
        reader: Reader that makes the machine's view instead of the codec's g_t.
            Defaults to None.

    Returns:
        ``x_hat`` and / or ``x_bar``, ``(1, 3, H, W)`` in [0, 1]. A reader that reads
        y_hat gives ``features``, its pyramid at the size of its detector's input,
        instead of x_bar.

    Raises:
        ValueError: If the reader was trained on other streams, or the weights give
            values that are not finite.
        BitstreamError: If the file is damaged, forged or too large, or was coded with
            other weights.
    """
    net = unwrapped(net)
    stream, y_hat = decode_to_latent(net, data, max_pixels, reader)
    g_t, features = None, {}
    if reader is not None and "machine" in views:
        reader_net = reader.net.to(y_hat.device).eval()
        if reader.reads == "y_hat":
            features["features"] = reader_net.read(y_hat, stream.size)
            views = tuple(view for view in views if view != "machine")
        else:
            g_t = reader_net
    out = net.synthesize(y_hat, stream.size, views, g_t)
    check_finite(out)
    return {**{key: view.clamp(0, 1) for key, view in out.items()}, **features}


class FileCodec:
    """An HM model with the methods of a :class:`PictureCodec`.

    Args:
        net: The model.
    """

    learned = True

    def __init__(self, net: HumanMachineMixin):
        self.net = net

    def encode(self, x: Tensor, **options: Any) -> bytes:
        """Codes a picture to a file.

        Args:
            x: RGB in [0, 1], ``(1, 3, H, W)``.
            **options: Further arguments of :func:`encode`.

        Returns:
            The file.
        """
        return encode(self.net, x, **options)

    def decode(
        self,
        data: bytes,
        size: tuple[int, int] | None = None,
        views: tuple[str, ...] = ("human", "machine"),
    ) -> dict[str, Any]:
        """Decodes a file; see :func:`decode`.

        Args:
            data: The file.
            size: Not used, because the file holds the size. Defaults to None.
            views: Views to compute, of "human" and "machine". Defaults to both.

        Returns:
            ``x_hat`` and / or ``x_bar``, ``(1, 3, H, W)`` in [0, 1].
        """
        return decode(self.net, data, views)

    def overhead(self, data: bytes) -> int:
        """Returns the number of bytes of a file's header.

        Args:
            data: The file.
        """
        return Bitstream.read(data).overhead


def _get_name(net: HumanMachineMixin) -> str:
    """Returns the registered name of a codec.

    Raises:
        ValueError: If it has none.
    """
    name = registered_name(net)
    if name is None:
        raise ValueError(
            f"{type(net).__name__} has no registered name to write into the file; "
            'register it with @register_model("hm-...")'
        )
    return name
