"""Colours of pictures: to sRGB, by profile or gamma, and onto white."""

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
"""Profiles that change no 8-bit colour by more are sRGB, however they tabulate it."""

_SRGB = chromaticities(1)
"""Its white, red, green and blue, (x, y)."""


# Samples: colours (H, W, 1 or 3) in [0, 1], and opacity (H, W, 1) or None.
Samples = tuple[np.ndarray, np.ndarray | None]


class PictureWarning(UserWarning):
    """A picture was read, but not all that its file holds was used."""


heard: ContextVar[list[str] | None] = ContextVar("heard", default=None)
"""Where it is a list it takes what is warned of: threads share filters of warnings."""


def warn(path: Path, what: str) -> None:
    if (own := heard.get()) is not None:
        own.append(f"{path}: {what}")
        return
    warnings.warn(f"{path}: {what}", PictureWarning, stacklevel=4)


def by_profile(
    image: Image.Image, path: Path
) -> Callable[[Image.Image], Image.Image] | None:
    """From 8 bits in an image's colours to sRGB; None where they are sRGB already."""
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
            warn(path, f"its colour profile is not used ({e})")
    if transform is None and mode == "LAB":
        lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        transform = ImageCms.ImageCmsTransform(lab, srgb, mode, "RGB", flags=_FLAGS)
    if transform is None or (mode in ("L", "RGB") and _is_identity(transform, mode)):
        return None
    return lambda image: transform.apply(image.convert(mode))


def _is_identity(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    grays = np.arange(256, dtype=np.uint8)[None]
    colours = np.stack(np.meshgrid(*3 * [grays[0, ::15]]), -1).reshape(1, -1, 3)
    both = np.concatenate([np.stack(3 * [grays], -1), colours], 1)
    given = grays if mode == "L" else both
    out = np.asarray(transform.apply(Image.fromarray(given))).astype(int)
    expected = given[..., None] if mode == "L" else given
    return bool(abs(out - expected).max() <= _ROUNDING)


def by_gamma(info: Mapping) -> Callable[[np.ndarray], np.ndarray] | None:
    """To sRGB from a PNG's gAMA and cHRM; None where they say sRGB, or nothing.

    Chunks iCCP and sRGB come before them (PNG specification, 4.3).
    """
    gamma = info.get("gamma")
    places = np.reshape(info.get("chromaticity", _SRGB), (4, 2))
    if not gamma or info.get("icc_profile") or "srgb" in info:
        return None
    if abs(gamma * 2.2 - 1) < 0.05 and abs(places - _SRGB).max() < 0.01:
        return None
    return _converter(lambda colour: colour ** (1 / gamma), places)


def by_code_points(
    primaries: int, transfer: int, path: Path
) -> tuple[bool, Callable[[np.ndarray], np.ndarray] | None]:
    """Finds the way to sRGB from colors that are named by numbers of H.273.

    Args:
        primaries: Their number.
        transfer: The transfer function's number.
        path: The picture, for the warning of unknown numbers.

    Returns:
        Whether they are known, and the way to sRGB; None where they name it.

    Raises:
        ValueError: If the picture is of high dynamic range.
    """
    linear, places = to_linear(transfer), chromaticities(primaries)
    if linear is None or places is None:
        warn(path, f"its colours' numbers {primaries} and {transfer} are not used")
        return False, None
    if places == _SRGB and linear is to_linear(SRGB):
        return True, None
    return True, _converter(linear, np.array(places))


def _converter(
    linear: Callable[[np.ndarray], np.ndarray], places: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """Makes the conversion to sRGB from other chromaticities.

    Args:
        linear: Turns their values into linear ones.
        places: White, red, green and blue, (x, y).
    """
    try:
        with np.errstate(all="raise"):
            matrix = np.linalg.inv(_to_xyz(np.array(_SRGB))) @ _to_xyz(places)
    except (np.linalg.LinAlgError, FloatingPointError):  # they are none
        matrix = np.eye(3)

    def convert(colour: np.ndarray) -> np.ndarray:
        light = (linear(colour) @ matrix.T.astype(np.float32)).clip(0, 1)
        curve = 1.055 * light ** (1 / 2.4) - 0.055
        return np.where(light <= 0.0031308, 12.92 * light, curve)

    return convert


def _to_xyz(places: np.ndarray) -> np.ndarray:
    """Linear RGB to XYZ over the white's, so that white stays white (von Kries)."""
    x, y = places.T
    white, *primaries = np.stack([x, y, 1 - x - y], -1) / y[:, None]
    primaries = np.array(primaries).T / white[:, None]
    return primaries * np.linalg.solve(primaries, np.ones(3))


def samples_of(image: Image.Image) -> Samples:
    """Of an image of 8 bits."""
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB")) / np.float32(255), None
    values = np.asarray(image.convert("RGBA")) / np.float32(255)
    return values[..., :3], values[..., 3:]


def image_of(colour: np.ndarray, opacity: np.ndarray | None) -> Image.Image:
    """8 bits of samples."""
    parts = [colour] if opacity is None else [colour, opacity]
    values = (np.concatenate(parts, -1) * 255).round().astype(np.uint8)
    return Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values)


def composite(
    colour: np.ndarray,
    opacity: np.ndarray | None,
    to_srgb: Callable[[np.ndarray], np.ndarray] | None,
) -> Tensor:
    """Samples on white, ``(1, 3, H, W)``."""
    colour = np.broadcast_to(colour, (*colour.shape[:2], 3))
    if to_srgb is not None:
        colour = to_srgb(colour)
    if opacity is not None:
        colour = colour * opacity + (1 - opacity)
    x = torch.from_numpy(colour.astype(np.float32))
    return x.permute(2, 0, 1)[None].contiguous()


def flat(
    image: Image.Image, to_srgb: Callable[[Image.Image], Image.Image] | None
) -> Tensor:
    """8 bits a sample on white, ``(1, 3, H, W)``."""
    if image.mode == "La":  # which Pillow brings to nothing else
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
