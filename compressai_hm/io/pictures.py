"""Pictures on disk, read as people see them: in sRGB, upright, on white.

Pillow decodes. This module does what Pillow leaves to its callers (ICC profiles, deep
samples, polarity, EXIF), or refuses the picture with the reason.
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

from ..geometry import MAX_PIXELS
from .code_points import code_points
from .colors import (
    PictureWarning,
    Samples,
    by_code_points,
    by_gamma,
    by_profile,
    composite,
    flat,
    to_image,
    to_samples,
    warn,
)
from .files import files_in, is_broken_link

UNSIGNED = ("DIB", "ICO", "PCX", "TGA", "XBM")
"""Formats without a signature, which a file must also have as its suffix."""

FORMATS = (
    *("AVIF", "BMP", "DDS", "GIF", "ICNS", "JPEG", "JPEG2000", "PNG", "PPM", "PSD"),
    *("QOI", "SGI", "SUN", "TIFF", "WEBP", "XPM", *UNSIGNED),
)
"""Formats that are read. Pillow's others need another program or plug-in (Ghostscript
for EPS; WMF, MPEG, HDF5), or hold measured values."""

OPENCV = ("BMP", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that OpenCV, and thus MMDetection's pipelines, can also read."""

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"}
"""Suffixes of pictures: a file with one of them is an error if it is no picture."""

_STILL = ("MPO", "PSD", "ICNS")  # further frames are parts of the first picture
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
    """Yields the pictures of a folder, in a fixed order.

    The content of a file decides, not its name. Hidden files and folders are left out,
    and links are followed. Files with one of ``SUFFIXES`` are always among the
    pictures, so that damaged ones are noticed, and so are broken links with such a
    suffix or with none, as links to folders have.

    Args:
        folder: The folder.
        formats: Formats of the pictures. Defaults to ``FORMATS``.
        deep: Whether to search the folders in it. Defaults to True.

    Raises:
        OSError: If a folder cannot be read.
    """
    for path in files_in(Path(folder), deep):
        suffix = path.suffix.lower()
        missing = not suffix and is_broken_link(path)
        if missing or suffix in SUFFIXES or is_picture(path, formats):
            yield path


def is_picture(path: Path, formats: tuple[str, ...] = FORMATS) -> bool:
    """Says whether a file has the header of a picture.

    Args:
        path: The file.
        formats: Formats of the pictures. Defaults to ``FORMATS``.
    """
    try:
        with open(path, "rb") as f:
            _identify(f, path, formats)
    except Exception:  # a damaged header makes Pillow raise almost anything
        return False
    return True


def count_pixels(source: str | Path | bytes, name: str | Path = "") -> int:
    """Returns the number of pixels in a picture's header; 0 if it is no picture.

    Args:
        source: File or content, as for :func:`read_picture`.
        name: Name of a content, as for :func:`read_picture`. Defaults to "".
    """
    try:
        with _open_source(source) as f, _raise_pillow_limit(sys.maxsize):
            return math.prod(_identify(f, _choose_name(source, name)).size)
    except Exception:  # a damaged header makes Pillow raise almost anything
        return 0


def read_picture(
    source: str | Path | bytes, max_pixels: int = MAX_PIXELS, name: str | Path = ""
) -> Tensor:
    """Reads a picture as people see it.

    Colors become sRGB by the picture's ICC profile, by its numbers of H.273, or by a
    PNG's gamma. EXIF rotation is applied, and transparency is laid over white. Samples
    of 16 bits keep their precision, except with a profile different from sRGB, and
    except colors in files that are neither PNG nor TIFF.

    Args:
        source: Path of a file of any of :data:`FORMATS`, or the content of such a file.
        max_pixels: Larger pictures are refused before they are decoded. Defaults to
            2**26.
        name: Name of a content, for errors, warnings and the formats that are known by
            the suffix alone. Defaults to "".

    Returns:
        RGB in [0, 1], ``(1, 3, H, W)`` float32.

    Raises:
        ValueError: If the file is no such picture, is too large, its values have no
            known range, or its colors are of high dynamic range.
        FileNotFoundError: If there is no such file.

    Warns:
        PictureWarning: If only the first of several frames is read, or a color profile
            cannot be used.
    """
    path = _choose_name(source, name)
    try:
        with _open_source(source) as f, _raise_pillow_limit(max_pixels):
            return _read(f, path, max_pixels)
    except FileNotFoundError:
        target = f" as {path.readlink()}, its target" if path.is_symlink() else ""
        raise FileNotFoundError(f"{path}: there is no such file{target}") from None
    except PictureWarning:  # if warnings are errors
        raise
    except _RefusedPicture as e:
        raise ValueError(f"{path}: {e}") from None
    except Exception as e:  # a damaged file makes Pillow raise almost anything
        reason = str(e) or type(e).__name__
        raise ValueError(f"{path}: not a readable picture ({reason})") from e


def _open_source(source: str | Path | bytes) -> BinaryIO:
    return io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")


def _choose_name(source: str | Path | bytes, name: str | Path) -> Path:
    return Path(name or "picture" if isinstance(source, bytes) else source)


class _RefusedPicture(ValueError):
    """An error that says why a picture is refused."""


_lock = threading.Lock()
_allowed: list[int] = []
_limit: list[int | None] = []


@contextmanager
def _raise_pillow_limit(pixels: int) -> Iterator[None]:
    """Raises Pillow's limit, which all threads share, and restores it.

    Args:
        pixels: Pixels that this thread needs; others may need more.
    """

    def raise_limit() -> None:
        (limit,) = _limit
        Image.MAX_IMAGE_PIXELS = None if limit is None else max(limit, *_allowed, 0)

    with _lock:
        if not _allowed:
            _limit[:] = [Image.MAX_IMAGE_PIXELS]
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
    """Opens an image like Image.open, with the given formats and its limit of pixels.

    Raises:
        _RefusedPicture: If it has none of these formats.
    """
    Image.init()
    suffix_format = Image.EXTENSION.get(path.suffix.lower())
    reasons = []
    for name in formats:
        factory, accept = Image.OPEN.get(name, (None, None))
        f.seek(0)
        # accept() may return a reason instead of False.
        if factory is None or (accept and accept(f.read(16)) is not True):
            continue
        if name in UNSIGNED and name != suffix_format:
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
    raise _RefusedPicture(
        f"not a readable picture ({'; '.join(reasons) or 'of no known kind'}); convert "
        f"it to PNG, or another of {', '.join(FORMATS)}"
    )


def _check_tiff(f: BinaryIO, image: ImageFile.ImageFile) -> None:
    """Refuses TIFF files that Pillow would read wrongly."""
    tags = image.tag_v2
    f.seek(8)
    if tags.get(_SUBFILE, 0) & 1 or _DNG in tags or f.read(2) == b"CR":
        raise _RefusedPicture(
            "it begins with a thumbnail, as cameras' raw files do; develop it first"
        )
    kinds = set(tags.get(_SAMPLE_FORMAT, (1,))) - {1}
    if kinds:
        kind = {2: "signed", 3: "floating-point"}.get(kinds.pop(), "unusual")
        raise _RefusedPicture(f"{kind} {_NO_RANGE}")
    deep = max(tags.get(_BITS, (1,))) == 16
    premultiplied = deep and image.mode == "RGBA" and tags.get(_EXTRA) == (1,)
    if tags.get(_PLANAR) == 2 and (
        premultiplied
        or image.mode in ("LA", "La", "PA", "LAB")
        or (deep and image.mode not in ("RGB", "RGBA", "I;16", "I;16B"))
    ):
        raise _RefusedPicture(
            f"colors of mode {image.mode} in planes; save it with interleaved colors"
        )
    if image.mode == "YCbCr" and tags.get(_SUBSAMPLING, (2, 2)) != (1, 1):
        raise _RefusedPicture("subsampled colors that are not packed; save it as RGB")


def _read(f: BinaryIO, path: Path, max_pixels: int) -> Tensor:
    try:
        image = first = _identify(f, path)
    except Image.DecompressionBombError as e:
        raise _RefusedPicture(f"{e} Raise max_pixels if you trust the file") from None
    width, height = image.size
    if width * height > max_pixels:
        raise _RefusedPicture(
            f"the picture has {width}x{height} pixels, more than "
            f"max_pixels={max_pixels}; raise that if you trust the file"
        )
    if width < 1 or height < 1:
        raise _RefusedPicture(f"a picture of {width}x{height} pixels is empty")
    samples = _read_gray_samples(image)
    if samples is None:
        samples = _read_color_samples(image, lambda: _identify(f, path))
    if samples is None:
        _scale_transparency(image)
        image = _turn_upright(image)
    to_srgb, to_srgb_samples = _find_conversion(f, first, path)
    if samples is None and to_srgb_samples is not None:
        samples = to_samples(image)
    if samples is not None and to_srgb is not None:
        image, samples = to_image(*samples), None
    in_8_bits = samples is None
    x = flat(image, to_srgb) if in_8_bits else composite(*samples, to_srgb_samples)
    if first.format not in _STILL and getattr(first, "is_animated", False):
        warn(path, "holds more than one picture, of which the first is read")
    return x


def _find_conversion(f: BinaryIO, image: ImageFile.ImageFile, path: Path) -> tuple:
    """Finds the conversion of a picture's colors to sRGB.

    In a PNG the numbers of its colors take precedence over a profile (PNG
    specification, 3rd edition, 4.3); in an AVIF the profile does.

    Returns:
        A conversion of 8-bit images and one of samples; at most one is not None.
    """
    profile = image.info.get("icc_profile") or image.mode == "LAB"
    if image.format == "PNG" or not profile:
        try:
            numbers = code_points(f, image.format)
            known, convert = (
                by_code_points(*numbers, path) if numbers else (False, None)
            )
        except ValueError as e:
            raise _RefusedPicture(e) from None
        if known:
            return None, convert
    return by_profile(image, path) if profile else None, by_gamma(image.info)


def _turn_upright(image: Image.Image) -> Image.Image:
    """Loads an image and turns it by its EXIF, which is ignored if it is unreadable."""
    image.load()
    try:
        turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:
        return image
    return image if turn is None else image.transpose(turn)


def _read_gray_samples(image: ImageFile.ImageFile) -> Samples | None:
    """Reads gray samples of more than 8 bits; returns None for other images."""
    if image.mode == "F":
        raise _RefusedPicture(f"floating-point {_NO_RANGE}")
    if not image.mode.startswith("I"):
        return None
    white, inverted = 65535, False
    if image.format == "TIFF":
        white = 2 ** image.tag_v2[_BITS][0] - 1
        inverted = image.tag_v2.get(_PHOTOMETRIC, 0) == 0
    values = np.asarray(_turn_upright(image))
    if white == 2**32 - 1:
        values = values.view(np.uint32)
    values = values.astype(np.float64)[..., None]
    if not (values.min() >= 0 and values.max() <= white):
        raise _RefusedPicture(
            f"samples from {values.min():g} to {values.max():g}; expected 0 to {white}"
        )
    clear = image.info.get("transparency")
    opacity = None if clear is None else (values != clear).astype(np.float32)
    values = values / white
    return (1 - values if inverted else values).astype(np.float32), opacity


def _read_color_samples(
    image: ImageFile.ImageFile, again: Callable[[], ImageFile.ImageFile]
) -> Samples | None:
    """Reads colors of 16 bits a sample; returns None for other images.

    Pillow unpacks only the high byte of each sample. With the opposite byte order it
    unpacks only the low byte.

    Args:
        image: The image, not yet loaded.
        again: Function that opens the image again.
    """
    packing = _get_raw_mode(image)
    bits = image.tag_v2.get(_BITS, (1,)) if image.format == "TIFF" else (0,)
    if len(packing) == 1 and max(bits) == 16:
        # Pillow would take colors in planes for 8 bits.
        packing = f"{image.mode};16{'L' if image.tag_v2.prefix == b'II' else 'B'}"
    match = re.fullmatch("(LA|RGB|RGBX|RGBA|RGBa);16([LBN])", packing)
    if image.format not in ("PNG", "TIFF") or not match:
        return None
    name, order = match.groups()
    if name == "LA":
        values = np.ascontiguousarray(_unpack(image, "RGBA")).view(">u2")
    else:
        name = name.replace("a", "A")
        if order == "N":
            order = "L" if sys.byteorder == "little" else "B"
        high = _unpack(image, f"{name};16{order}").astype(np.uint16)
        values = 256 * high + _unpack(again(), f"{name};16{'BL'[order == 'B']}")
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


def _get_raw_mode(image: ImageFile.ImageFile) -> str:
    """Returns the arrangement of samples in the file, Pillow's raw mode."""
    args = image.tile[0].args if image.tile else None
    return str(args[0] if isinstance(args, tuple) else args)


def _unpack(image: ImageFile.ImageFile, packing: str) -> np.ndarray:
    """Unpacks bytes, ``(H, W, C)``, with another raw mode than Pillow's."""

    def replace(tile):
        if isinstance(tile.args, str):
            return tile._replace(args=packing)
        mode = tile.args[0]
        new = mode + packing[packing.index(";") :] if len(mode) == 1 else packing
        return tile._replace(args=(new, *tile.args[1:]))

    image.tile = [replace(tile) for tile in image.tile]
    return np.asarray(_turn_upright(image))


def _scale_transparency(image: ImageFile.ImageFile) -> None:
    """Scales the transparent color of a PNG to 8 bits, as Pillow scales samples."""
    clear = image.info.get("transparency")
    if image.format == "PNG" and image.mode in ("L", "RGB") and clear is not None:
        top = {"L;2": 3, "L;4": 15}.get(_get_raw_mode(image), 255)
        scaled = [(c & top) * 255 // top for c in np.atleast_1d(clear).tolist()]
        image.info["transparency"] = tuple(scaled) if len(scaled) > 1 else scaled[0]
