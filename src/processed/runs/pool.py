"""Work in chunks on executors: a bounded number in flight, and a new pool when one breaks.

This is the one seam for scale: any factory of `concurrent.futures.Executor` will do, for a local
process pool or for a cluster.
"""

from __future__ import annotations

import importlib
import logging
import math
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import Generic, ParamSpec, TypeVar

from src.utils import LogFormatter, keep_freed_memory

logger = logging.getLogger(__name__)


T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")
ExecutorFactory = Callable[[], Executor]

# Breaks of the pool in a row, without a finished chunk between them, that end the run.
MAX_BREAKS = 20
# Items in a chunk; sending fewer to a worker costs more than it saves.
_SMALL_CHUNK = 16
# Workers that may die on an item that each had to itself.
_MAX_DEATHS = 2


# Worker processes ---------------------------------------------------------------------------------


class LocalExecutor(ProcessPoolExecutor):
    """A pool of processes on this machine, one thread each.

    They do not import the main module, leave Ctrl-C to this process, and end with it.
    """

    def __init__(self, workers: int) -> None:
        super().__init__(
            workers, mp_context=multiprocessing.get_context("spawn"), initializer=start_worker
        )

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Submit work of an importable module, which may start a process."""
        with _isolate_started_processes():
            return super().submit(fn, *args, **kwargs)

    def kill(self) -> None:
        """End the processes at once; files that they were writing keep their temporary names."""
        for process in list((self._processes or {}).values()):
            process.kill()


@contextmanager
def _isolate_started_processes() -> Iterator[None]:
    """Start worker processes that ignore Ctrl-C and do not re-import `__main__`.

    They need nothing of the main module, and a script without an ``if __name__ == "__main__"``
    guard would run again in each of them.
    """
    main = sys.modules["__main__"]
    hidden: dict[str, object] = {
        name: vars(main)[name] for name in ("__spec__", "__file__") if name in vars(main)
    }
    # Blocked from their first moment on, before `start_worker` can ignore it.
    signals_before = None
    if hasattr(signal, "pthread_sigmask"):
        signals_before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        main.__spec__ = None
        vars(main).pop("__file__", None)
        yield
    finally:
        vars(main).update(hidden)
        if signals_before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, signals_before)


def can_start_processes() -> bool:
    """Return whether this system has semaphores, which a pool needs.

    Containers without shared memory have none.
    """
    try:
        multiprocessing.get_context("spawn").Semaphore()
    except (OSError, ImportError) as error:
        logger.warning(
            "no worker processes here (%s; is /dev/shm missing?): this process does the work", error
        )
        return False
    return True


@contextmanager
def local_executors(workers: int, n_early: int, module: str) -> Iterator[ExecutorFactory]:
    """Yield a factory of process pools, the first of which starts early.

    Parameters
    ----------
    workers
        Processes per pool.
    n_early
        Processes of the first pool that start at once, while this process does other work.
    module
        Module that these load.
    """
    started = [LocalExecutor(workers)]
    try:
        for _ in range(n_early):
            started[0].submit(_import, module)
        yield lambda: started.pop() if started else LocalExecutor(workers)
    finally:
        # The first pool, if nothing asked for it.
        for executor in started:
            executor.kill()
            _shut_down(executor, wait=True)


def _import(module: str) -> None:
    importlib.import_module(module)


def start_worker() -> None:
    """Initialize a worker process: one thread, no Ctrl-C, and an end with its parent.

    Several threads per worker on few cores are slower than one.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A worker has no log of its own; warnings go to standard error as they are.
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(LogFormatter())
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_with_parent, args=(parent.sentinel,), daemon=True).start()


def _exit_with_parent(sentinel: int) -> None:
    """End this process when its parent ends, since it would otherwise wait for work forever."""
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


# Chunks -------------------------------------------------------------------------------------------


def chunked(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the items in lists of `size`, the last one shorter."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def shrinking_chunks(items: Sequence[T], largest: int, workers: int) -> Iterator[list[T]]:
    """Yield the items in lists of up to `largest`, several per worker, shorter towards the end.

    Small last lists let all workers finish at about the same time.
    """
    if workers == 1:
        yield from chunked(items, largest)
        return
    n_shares = 4 * workers
    smallest = min(_SMALL_CHUNK, largest, math.ceil(len(items) / n_shares))
    start = 0
    while start < len(items):
        size = max(smallest, min(largest, (len(items) - start) // n_shares))
        yield list(items[start : start + size])
        start += size


def run_chunks(
    work: Callable[[list[T]], R],
    chunks: Iterator[list[T]],
    factory: ExecutorFactory | None,
    window: int,
    lost: Callable[[T], R] | None = None,
) -> Iterator[R]:
    """Yield the result of each chunk as it is done, in any order.

    Parameters
    ----------
    work
        Called with a chunk; must be picklable when `factory` makes processes.
    chunks
        Read only as far as `window` allows, so that memory stays constant.
    factory
        Makes the executor and is called again when it breaks; None works in this process.
    window
        Number of chunks in flight at a time.
    lost
        Gives the result of an item on which workers die even when it is their only work; without
        it such an item ends the run.

    Raises
    ------
    RuntimeError
        When workers keep dying.
    """
    # An empty run starts no pool.
    first = next(chunks, None)
    if first is None:
        return
    chunks = chain([first], chunks)
    if factory is None:
        from threadpoolctl import threadpool_limits

        keep_freed_memory()
        # One thread, as in a worker: the matrices are too small for several.
        with threadpool_limits(1):
            yield from map(work, chunks)
        return
    yield from _ChunkRunner(work, chunks, factory, window, lost).run()


@dataclass(frozen=True)
class _Chunk(Generic[T]):
    """Items sent together, and the number of workers that died on them alone in flight."""

    items: list[T]
    deaths: int = 0


class _ChunkRunner(Generic[T, R]):
    """Keeps an executor busy, and knows what is in flight, so that a broken pool costs only that.

    After a break the chunks that were in flight are sent again one at a time, which shows the one
    at fault. Its items are then sent one by one, and an item that kills two workers is given up.
    """

    def __init__(
        self,
        work: Callable[[list[T]], R],
        chunks: Iterator[list[T]],
        factory: ExecutorFactory,
        window: int,
        lost: Callable[[T], R] | None,
    ) -> None:
        self.work = work
        self.chunks = chunks
        self.factory = factory
        self.window = window
        self.lost = lost
        self.in_flight: dict[Future[R], _Chunk[T]] = {}
        self.retries: list[_Chunk[T]] = []
        self.breaks = 0

    def run(self) -> Iterator[R]:
        executor = self.factory()
        try:
            while True:
                try:
                    yield from self._run_on(executor)
                    return
                except BrokenExecutor:
                    _shut_down(executor, wait=False)
                    yield from self._recover()
                    executor = self.factory()
        except BaseException:
            # Nothing waits for the results of processes that still work.
            if isinstance(executor, LocalExecutor):
                executor.kill()
            raise
        finally:
            _shut_down(executor, wait=True)

    def _run_on(self, executor: Executor) -> Iterator[R]:
        """Yield results until all chunks are done or the executor breaks."""
        while True:
            self._submit_chunks(executor)
            if not self.in_flight:
                return
            done, _ = wait(self.in_flight, return_when=FIRST_COMPLETED)
            for future in done:
                if _was_given_up(future):
                    chunk = self.in_flight.pop(future)
                    yield from self._retry_items(chunk, future.exception())
                    continue
                result = future.result()
                del self.in_flight[future]
                self.breaks = 0
                yield result

    def _submit_chunks(self, executor: Executor) -> None:
        """Submit chunks up to the window, or a single one to retry."""
        while len(self.in_flight) < (1 if self.retries else self.window):
            is_retry = bool(self.retries)
            chunk = self.retries.pop() if is_retry else _Chunk(next(self.chunks, []))
            if not chunk.items:
                return
            try:
                self.in_flight[executor.submit(self.work, chunk.items)] = chunk
            except BrokenExecutor:
                self.retries.append(chunk)
                raise
            if is_retry:
                return

    def _recover(self) -> Iterator[R]:
        """Queue the chunks in flight again after a break; yield the result of a given-up item."""
        self.breaks += 1
        interrupted = list(self.in_flight.values())
        self.in_flight.clear()
        logger.warning("a worker died: %d chunks are sent again", len(interrupted))
        if self.breaks > MAX_BREAKS:
            raise RuntimeError(
                f"workers died {self.breaks} times in a row: is memory short? Run with one worker "
                "to see the cause"
            ) from None
        if len(interrupted) != 1:
            self.retries += interrupted
            return
        suspect = interrupted[0]
        if len(suspect.items) > 1:
            self.retries += [_Chunk([item]) for item in suspect.items]
        elif suspect.deaths + 1 < _MAX_DEATHS or self.lost is None:
            self.retries.append(_Chunk(suspect.items, suspect.deaths + 1))
        else:
            yield self.lost(suspect.items[0])

    def _retry_items(self, chunk: _Chunk[T], error: BaseException | None) -> Iterator[R]:
        """Queue the items of a chunk one by one; yield the result of a given-up item."""
        if len(chunk.items) > 1:
            logger.warning(
                "workers died on a chunk: its %d items are sent again one by one", len(chunk.items)
            )
            self.retries += [_Chunk([item]) for item in chunk.items]
        elif self.lost is not None:
            yield self.lost(chunk.items[0])
        else:
            raise RuntimeError(f"workers keep dying on one item: {error}") from None


def _shut_down(executor: Executor, wait: bool) -> None:
    """Shut an executor down and drop its queued work.

    Executors of clusters often lack that option, and have nothing queued but our window.
    """
    try:
        executor.shutdown(wait=wait, cancel_futures=True)
    except TypeError:
        executor.shutdown(wait=wait)


def _was_given_up(future: Future[R]) -> bool:
    """Return whether Dask gave up a chunk after repeated worker deaths; its executor lives on."""
    return not future.cancelled() and type(future.exception()).__name__ == "KilledWorker"
