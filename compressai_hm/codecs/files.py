"""Pictures and streams on disk."""

import io
import os
import secrets
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"}
"""Of pictures that a folder is searched for."""


def read_picture(path: str | Path) -> Tensor:
    """A picture as people see it.

    EXIF rotation is applied, transparency laid over white; grayscale, palette and CMYK
    become RGB. 16-bit grayscale is kept; of 16-bit colour Pillow gives 8 bits.

    Args:
        path: Anything that Pillow reads.

    Returns:
        RGB in [0, 1], ``(1, 3, H, W)``, float32.

    Raises:
        ValueError: If the file is no such picture, or its values have no known range.
        FileNotFoundError: If there is no such file.
    """
    try:
        with Image.open(path) as image:
            image = ImageOps.exif_transpose(image)
            image.load()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: there is no such file") from None
    except Exception as e:  # a damaged file makes Pillow raise almost anything
        raise ValueError(f"{path}: not a readable picture ({e})") from e
    if image.mode.startswith("I"):  # 16 bits a sample, gray
        values = np.asarray(image, dtype=np.float64)
        if not (values.min() >= 0 and values.max() <= 65535):
            raise ValueError(
                f"{path}: samples from {values.min():g} to {values.max():g}; "
                "expected 8 or 16 bits"
            )
        x = torch.from_numpy(values / 65535).float().expand(3, -1, -1)
        return x[None].contiguous()
    if image.mode == "F":
        raise ValueError(
            f"{path}: floating-point samples have no known range; save it with 8 or 16 "
            "bits a sample"
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    x = torch.from_numpy(np.array(image.convert("RGB")))
    return x.permute(2, 0, 1)[None].float() / 255


def write_png(x: Tensor, path: str | Path) -> None:
    """Writes RGB in [0, 1], ``(1, 3, H, W)``, as an 8-bit PNG; whole or not at all."""
    picture = (x[0] * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    with io.BytesIO() as f:
        Image.fromarray(picture).save(f, "PNG")
        write_whole(f.getvalue(), path)


def write_whole(data: bytes, path: str | Path) -> None:
    """Writes aside and renames, so that no half-written file is ever found."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unique = f"{os.getpid()}-{secrets.token_hex(4)}"  # others may write it too
    aside = path.with_name(f".{path.name}.{unique}.part")
    try:
        with open(aside, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
