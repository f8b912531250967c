"""Many files at a time, told of in their order."""

import atexit
import os
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any

import torch

from compressai_hm.codecs.entropy.threads import code_with_threads

_MOST = 4
"""Workers."""


def default_workers() -> int:
    """As many as torch may use cores, up to four."""
    return min(_MOST, torch.get_num_threads())


class InOrder:
    """A context that runs a function on jobs in threads, and gives results in order.

    One worker is the calling thread itself. With more, Ctrl-C ends the program without
    waiting for those that are busy: only the caller may write files.

    Args:
        run: Called with each job.
        jobs: What there is to do.
        workers: How many threads.
        size: Of a job.
        most: Jobs whose sizes add up to more are not begun at a time.
    """

    def __init__(
        self,
        run: Callable[[Any], Any],
        jobs: list,
        workers: int,
        size: Callable[[Any], int] = lambda job: 0,
        most: int = 0,
    ):
        self.run, self.jobs, self.size, self.most = run, deque(jobs), size, most
        self.window: deque[tuple[Any, int, Future]] = deque()
        self.asked: queue.SimpleQueue = queue.SimpleQueue()
        self.threads = [
            threading.Thread(target=self._work, args=[torch.get_num_threads()])
            for _ in range(workers if workers > 1 else 0)
        ]

    def __enter__(self) -> "InOrder":
        atexit.register(self._leave)
        for thread in self.threads:
            thread.daemon = True
            thread.start()
        return self

    def __exit__(self, kind: type | None, *_) -> None:
        for *_, future in self.window:
            future.cancel()
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            return
        for _ in self.threads:
            self.asked.put(None)
        for thread in self.threads:
            thread.join()
        atexit.unregister(self._leave)

    def __iter__(self) -> Iterator[tuple[Any, Callable[[], Any]]]:
        """Each job, and what waits for its result, or raises its error."""
        while self.jobs or self.window:
            if not self.threads:
                job = self.jobs.popleft()
                yield job, partial(self.run, job)
                continue
            self._fill()
            job, _, future = self.window[0]
            yield job, future.result
            self.window.popleft()

    def _fill(self) -> None:
        """A few are asked for ahead, so that nobody waits for the slowest."""
        while self.jobs and len(self.window) < 2 * len(self.threads):
            size = self.size(self.jobs[0])
            under_way = sum(own for _, own, future in self.window if not future.done())
            if self.window and size + under_way > self.most:
                return
            self.window.append((self.jobs.popleft(), size, Future()))
            self.asked.put(self.window[-1])

    def _work(self, threads: int) -> None:
        # Floating point depends on it. Before its first use in a thread torch forgets
        # what was set there, for what any thread set last.
        torch.get_num_threads()
        torch.set_num_threads(threads)
        code_with_threads(1)
        while (asked := self.asked.get()) is not None:
            job, _, future = asked
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(self.run(job))
            except BaseException as e:
                future.set_exception(e)

    def _leave(self) -> None:
        """At once: what ends in the usual way while threads are busy may crash."""
        if any(future.running() for *_, future in self.window):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)
