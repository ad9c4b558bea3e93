"""Work handed to executors in chunks: a bounded number in flight, and a broken pool rebuilt.

This is the one seam for scale: any factory of executors (`concurrent.futures.Executor`) serves, a
local process pool or a cluster's.
"""

from __future__ import annotations

import importlib
import logging
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

from src.utils import keep_freed_memory

logger = logging.getLogger(__name__)


T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")
ExecutorFactory = Callable[[], Executor]

MAX_BREAKS = 20  # in a row, without a single chunk done
_SMALL_CHUNK = 16  # items; less is not worth the way to a worker and back
_MAX_DEATHS = 2  # of workers that had one item to themselves


class LocalExecutor(ProcessPoolExecutor):
    """A pool of processes that start clean, each kept to one thread; they leave Ctrl-C to this
    process and end with it.
    """

    def __init__(self, workers: int) -> None:
        super().__init__(
            workers, mp_context=multiprocessing.get_context("spawn"), initializer=start_worker
        )

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Submit work of an importable module, for which a process may be started."""
        with _start_clean():
            return super().submit(fn, *args, **kwargs)

    def kill(self) -> None:
        """End the processes at once; what they were writing stays under temporary names."""
        for process in list((self._processes or {}).values()):
            process.kill()


@contextmanager
def _start_clean() -> Iterator[None]:
    """Let processes that are started meanwhile be deaf to Ctrl-C from their first moment on, and
    know nothing of the main module.

    They need nothing of it, and a script without a guard around its calls would make them once more
    in each process.
    """
    main = sys.modules["__main__"]
    kept: dict[str, object] = {
        name: vars(main)[name] for name in ("__spec__", "__file__") if name in vars(main)
    }
    before = (
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        if hasattr(signal, "pthread_sigmask")
        else None
    )
    try:
        main.__spec__ = None
        vars(main).pop("__file__", None)
        yield
    finally:
        vars(main).update(kept)
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def can_start_processes() -> bool:
    """Tell whether this system has the semaphores that a pool needs; containers without shared
    memory have none.
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
    """Yield what makes pools of processes on this machine; `n_early` of the first start at once and
    load `module`, while this process goes on.
    """
    waiting = [LocalExecutor(workers)]
    try:
        for _ in range(n_early):
            waiting[0].submit(_load, module)
        yield lambda: waiting.pop() if waiting else LocalExecutor(workers)
    finally:
        for executor in waiting:  # that nobody asked for
            executor.kill()
            _shut_down(executor, wait=True)


def _load(module: str) -> None:
    importlib.import_module(module)


def start_worker() -> None:
    """Prepare a worker process, as the initializer of its pool: one thread, deaf to Ctrl-C, and
    gone when its parent is.

    Several threads per worker on few cores are slower than one.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent.sentinel,), daemon=True).start()


def _follow(sentinel: int) -> None:
    """End this process when its parent is gone, who would otherwise wait for work for ever."""
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def chunked(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the items in lists of `size`, the last one shorter."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def shrinking_chunks(items: Sequence[T], largest: int, workers: int) -> Iterator[list[T]]:
    """Yield the items in lists of up to `largest`, several for each worker, and shorter towards the
    end.

    Workers that share the last items in small lists end at about the same time.
    """
    if workers == 1:
        yield from chunked(items, largest)
        return
    at, share = 0, 4 * workers
    smallest = min(_SMALL_CHUNK, largest, -(-len(items) // share))
    while at < len(items):
        size = max(smallest, min(largest, (len(items) - at) // share))
        yield list(items[at : at + size])
        at += size


def run_chunks(
    work: Callable[[list[T]], R],
    chunks: Iterator[list[T]],
    factory: ExecutorFactory | None,
    window: int,
    lost: Callable[[T], R] | None = None,
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
    lost
        Gives the result for an item on which workers die though they have nothing else to do;
        without it such an item ends the run.

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
        from threadpoolctl import threadpool_limits

        keep_freed_memory()
        with threadpool_limits(1):  # as in a worker: the matrices are too small for several threads
            yield from map(work, chunks)
        return
    yield from _Feeder(work, chunks, factory, window, lost).run()


@dataclass(frozen=True)
class _Sent(Generic[T]):
    """A chunk, and how many workers died on it while it was the only one in flight."""

    items: list[T]
    deaths: int = 0


class _Feeder(Generic[T, R]):
    """Keeps an executor fed, and remembers what is in flight so that a broken pool costs only that.

    After a break the chunks that were in flight go one at a time, so that the one at fault shows;
    it then goes item by item, and an item that kills two workers on its own is given up.
    """

    def __init__(
        self,
        work: Callable[[list[T]], R],
        chunks: Iterator[list[T]],
        factory: ExecutorFactory,
        window: int,
        lost: Callable[[T], R] | None,
    ) -> None:
        self.work, self.chunks, self.factory, self.window, self.lost = (
            work,
            chunks,
            factory,
            window,
            lost,
        )
        self.flying: dict[Future[R], _Sent[T]] = {}
        self.again: list[_Sent[T]] = []
        self.breaks = 0

    def run(self) -> Iterator[R]:
        executor = self.factory()
        try:
            while True:
                try:
                    yield from self._drain(executor)
                    return
                except BrokenExecutor:
                    _shut_down(executor, wait=False)
                    yield from self._recover()
                    executor = self.factory()
        except BaseException:
            if isinstance(executor, LocalExecutor):
                executor.kill()  # nobody waits for what they do
            raise
        finally:
            _shut_down(executor, wait=True)

    def _recover(self) -> Iterator[R]:
        """Queue what was in flight once more; yields the result of an item that is given up."""
        self.breaks += 1
        flying = list(self.flying.values())
        self.flying.clear()
        logger.warning("a worker died: %d chunks are sent again", len(flying))
        if self.breaks > MAX_BREAKS:
            raise RuntimeError(
                f"workers died {self.breaks} times in a row: is memory short? One worker "
                "shows the cause"
            ) from None
        if len(flying) != 1:
            self.again += flying
            return
        suspect = flying[0]
        if len(suspect.items) > 1:
            self.again += [_Sent([item]) for item in suspect.items]
        elif suspect.deaths + 1 < _MAX_DEATHS or self.lost is None:
            self.again.append(_Sent(suspect.items, suspect.deaths + 1))
        else:
            yield self.lost(suspect.items[0])

    def _drain(self, executor: Executor) -> Iterator[R]:
        while True:
            self._fill(executor)
            if not self.flying:
                return
            done, _ = wait(self.flying, return_when=FIRST_COMPLETED)
            for future in done:
                if _lost_its_workers(future):
                    yield from self._take_apart(self.flying.pop(future), future.exception())
                    continue
                result = future.result()
                del self.flying[future]
                self.breaks = 0
                yield result

    def _take_apart(self, sent: _Sent[T], error: BaseException | None) -> Iterator[R]:
        """Queue the items of a chunk one by one; yields the result of an item that is given up."""
        if len(sent.items) > 1:
            logger.warning(
                "workers died on a chunk: its %d items are sent again one by one", len(sent.items)
            )
            self.again += [_Sent([item]) for item in sent.items]
        elif self.lost is not None:
            yield self.lost(sent.items[0])
        else:
            raise RuntimeError(f"workers keep dying on one item: {error}") from None

    def _fill(self, executor: Executor) -> None:
        """Submit chunks up to the window, or one alone where some were in flight at a break."""
        while len(self.flying) < (1 if self.again else self.window):
            careful = bool(self.again)
            sent = self.again.pop() if careful else _Sent(next(self.chunks, []))
            if not sent.items:
                return
            try:
                self.flying[executor.submit(self.work, sent.items)] = sent
            except BrokenExecutor:
                self.again.append(sent)
                raise
            if careful:
                return


def _shut_down(executor: Executor, wait: bool) -> None:
    """Shut an executor down and drop what waits; a cluster's often knows no such option, and has
    nothing waiting but our window.
    """
    try:
        executor.shutdown(wait=wait, cancel_futures=True)
    except TypeError:
        executor.shutdown(wait=wait)


def _lost_its_workers(future: Future[R]) -> bool:
    """Tell whether a cluster gave a chunk up since worker after worker died on it, as Dask does,
    which goes on itself.
    """
    return not future.cancelled() and type(future.exception()).__name__ == "KilledWorker"
