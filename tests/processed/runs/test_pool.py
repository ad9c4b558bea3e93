from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from src.processed.runs import pool
from src.processed.runs.pool import (
    LocalExecutor,
    chunked,
    local_executors,
    run_chunks,
    shrinking_chunks,
)


def double(chunk: list[int]) -> list[int]:
    return [2 * item for item in chunk]


def die_once(flag: str, chunk: list[int]) -> list[int]:
    """Kill the worker on the chunk with 3 the first time."""
    if 3 in chunk and not Path(flag).exists():
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return double(chunk)


def always_die(chunk: list[int]) -> list[int]:
    os.kill(os.getpid(), signal.SIGKILL)
    return chunk


def test_chunks() -> None:
    assert list(chunked(range(5), 2)) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize(
    ("n_items", "largest", "workers", "sizes"),
    [
        (10, 256, 2, [2] * 5),
        (0, 256, 2, []),
        (600, 256, 1, [256, 256, 88]),
        (40, 4, 2, [4] * 10),
        (3, 256, 2, [1, 1, 1]),
        (2000, 64, 2, [64] * 5),
    ],
)
def test_chunks_hold_every_item_once_and_shrink(
    n_items: int, largest: int, workers: int, sizes: list[int]
) -> None:
    chunks = list(shrinking_chunks(range(n_items), largest, workers))
    assert [item for chunk in chunks for item in chunk] == list(range(n_items))
    assert list(map(len, chunks))[: len(sizes)] == sizes
    assert not chunks or len(chunks[-1]) <= 16 or workers == 1


def test_work_in_this_process_and_with_nothing_to_do() -> None:
    assert list(run_chunks(double, chunked(range(3), 2), None, 4)) == [[0, 2], [4]]
    assert list(run_chunks(double, iter([]), partial(LocalExecutor, 2), 4)) == []


def test_a_killed_worker_costs_only_its_chunks(tmp_path: Path) -> None:
    results = run_chunks(
        partial(die_once, str(tmp_path / "flag")),
        chunked(range(12), 2),
        partial(LocalExecutor, 2),
        4,
    )
    assert sorted(item for chunk in results for item in chunk) == [2 * i for i in range(12)]
    assert (tmp_path / "flag").exists()


def test_workers_that_keep_dying_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "MAX_BREAKS", 1)
    with pytest.raises(RuntimeError, match="workers died 2 times"):
        list(run_chunks(always_die, chunked(range(4), 2), partial(LocalExecutor, 1), 2))


def test_processes_start_before_there_is_work_and_go_where_none_comes(tmp_path: Path) -> None:
    with local_executors(2, 2, "src.preprocessing") as executors:
        early = multiprocessing.active_children()
        assert len(early) == 2
        first = executors()
        assert first.submit(loaded, "src.preprocessing").result()
        assert set(multiprocessing.active_children()) == set(early), "no more were started for it"
        first.shutdown()
        results = run_chunks(
            partial(die_once, str(tmp_path / "flag")), chunked(range(12), 2), executors, 4
        )
        assert sorted(item for chunk in results for item in chunk) == [2 * i for i in range(12)], (
            "broken ones are replaced"
        )
    with pytest.raises(KeyboardInterrupt), local_executors(2, 2, "src.preprocessing"):
        early = multiprocessing.active_children()
        raise KeyboardInterrupt
    assert len(early) == 2 and not multiprocessing.active_children()


def test_processes_go_where_they_are_stopped_while_they_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submit = LocalExecutor.submit

    def interrupt(executor: LocalExecutor, *arguments: Any) -> Any:
        submit(executor, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalExecutor, "submit", interrupt)
    with pytest.raises(KeyboardInterrupt), local_executors(2, 2, "src.preprocessing"):
        raise AssertionError("it does not come to this")
    assert not multiprocessing.active_children()


def loaded(module: str) -> bool:
    return module in sys.modules


def test_chunks_are_read_only_as_far_as_the_window() -> None:
    taken = []

    def source():  # type: ignore[no-untyped-def]
        for i in range(100):
            taken.append(i)
            yield [i]

    from concurrent.futures import ThreadPoolExecutor

    results = run_chunks(double, source(), lambda: ThreadPoolExecutor(1), 4)
    next(results)
    assert len(taken) <= 6
    results.close()  # type: ignore[attr-defined]
