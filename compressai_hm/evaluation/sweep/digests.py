"""Digests of content: what is measured again is decided by them.

They enter the file names and the files of every work folder: another way to compute one
would have finished points measured again.
"""

import hashlib
import json
import zlib
from typing import Any

from ...zoo.released import local_path


def file_digest(path: str) -> str:
    """Of a file's content, also of one in the package; of a URL, the URL."""
    file = local_path(path)
    if not file.is_file():
        return path
    return hashlib.sha256(file.read_bytes()).hexdigest()


def value_digest(value: Any) -> str:
    """8 characters that tell values from each other."""
    text = json.dumps(value, default=str, sort_keys=True)
    return f"{zlib.crc32(text.encode()):08x}"
