"""Names of output files: NAME.hmc for NAME.png."""

import os
import sys
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from ..io.files import files_in, is_broken_link
from ..io.pictures import find_pictures, is_picture

SUFFIX = ".hmc"
"""Suffix of coded pictures."""

STDIN = Path("/dev/stdin")


def is_pipe(path: Path) -> bool:
    """Says whether a file can be read only once, such as standard input.

    Args:
        path: The file; it need not exist.
    """
    return path == STDIN or (
        os.path.exists(path) and not (path.is_file() or path.is_dir())
    )


def read_content(path: Path) -> bytes:
    """Returns the content of a file or a pipe.

    Args:
        path: The file.
    """
    return sys.stdin.buffer.read() if path == STDIN else path.read_bytes()


def plan_outputs(
    inputs: Iterable[Path], out: Path | None, encoding: bool
) -> list[tuple[Path, Path]]:
    """Finds the input files and, for each, the path of its output without suffix.

    The path is NAME for NAME.png. If another file would have the same path, it is
    NAME.png for NAME.png.

    Args:
        inputs: Files and folders.
        out: Folder of the outputs. None puts them beside the inputs, and those of a
            pipe into the current folder.
        encoding: Whether the inputs are pictures; else they are coded pictures.

    Returns:
        Pairs of input and output path.

    Raises:
        OSError: If a folder cannot be read.
    """
    folders: dict[Path, Path] = {}
    seen = set()
    for source in inputs:
        inside = source.is_dir()
        search = find_pictures if encoding else _find_coded
        for path in search(source) if inside else [source]:
            folder = out or (source if inside else _find_default_folder(path))
            if inside:
                folder /= path.relative_to(source).parent
            key = os.path.realpath(path), folder
            if key not in seen:  # an input may be named twice
                folders[path] = folder
            seen.add(key)
    full = {p for p in folders if encoding and (p.suffix == SUFFIX or _has_twin(p))}
    while True:
        targets = {
            p: parent / _pick_name(p, p in full) for p, parent in folders.items()
        }
        count = Counter(targets.values())
        more = {p for p, target in targets.items() if count[target] > 1} - full
        if not more:
            return list(targets.items())
        full |= more


def free_path(target: Path, ending: str, overwrite: bool = False) -> Path:
    """Adds an ending to a path, and cuts its name to 255 bytes.

    Args:
        target: A path of :func:`plan_outputs`.
        ending: The ending, such as ".hmc".
        overwrite: Whether a file may exist there. Defaults to False.

    Returns:
        The path.

    Raises:
        ValueError: If a file exists there.
    """
    name, mark = target.name, ""
    while len(os.fsencode(name + mark + ending)) > 255:
        mark = f"~{zlib.crc32(os.fsencode(target.name)):08x}"
        name = name[:-1]
    path = target.with_name(name + mark + ending)
    check_free(path, overwrite)
    return path


def check_free(path: Path, overwrite: bool = False) -> None:
    """Checks that no file would be overwritten.

    Args:
        path: The path of the output.
        overwrite: Whether a file may exist there. Defaults to False.

    Raises:
        ValueError: If a file exists there.
    """
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists: --overwrite (overwrite=True) replaces it")


def _find_coded(folder: Path) -> Iterator[Path]:
    for path in files_in(folder):
        missing = not path.suffix and is_broken_link(path)
        if missing or path.suffix.lower() == SUFFIX:
            yield path


def _find_default_folder(path: Path) -> Path:
    return Path() if is_pipe(path) else path.parent


def _pick_name(path: Path, whole: bool) -> str:
    return path.name if whole or is_pipe(path) else path.stem


def _has_twin(path: Path) -> bool:
    """Says whether another picture in the folder has the same name but for its suffix.

    A separate command may code that picture to the same folder.
    """
    if is_pipe(path):
        return False
    twins = (_list_names_by_stem(path.parent)[path.stem] | {path.stem}) - {path.name}
    return any(is_picture(path.with_name(name)) for name in twins)


@cache
def _list_names_by_stem(folder: Path) -> dict[str, set[str]]:
    names = defaultdict(set)
    if folder.is_dir():
        for path in folder.iterdir():
            names[path.stem].add(path.name)
    return names
