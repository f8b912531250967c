"""Files written whole."""

import io
import os
import secrets
from pathlib import Path

from PIL import Image
from torch import Tensor


def write_png(x: Tensor, path: str | Path) -> None:
    """Writes RGB in [0, 1], ``(1, 3, H, W)``, as an 8-bit PNG; whole or not at all."""
    write_whole(png_of(x), path)


def png_of(x: Tensor) -> bytes:
    """The file of :func:`write_png`."""
    picture = (x[0] * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    with io.BytesIO() as f:
        Image.fromarray(picture).save(f, "PNG")
        return f.getvalue()


def write_whole(data: bytes, path: str | Path) -> None:
    """Writes aside and renames, so that no half-written file is ever found."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Others may write it too. Its own name may be as long as names can be.
    aside = path.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with open(aside, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
