"""Pictures on disk, read as people see them: in sRGB, upright, on white.

Pillow decodes. What it leaves to its callers (ICC profiles, deep samples, polarity,
EXIF) is done here, or refused with the reason.
"""

import io
import math
import re
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageFile
from torch import Tensor

from .code_points import code_points
from .colours import (
    PictureWarning,
    Samples,
    by_code_points,
    by_gamma,
    by_profile,
    composite,
    flat,
    image_of,
    samples_of,
    warn,
)
from .container import MAX_PIXELS
from .files import files_in, is_broken_link

UNSIGNED = ("DIB", "ICO", "PCX", "TGA", "XBM")
"""Almost any file can begin like these formats: its suffix must say it, too."""

FORMATS = (
    *("AVIF", "BMP", "DDS", "GIF", "ICNS", "JPEG", "JPEG2000", "PNG", "PPM", "PSD"),
    *("QOI", "SGI", "SUN", "TIFF", "WEBP", "XPM", *UNSIGNED),
)
"""What is read: not those formats of Pillow's that need another program or plug-in (for
EPS it runs Ghostscript; WMF, MPEG, HDF5), nor those of measured values."""

OPENCV = ("BMP", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that OpenCV, and so MMDetection's pipelines, reads as well."""

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"}
"""They promise a picture: found in a folder, such a file is an error if it is none."""

_STILL = ("MPO", "PSD", "ICNS")  # their further frames are parts of the first picture
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# TIFF tags
_SUBFILE, _BITS, _PHOTOMETRIC, _PLANAR = 254, 258, 262, 284
_EXTRA, _SAMPLE_FORMAT, _SUBSAMPLING, _DNG = 338, 339, 530, 50706

_NO_RANGE = "samples have no known range; save it with 8 or 16 unsigned bits a sample"


def find_pictures(
    folder: str | Path, formats: tuple[str, ...] = FORMATS, deep: bool = True
) -> Iterator[Path]:
    """The files of a folder that are pictures, in a fixed order.

    The content of a file decides, not its name. Hidden files and folders are left out,
    and links are followed. A file whose suffix promises a picture is given even if it
    holds none, so that nobody misses a damaged one. So is a link to nothing that has
    such a suffix, or none, as the links to folders.

    Args:
        folder: Where to look.
        formats: Which kinds.
        deep: Whether to look into the folders in it.

    Raises:
        OSError: If a folder cannot be read.
    """
    for path in files_in(Path(folder), deep):
        suffix = path.suffix.lower()
        missing = not suffix and is_broken_link(path)
        if missing or suffix in SUFFIXES or is_picture(path, formats):
            yield path


def is_picture(path: Path, formats: tuple[str, ...] = FORMATS) -> bool:
    """Whether a file's header is one of a picture."""
    try:
        with open(path, "rb") as f:
            _identify(f, path, formats)
    except Exception:  # a damaged header makes Pillow raise almost anything
        return False
    return True


def pixels_of(source: str | Path | bytes, name: str | Path = "") -> int:
    """How many a picture says to have, without decoding it; 0 if it is none.

    Args:
        source: As of :func:`read_picture`.
        name: Likewise.
    """
    try:
        with _opened(source) as f, _pillow_allows(sys.maxsize):
            return math.prod(_identify(f, _name_of(source, name)).size)
    except Exception:  # a damaged header makes Pillow raise almost anything
        return 0


def read_picture(
    source: str | Path | bytes, max_pixels: int = MAX_PIXELS, name: str | Path = ""
) -> Tensor:
    """A picture as people see it.

    Colours become sRGB by the picture's ICC profile, by the numbers of H.273 that it
    names, or by a PNG's gamma; EXIF rotation is applied, transparency laid over white.
    16 bits a sample are kept, but not through a profile other than sRGB, nor those of
    colours in other files than PNG and TIFF.

    Args:
        source: Path of a file of any of :data:`FORMATS`, or what such a file holds.
        max_pixels: Larger pictures are refused before they are decoded.
        name: Of what is given as bytes, for errors and warnings; a few formats are
            known by the suffix alone.

    Returns:
        RGB in [0, 1], ``(1, 3, H, W)``, float32.

    Raises:
        ValueError: If the file is no such picture, is too large, its values have no
            known range, or its colours are of high dynamic range.
        FileNotFoundError: If there is no such file.

    Warns:
        PictureWarning: If only the first of several frames is read, or a colour profile
            cannot be used.
    """
    path = _name_of(source, name)
    try:
        with _opened(source) as f, _pillow_allows(max_pixels):
            return _read(f, path, max_pixels)
    except FileNotFoundError:
        target = f" as {path.readlink()}, its target" if path.is_symlink() else ""
        raise FileNotFoundError(f"{path}: there is no such file{target}") from None
    except PictureWarning:  # of those who made it an error
        raise
    except _Refused as e:
        raise ValueError(f"{path}: {e}") from None
    except Exception as e:  # a damaged file makes Pillow raise almost anything
        reason = str(e) or type(e).__name__
        raise ValueError(f"{path}: not a readable picture ({reason})") from e


def _opened(source: str | Path | bytes) -> BinaryIO:
    return io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")


def _name_of(source: str | Path | bytes, name: str | Path) -> Path:
    return Path(name or "picture" if isinstance(source, bytes) else source)


class _Refused(ValueError):
    """With the reason."""


_lock = threading.Lock()
_allowed: list[int] = []
_own_limit: list[int | None] = []


@contextmanager
def _pillow_allows(pixels: int) -> Iterator[None]:
    """Pillow's own limit is the whole process's: raised where it must be, and restored.

    Args:
        pixels: What this thread needs; others may need more.
    """

    def raise_limit() -> None:
        (own,) = _own_limit
        Image.MAX_IMAGE_PIXELS = None if own is None else max(own, *_allowed, 0)

    with _lock:
        if not _allowed:
            _own_limit[:] = [Image.MAX_IMAGE_PIXELS]
        _allowed.append(pixels)
        raise_limit()
    try:
        yield
    finally:
        with _lock:
            _allowed.remove(pixels)
            raise_limit()


def _identify(
    f: BinaryIO, path: Path, formats: tuple[str, ...] = FORMATS
) -> ImageFile.ImageFile:
    """Image.open with other limits: which formats, and how many pixels.

    Raises:
        _Refused: If it is none of these formats.
    """
    Image.init()
    own = Image.EXTENSION.get(path.suffix.lower())
    reasons = []
    for name in formats:
        factory, accept = Image.OPEN.get(name, (None, None))
        f.seek(0)
        # Instead of False it may say why not.
        if factory is None or (accept and accept(f.read(16)) is not True):
            continue
        if name in UNSIGNED and name != own:
            continue
        f.seek(0)
        try:
            image = factory(f, "")
        except (SyntaxError, IndexError, TypeError, struct.error) as e:
            reasons.append(f"{name}: {e}")
            continue
        if name == "TIFF":
            _check_tiff(f, image)
        return image
    raise _Refused(
        f"not a readable picture ({'; '.join(reasons) or 'of no known kind'}); convert "
        f"it to PNG, or another of {', '.join(FORMATS)}"
    )


def _check_tiff(f: BinaryIO, image: ImageFile.ImageFile) -> None:
    """Refuses what Pillow would read wrongly."""
    tags = image.tag_v2
    f.seek(8)
    if tags.get(_SUBFILE, 0) & 1 or _DNG in tags or f.read(2) == b"CR":
        raise _Refused(
            "it begins with a thumbnail, as cameras' raw files do; develop it first"
        )
    kinds = set(tags.get(_SAMPLE_FORMAT, (1,))) - {1}
    if kinds:
        kind = {2: "signed", 3: "floating-point"}.get(kinds.pop(), "unusual")
        raise _Refused(f"{kind} {_NO_RANGE}")
    deep = max(tags.get(_BITS, (1,))) == 16
    premultiplied = deep and image.mode == "RGBA" and tags.get(_EXTRA) == (1,)
    if tags.get(_PLANAR) == 2 and (
        premultiplied
        or image.mode in ("LA", "La", "PA", "LAB")
        or (deep and image.mode not in ("RGB", "RGBA", "I;16", "I;16B"))
    ):
        raise _Refused(
            f"colours of mode {image.mode} in planes; save it with interleaved colours"
        )
    if image.mode == "YCbCr" and tags.get(_SUBSAMPLING, (2, 2)) != (1, 1):
        raise _Refused("subsampled colours that are not packed; save it as RGB")


def _read(f: BinaryIO, path: Path, max_pixels: int) -> Tensor:
    try:
        image = first = _identify(f, path)
    except Image.DecompressionBombError as e:
        raise _Refused(f"{e} Raise max_pixels if you trust the file") from None
    width, height = image.size
    if width * height > max_pixels:
        raise _Refused(
            f"the picture has {width}x{height} pixels, more than "
            f"max_pixels={max_pixels}; raise that if you trust the file"
        )
    if width < 1 or height < 1:
        raise _Refused(f"a picture of {width}x{height} pixels is empty")
    samples = _gray_samples(image)
    if samples is None:
        samples = _colour_samples(image, lambda: _identify(f, path))
    if samples is None:
        _scale_transparency(image)
        image = _upright(image)
    to_srgb, to_srgb_samples = _conversion(f, first, path)
    if samples is None and to_srgb_samples is not None:
        samples = samples_of(image)
    if samples is not None and to_srgb is not None:
        image, samples = image_of(*samples), None
    in_8_bits = samples is None
    x = flat(image, to_srgb) if in_8_bits else composite(*samples, to_srgb_samples)
    if first.format not in _STILL and getattr(first, "is_animated", False):
        warn(path, "holds more than one picture, of which the first is read")
    return x


def _conversion(f: BinaryIO, image: ImageFile.ImageFile, path: Path) -> tuple:
    """Finds what turns a picture's colors into sRGB.

    In a PNG the numbers of its colors come before a profile (PNG specification, 3rd
    edition, 4.3), in an AVIF after it.

    Returns:
        A function of an image of 8 bits and one of samples; at most one is not None.
    """
    profile = image.info.get("icc_profile") or image.mode == "LAB"
    if image.format == "PNG" or not profile:
        try:
            numbers = code_points(f, image.format)
            known, convert = (
                by_code_points(*numbers, path) if numbers else (False, None)
            )
        except ValueError as e:
            raise _Refused(e) from None
        if known:
            return None, convert
    return by_profile(image, path) if profile else None, by_gamma(image.info)


def _upright(image: Image.Image) -> Image.Image:
    """Loaded, and turned as its EXIF says; unreadable EXIF says nothing."""
    image.load()
    try:
        turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:
        return image
    return image if turn is None else image.transpose(turn)


def _gray_samples(image: ImageFile.ImageFile) -> Samples | None:
    """Gray of more than 8 bits."""
    if image.mode == "F":
        raise _Refused(f"floating-point {_NO_RANGE}")
    if not image.mode.startswith("I"):
        return None
    white, inverted = 65535, False
    if image.format == "TIFF":
        white = 2 ** image.tag_v2[_BITS][0] - 1
        inverted = image.tag_v2.get(_PHOTOMETRIC, 0) == 0
    values = np.asarray(_upright(image))
    if white == 2**32 - 1:
        values = values.view(np.uint32)
    values = values.astype(np.float64)[..., None]
    if not (values.min() >= 0 and values.max() <= white):
        raise _Refused(
            f"samples from {values.min():g} to {values.max():g}; expected 0 to {white}"
        )
    clear = image.info.get("transparency")
    opacity = None if clear is None else (values != clear).astype(np.float32)
    values = values / white
    return (1 - values if inverted else values).astype(np.float32), opacity


def _colour_samples(
    image: ImageFile.ImageFile, again: Callable[[], ImageFile.ImageFile]
) -> Samples | None:
    """Colours of 16 bits a sample.

    Pillow unpacks only the high byte of each; told that the file's byte order is the
    other one, only the low byte.

    Args:
        image: Not yet loaded.
        again: Opens it once more.
    """
    packing = _packing(image)
    bits = image.tag_v2.get(_BITS, (1,)) if image.format == "TIFF" else (0,)
    if len(packing) == 1 and max(bits) == 16:
        # One colour after the other: Pillow would take them for 8 bits.
        packing = f"{image.mode};16{'L' if image.tag_v2.prefix == b'II' else 'B'}"
    found = re.fullmatch("(LA|RGB|RGBX|RGBA|RGBa);16([LBN])", packing)
    if image.format not in ("PNG", "TIFF") or not found:
        return None
    name, order = found.groups()
    if name == "LA":
        both = np.ascontiguousarray(_unpacked(image, "RGBA"))
        values = both.view(">u2")
    else:
        name = name.replace("a", "A")
        if order == "N":
            order = "L" if sys.byteorder == "little" else "B"
        high = _unpacked(image, f"{name};16{order}").astype(np.uint16)
        values = 256 * high + _unpacked(again(), f"{name};16{'BL'[order == 'B']}")
    channels = values.shape[-1]
    clear = image.info.get("transparency")
    values = values.astype(np.float32)
    if clear is not None:
        opacity = (values != np.array(clear)).any(-1, keepdims=True).astype(np.float32)
    elif channels in (2, 4):
        values, opacity = values[..., :-1], values[..., -1:] / 65535
    else:
        opacity = None
    if "RGBa" in packing:
        values = np.minimum(values / np.maximum(opacity, 1e-9), 65535)
    return values / 65535, opacity


def _packing(image: ImageFile.ImageFile) -> str:
    """What Pillow calls the raw mode."""
    args = image.tile[0].args if image.tile else None
    return str(args[0] if isinstance(args, tuple) else args)


def _unpacked(image: ImageFile.ImageFile, packing: str) -> np.ndarray:
    """Bytes ``(H, W, C)``, taken out of the file in another way than Pillow would."""

    def other(tile):
        if isinstance(tile.args, str):
            return tile._replace(args=packing)
        own = tile.args[0]
        new = own + packing[packing.index(";") :] if len(own) == 1 else packing
        return tile._replace(args=(new, *tile.args[1:]))

    image.tile = [other(tile) for tile in image.tile]
    return np.asarray(_upright(image))


def _scale_transparency(image: ImageFile.ImageFile) -> None:
    """PNG names the clear gray in the samples' bits, which Pillow scales to 8."""
    clear = image.info.get("transparency")
    if image.format == "PNG" and image.mode in ("L", "RGB") and clear is not None:
        top = {"L;2": 3, "L;4": 15}.get(_packing(image), 255)
        scaled = [(c & top) * 255 // top for c in np.atleast_1d(clear).tolist()]
        image.info["transparency"] = tuple(scaled) if len(scaled) > 1 else scaled[0]
