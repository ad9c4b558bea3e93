"""Work handed to executors in chunks: a bounded number in flight, and a broken pool rebuilt.

This is the one seam for scale: any factory of `concurrent.futures.Executor`s serves, a local process pool or a cluster's.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from itertools import chain, islice
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")
ExecutorFactory = Callable[[], Executor]

MAX_BREAKS = 20


def local_executor(workers: int) -> Executor:
    """Return a pool of processes that start clean, each kept to one thread."""
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_one_thread)


def _one_thread() -> None:
    """Keep a worker's libraries to one thread: several per worker on few cores are slower than one."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"


def chunked(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the items in lists of `size`, the last one shorter."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def run_chunks(
    work: Callable[[list[T]], R], chunks: Iterator[list[T]], factory: ExecutorFactory | None, window: int
) -> Iterator[R]:
    """Yield the result of each chunk as it is done.

    Parameters
    ----------
    work
        Called with a chunk; must be picklable when `factory` makes processes.
    chunks
        Read only as far as `window` allows, so memory stays constant.
    factory
        Makes the executor and is called again when it breaks; None works in this process.
    window
        Chunks in flight at a time.

    Raises
    ------
    RuntimeError
        When workers keep dying.
    """
    first = next(chunks, None)
    if first is None:
        return  # no pool for nothing
    chunks = chain([first], chunks)
    if factory is None:
        yield from map(work, chunks)
        return
    yield from _Feeder(work, chunks, factory, window).run()


class _Feeder(Generic[T, R]):
    """Keeps an executor fed, and remembers what is in flight so that a broken pool costs only that."""

    def __init__(
        self, work: Callable[[list[T]], R], chunks: Iterator[list[T]], factory: ExecutorFactory, window: int
    ) -> None:
        self.work, self.chunks, self.factory, self.window = work, chunks, factory, window
        self.flying: dict[Future[R], list[T]] = {}
        self.again: list[list[T]] = []
        self.breaks = 0

    def run(self) -> Iterator[R]:
        executor = self.factory()
        try:
            while True:
                try:
                    yield from self._drain(executor)
                    return
                except BrokenExecutor:
                    self._recover()
                    executor.shutdown(wait=False, cancel_futures=True)
                    executor = self.factory()
        finally:
            executor.shutdown(wait=True, cancel_futures=True)

    def _recover(self) -> None:
        self.breaks += 1
        self.again += self.flying.values()
        logger.warning("a worker died: %d chunks are sent again", len(self.flying))
        self.flying.clear()
        if self.breaks > MAX_BREAKS:
            raise RuntimeError(f"workers died {self.breaks} times: is memory short? One worker shows the cause") from None
        if self.breaks > 1:
            self.window = 1  # a chunk that kills its worker then takes no other with it

    def _drain(self, executor: Executor) -> Iterator[R]:
        while True:
            self._fill(executor)
            if not self.flying:
                return
            done, _ = wait(self.flying, return_when=FIRST_COMPLETED)
            for future in done:
                result = future.result()
                del self.flying[future]
                yield result

    def _fill(self, executor: Executor) -> None:
        while len(self.flying) < self.window:
            chunk = self.again.pop() if self.again else next(self.chunks, None)
            if chunk is None:
                return
            try:
                self.flying[executor.submit(self.work, chunk)] = chunk
            except BrokenExecutor:
                self.again.append(chunk)
                raise


def chunk_size(n_items: int, largest: int, workers: int) -> int:
    """Return how many items a chunk holds: `largest`, or fewer so that every worker gets several chunks."""
    return max(1, min(largest, -(-n_items // (4 * workers))))
