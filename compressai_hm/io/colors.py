"""Conversion of pictures' colors to sRGB, and of transparency to white."""

import io
import warnings
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms
from torch import Tensor

from .code_points import SRGB, chromaticities, to_linear

_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK", "LAB": "Lab"}
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION
_ROUNDING = 2
"""Profiles that change no 8-bit color by more than this count as sRGB."""

_SRGB = chromaticities(1)
"""(x, y) of sRGB's white, red, green and blue."""


# Samples: colors (H, W, 1 or 3) in [0, 1], and opacity (H, W, 1) or None.
Samples = tuple[np.ndarray, np.ndarray | None]


class PictureWarning(UserWarning):
    """A warning that a picture was read, but a part of its file was not used."""


heard: ContextVar[list[str] | None] = ContextVar("heard", default=None)
"""A list that collects warnings of this context, because threads share filters."""


def warn(path: Path, what: str) -> None:
    """Warns of a picture, or adds the warning to ``heard``.

    Args:
        path: The picture.
        what: The warning.

    Warns:
        PictureWarning: If ``heard`` is None.
    """
    if (warned := heard.get()) is not None:
        warned.append(f"{path}: {what}")
        return
    warnings.warn(f"{path}: {what}", PictureWarning, stacklevel=4)


def by_profile(
    image: Image.Image, path: Path
) -> Callable[[Image.Image], Image.Image] | None:
    """Makes the conversion of an 8-bit image to sRGB by its color profile.

    Args:
        image: The image.
        path: Its file, for warnings.

    Returns:
        The conversion; None if the colors are sRGB, or the profile cannot be used.
    """
    modes = {"1": "L", "LA": "L", "La": "L", "CMYK": "CMYK", "LAB": "LAB"}
    mode = "L" if image.mode[0] in "LI" else "RGB"
    mode = modes.get(image.mode, mode)
    data = image.info.get("icc_profile")
    if not data and mode != "LAB":
        return None
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    transform = None
    if data:
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
            space = profile.profile.xcolor_space.strip()
            if mode == "L" and space == "RGB":
                mode = "RGB"
            if space != _SPACES[mode]:
                raise ValueError(f"it is one of {space}, the picture is {image.mode}")
            transform = ImageCms.ImageCmsTransform(
                profile, srgb, mode, "RGB", flags=_FLAGS
            )
        except (OSError, TypeError, ValueError) as e:
            warn(path, f"its color profile is not used ({e})")
    if transform is None and mode == "LAB":
        lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        transform = ImageCms.ImageCmsTransform(lab, srgb, mode, "RGB", flags=_FLAGS)
    if transform is None or (mode in ("L", "RGB") and _is_identity(transform, mode)):
        return None
    return lambda image: transform.apply(image.convert(mode))


def _is_identity(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    grays = np.arange(256, dtype=np.uint8)[None]
    colors = np.stack(np.meshgrid(*3 * [grays[0, ::15]]), -1).reshape(1, -1, 3)
    colors = np.concatenate([np.stack(3 * [grays], -1), colors], 1)
    samples = grays if mode == "L" else colors
    out = np.asarray(transform.apply(Image.fromarray(samples))).astype(int)
    expected = samples[..., None] if mode == "L" else samples
    return bool(abs(out - expected).max() <= _ROUNDING)


def by_gamma(info: Mapping) -> Callable[[np.ndarray], np.ndarray] | None:
    """Makes the conversion of samples to sRGB by a PNG's gAMA and cHRM.

    Chunks iCCP and sRGB take precedence (PNG specification, 4.3).

    Args:
        info: ``info`` of Pillow's image.

    Returns:
        The conversion; None if the colors are sRGB, or there is no gAMA.
    """
    gamma = info.get("gamma")
    places = np.reshape(info.get("chromaticity", _SRGB), (4, 2))
    if not gamma or info.get("icc_profile") or "srgb" in info:
        return None
    if abs(gamma * 2.2 - 1) < 0.05 and abs(places - _SRGB).max() < 0.01:
        return None
    return _make_converter(lambda color: color ** (1 / gamma), places)


def by_code_points(
    primaries: int, transfer: int, path: Path
) -> tuple[bool, Callable[[np.ndarray], np.ndarray] | None]:
    """Makes the conversion of samples to sRGB by numbers of H.273.

    Args:
        primaries: Number of the primaries.
        transfer: Number of the transfer function.
        path: The picture, for the warning of unknown numbers.

    Returns:
        Whether the numbers are known, and the conversion; None if they name sRGB.

    Raises:
        ValueError: If the picture is of high dynamic range.
    """
    linear, places = to_linear(transfer), chromaticities(primaries)
    if linear is None or places is None:
        warn(path, f"its colors' numbers {primaries} and {transfer} are not used")
        return False, None
    if places == _SRGB and linear is to_linear(SRGB):
        return True, None
    return True, _make_converter(linear, np.array(places))


def _make_converter(
    linear: Callable[[np.ndarray], np.ndarray], places: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """Makes the conversion to sRGB from other chromaticities.

    Args:
        linear: Function from coded to linear values.
        places: (x, y) of white, red, green and blue, ``(4, 2)``.
    """
    try:
        with np.errstate(all="raise"):
            matrix = np.linalg.inv(_make_matrix(np.array(_SRGB))) @ _make_matrix(places)
    except (np.linalg.LinAlgError, FloatingPointError):  # impossible chromaticities
        matrix = np.eye(3)

    def convert(color: np.ndarray) -> np.ndarray:
        light = (linear(color) @ matrix.T.astype(np.float32)).clip(0, 1)
        curve = 1.055 * light ** (1 / 2.4) - 0.055
        return np.where(light <= 0.0031308, 12.92 * light, curve)

    return convert


def _make_matrix(places: np.ndarray) -> np.ndarray:
    """Makes the matrix from linear RGB to XYZ over that of white (von Kries)."""
    x, y = places.T
    white, *primaries = np.stack([x, y, 1 - x - y], -1) / y[:, None]
    primaries = np.array(primaries).T / white[:, None]
    return primaries * np.linalg.solve(primaries, np.ones(3))


def to_samples(image: Image.Image) -> Samples:
    """Converts an 8-bit image to samples.

    Args:
        image: The image.

    Returns:
        Colors, ``(H, W, 3)`` in [0, 1], and opacity, ``(H, W, 1)`` or None.
    """
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB")) / np.float32(255), None
    values = np.asarray(image.convert("RGBA")) / np.float32(255)
    return values[..., :3], values[..., 3:]


def to_image(color: np.ndarray, opacity: np.ndarray | None) -> Image.Image:
    """Rounds samples to an image of 8 bits.

    Args:
        color: Colors, ``(H, W, 1 or 3)`` in [0, 1].
        opacity: Opacity, ``(H, W, 1)`` in [0, 1], or None.

    Returns:
        The image.
    """
    parts = [color] if opacity is None else [color, opacity]
    values = (np.concatenate(parts, -1) * 255).round().astype(np.uint8)
    return Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values)


def composite(
    color: np.ndarray,
    opacity: np.ndarray | None,
    to_srgb: Callable[[np.ndarray], np.ndarray] | None,
) -> Tensor:
    """Lays samples over white.

    Args:
        color: Colors, ``(H, W, 1 or 3)`` in [0, 1].
        opacity: Opacity, ``(H, W, 1)`` in [0, 1], or None.
        to_srgb: Conversion of colors to sRGB, or None.

    Returns:
        RGB in [0, 1], ``(1, 3, H, W)`` float32.
    """
    color = np.broadcast_to(color, (*color.shape[:2], 3))
    if to_srgb is not None:
        color = to_srgb(color)
    if opacity is not None:
        color = color * opacity + (1 - opacity)
    x = torch.from_numpy(color.astype(np.float32))
    return x.permute(2, 0, 1)[None].contiguous()


def flat(
    image: Image.Image, to_srgb: Callable[[Image.Image], Image.Image] | None
) -> Tensor:
    """Lays an 8-bit image over white.

    Args:
        image: The image.
        to_srgb: Conversion of images to sRGB, or None.

    Returns:
        RGB in [0, 1], ``(1, 3, H, W)`` float32.
    """
    if image.mode == "La":  # Pillow converts it to no other mode
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if to_srgb is not None:
            opacity, image = image.getchannel("A"), to_srgb(image.convert("RGB"))
            image.putalpha(opacity)
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    elif to_srgb is not None:
        image = to_srgb(image)
    if image.mode != "RGB":
        image = image.convert("RGB")
    x = torch.from_numpy(np.array(image))
    return x.permute(2, 0, 1)[None].float().div_(255)
