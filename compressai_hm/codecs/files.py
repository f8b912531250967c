"""Files found in folders, and files written whole."""

import io
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from torch import Tensor


def files_in(folder: Path, deep: bool = True) -> list[Path]:
    """The files of a folder and of those in it, in a fixed order.

    Hidden ones are left out. Links are followed, but into no folder a second time. A
    link to nothing is among the files: who reads it says what is wrong.

    Args:
        folder: Where to look.
        deep: Whether to look into the folders in it.

    Raises:
        OSError: If a folder cannot be read.
    """
    seen: set[tuple[int, int]] = set()
    found: list[Path] = []
    waiting = [folder]
    while waiting:  # what a folder holds itself goes before what it links to
        linked: list[Path] = []
        for place in waiting:
            found += _walk(place, deep, seen, linked)
        waiting = linked if deep else []
    return sorted(found)


def _walk(
    place: Path, deep: bool, seen: set[tuple[int, int]], linked: list[Path]
) -> Iterator[Path]:
    """Files below a folder, but not in folders seen; adds the links to folders."""

    def fail(e: OSError) -> None:
        raise e

    def is_new(path: str | Path) -> bool:
        status = os.stat(path)
        key = status.st_dev, status.st_ino
        new = key not in seen
        seen.add(key)
        return new

    if not is_new(place):
        return
    for root, folders, names in os.walk(place, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if os.path.islink(os.path.join(root, name))]
        linked += (Path(root, name) for name in sorted(links))
        folders[:] = [
            name
            for name in sorted(set(folders) - set(links))
            if deep and is_new(os.path.join(root, name))
        ]
        paths = (Path(root, name) for name in names if not name.startswith("."))
        yield from (path for path in paths if _may_be_read(path))


def _may_be_read(path: Path) -> bool:
    try:
        return path.is_file() or is_broken_link(path)
    except PermissionError:  # who reads it says so
        return True


def is_broken_link(path: Path) -> bool:
    """Whether it is a link to nothing, to itself, or to where one may not look."""
    return path.is_symlink() and not os.path.exists(path)


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
    """Writes aside and renames, so that no half-written file is ever found.

    A file that is replaced keeps its mode, and a link stays one: its target is written.
    """
    path = Path(path)
    if path.is_symlink():
        path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    # Others may write it too. Its own name may be as long as names can be.
    aside = path.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with open(aside, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        if path.exists():
            shutil.copymode(path, aside)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
