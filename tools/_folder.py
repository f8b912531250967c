"""Work on several files at a time, with results in the order of the files."""

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

from compressai_hm.entropy.threads import code_with_threads

_MAX_WORKERS = 4


def default_workers() -> int:
    """Returns the number of torch's threads, at most four."""
    return min(_MAX_WORKERS, torch.get_num_threads())


class InOrder:
    """A context that runs a function on jobs in threads, and yields results in order.

    One worker is the calling thread itself. With more, Ctrl-C ends the program without
    waiting for busy threads; therefore only the caller may write files.

    Args:
        run: Function that is called with each job.
        jobs: The jobs.
        workers: Number of threads.
        size: Function that returns the size of a job. Defaults to 0 for all.
        most: Largest sum of the sizes of jobs that run at a time. Defaults to 0.
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
        self.queue: queue.SimpleQueue = queue.SimpleQueue()
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
            self.queue.put(None)
        for thread in self.threads:
            thread.join()
        atexit.unregister(self._leave)

    def __iter__(self) -> Iterator[tuple[Any, Callable[[], Any]]]:
        """Yields each job, and a function that waits for its result."""
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
        """Queues more jobs than there are threads, so that no thread has to wait."""
        while self.jobs and len(self.window) < 2 * len(self.threads):
            size = self.size(self.jobs[0])
            running = sum(s for _, s, future in self.window if not future.done())
            if self.window and size + running > self.most:
                return
            self.window.append((self.jobs.popleft(), size, Future()))
            self.queue.put(self.window[-1])

    def _work(self, threads: int) -> None:
        # Floating point depends on the number of threads. In a new thread, torch's
        # first call replaces the thread's number by the last one set anywhere.
        torch.get_num_threads()
        torch.set_num_threads(threads)
        code_with_threads(1)
        while (item := self.queue.get()) is not None:
            job, _, future = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(self.run(job))
            except BaseException as e:
                future.set_exception(e)

    def _leave(self) -> None:
        """Ends the process at once if threads are busy; Python's way may crash then."""
        if any(future.running() for *_, future in self.window):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)
