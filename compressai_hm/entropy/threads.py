"""The number of torch's threads for exact coding.

Integers do not depend on the number of threads. The transforms' floating point does,
because torch computes convolutions differently with one thread, so we do not change the
number for them.
"""

import functools
import threading
from collections.abc import Callable

import torch


class _Threads(threading.local):
    count: int | None = None


_threads = _Threads()


def code_with_threads(count: int | None) -> None:
    """Sets the number of torch's threads for exact coding in the calling thread.

    It serves callers that code several pictures at a time, one in each thread.

    Args:
        count: Number of threads; None for torch's number.
    """
    _threads.count = count


def in_own_threads(method: Callable) -> Callable:
    """Returns a method that runs with the number of :func:`code_with_threads`.

    Args:
        method: A method that computes in integers alone.
    """

    @functools.wraps(method)
    def narrow(*args, **kwargs):
        if _threads.count is None:
            return method(*args, **kwargs)
        before = torch.get_num_threads()
        torch.set_num_threads(_threads.count)  # for the calling thread
        try:
            return method(*args, **kwargs)
        finally:
            torch.set_num_threads(before)

    return narrow
