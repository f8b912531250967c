"""Digests of content, which decide what a sweep measures again.

Every work folder holds them in file names and files. If they were computed in another
way, finished points would be measured again.
"""

import hashlib
import json
import zlib
from typing import Any

from ...zoo.released import local_path


def file_digest(path: str) -> str:
    """Returns the SHA-256 of a file's content, or the path itself if it is a URL.

    Args:
        path: Path of a file, name of one in the package, or URL.
    """
    file = local_path(path)
    if not file.is_file():
        return path
    return hashlib.sha256(file.read_bytes()).hexdigest()


def value_digest(value: Any) -> str:
    """Returns 8 characters that differ for different values.

    Args:
        value: Lists, dicts and values that JSON or ``str`` can express.
    """
    text = json.dumps(value, default=str, sort_keys=True)
    return f"{zlib.crc32(text.encode()):08x}"
