"""A cache of decoded pictures that a data loader's workers share."""

import hashlib
import mmap
import multiprocessing
import os

import numpy as np

_SLOTS = 2**17
_SLOT = np.dtype(
    [("key", "u8"), ("first", "u8"), ("height", "u4"), ("width", "u4"), ("full", "u1")]
)


class SharedPictures:
    """Keeps pictures in memory that is shared by processes forked later.

    When the memory is full, further pictures are not kept. A process that is started
    afresh gets an empty cache of its own.

    Args:
        size: Bytes that the pictures may take.

    Raises:
        ValueError: If the machine has less free memory.
    """

    def __init__(self, size: int):
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if not 0 < size <= free:
            raise ValueError(
                f"cache_bytes={size:,} must be positive and fit into the free memory "
                f"of {free:,} bytes"
            )
        self.size = size
        self._pictures = mmap.mmap(-1, size)
        slots = mmap.mmap(-1, (_SLOTS + 1) * _SLOT.itemsize)
        self._slots = np.frombuffer(slots, dtype=_SLOT)
        self._lock = multiprocessing.get_context("fork").Lock()

    def __reduce__(self) -> tuple:
        return SharedPictures, (self.size,)

    def get(self, path: str) -> np.ndarray | None:
        """Returns a copy of a picture, ``(H, W, 3)`` uint8; None if it is not kept.

        Args:
            path: The picture's path.
        """
        slot = self._slots[self._find(path)]
        if not slot["full"]:
            return None
        shape = int(slot["height"]), int(slot["width"]), 3
        first = int(slot["first"])
        picture = np.frombuffer(self._pictures, np.uint8, np.prod(shape), first)
        return picture.reshape(shape).copy()

    def put(self, path: str, picture: np.ndarray) -> None:
        """Keeps a picture if there is room.

        Args:
            path: The picture's path.
            picture: ``(H, W, 3)`` uint8; others are not kept.
        """
        if picture.dtype != np.uint8 or picture.shape[2:] != (3,):
            return
        with self._lock:
            at, end = self._find(path), int(self._slots[_SLOTS]["first"])
            known = self._slots[at]["key"] or self._slots[_SLOTS]["key"] >= _SLOTS // 2
            if known or end + picture.nbytes > self.size:
                return
            self._pictures[end : end + picture.nbytes] = picture.tobytes()
            self._slots[_SLOTS]["first"] = end + picture.nbytes
            self._slots[_SLOTS]["key"] += 1
            # "full" is written last, because get() takes no lock.
            self._slots[at] = (_hash_path(path), end, *picture.shape[:2], 0)
            self._slots[at]["full"] = 1

    def _find(self, path: str) -> int:
        """Returns the slot of a picture, or the free slot for it."""
        key = _hash_path(path)
        at = key % _SLOTS
        while self._slots[at]["key"] not in (0, key):
            at = (at + 1) % _SLOTS
        return at


def _hash_path(path: str) -> int:
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:8]) or 1
