"""How many of torch's threads exact coding takes.

Integers are the same with any number. The transforms' floating point is not: torch
takes other convolutions where it has one thread, so theirs stays as it is.
"""

import functools
import threading
from collections.abc import Callable

import torch


class _Own(threading.local):
    count: int | None = None


_own = _Own()


def code_with_threads(count: int | None) -> None:
    """Of exact coding that this thread begins from here on; None for torch's number.

    For those that code several pictures at a time, each in a thread of its own.
    """
    _own.count = count


def in_own_threads(method: Callable) -> Callable:
    """For methods that compute in integers alone."""

    @functools.wraps(method)
    def narrow(*args, **kwargs):
        if _own.count is None:
            return method(*args, **kwargs)
        before = torch.get_num_threads()
        torch.set_num_threads(_own.count)  # of the calling thread
        try:
            return method(*args, **kwargs)
        finally:
            torch.set_num_threads(before)

    return narrow
