"""Storage of checkpoints that survives interruptions."""

from pathlib import Path

from mmengine.fileio import register_backend
from mmengine.fileio.backends import LocalBackend

from ...io.files import write_whole


@register_backend("atomic_local")
class AtomicLocalBackend(LocalBackend):
    """Writes a file aside and renames it, so that no checkpoint is half-written."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        write_whole(obj, filepath)
