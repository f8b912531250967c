"""Search of files in folders, and atomic writing of files."""

import io
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from torch import Tensor


def files_in(folder: Path, deep: bool = True) -> list[Path]:
    """Returns the files of a folder and of the folders in it, in a fixed order.

    Hidden files and folders are left out. Links are followed, but no folder is entered
    twice. Broken links are among the files, so that reading them reports the error.

    Args:
        folder: The folder.
        deep: Whether to search the folders in it. Defaults to True.

    Raises:
        OSError: If a folder cannot be read.
    """
    seen: set[tuple[int, int]] = set()
    files: list[Path] = []
    waiting = [folder]
    while waiting:  # folders come before links to them
        linked: list[Path] = []
        for place in waiting:
            files += _walk(place, deep, seen, linked)
        waiting = linked if deep else []
    return sorted(files)


def _walk(
    place: Path, deep: bool, seen: set[tuple[int, int]], linked: list[Path]
) -> Iterator[Path]:
    """Yields the files below a folder, but not in seen ones; adds links to folders."""

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
    except PermissionError:  # reading it reports the error
        return True


def is_broken_link(path: Path) -> bool:
    """Says whether a path is a link to no readable place.

    Args:
        path: The path.
    """
    return path.is_symlink() and not os.path.exists(path)


def write_png(x: Tensor, path: str | Path) -> None:
    """Writes a picture as an 8-bit PNG; see :func:`write_whole`.

    Args:
        x: RGB in [0, 1], ``(1, 3, H, W)``.
        path: The file.
    """
    write_whole(encode_png(x), path)


def encode_png(x: Tensor) -> bytes:
    """Returns the content of an 8-bit PNG.

    Args:
        x: RGB in [0, 1], ``(1, 3, H, W)``.
    """
    picture = (x[0] * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    with io.BytesIO() as f:
        Image.fromarray(picture).save(f, "PNG")
        return f.getvalue()


def write_whole(data: bytes, path: str | Path) -> None:
    """Writes a temporary file and renames it, so that no file is ever half written.

    A replaced file keeps its mode. If the path is a link, its target is replaced.

    Args:
        data: The content.
        path: The file; its folder is made.
    """
    path = Path(path)
    if path.is_symlink():
        path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    # Other processes may write the same file, whose name may have the maximum length.
    temporary = path.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        if path.exists():
            shutil.copymode(path, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
