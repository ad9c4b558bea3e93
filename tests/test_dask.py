"""A Dask cluster of worker processes as the executor of a run."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from crash_runs import CONFIG, preprocess, write_collection

from src.config import DataConfig, ExecutionConfig
from src.preprocessing import run_preprocessing
from src.processed.runs.pool import chunked, run_chunks

if TYPE_CHECKING:
    from distributed import Client

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("distributed") is None,
        reason="dask.distributed is not installed (requirements-dev.txt)",
    ),
    pytest.mark.filterwarnings("default"),  # Dask's own warnings
]


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    import dask
    from distributed import Client, LocalCluster

    settings = {
        "distributed.scheduler.allowed-failures": 0,
        "distributed.comm.timeouts.connect": "60s",
    }  # a worker takes long to start
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def kill_once(flag: str, chunk: list[int]) -> list[int]:
    if 3 in chunk and not Path(flag).exists():
        Path(flag).touch()
        os._exit(9)
    return [2 * item for item in chunk]


def kill_on_three(chunk: list[int]) -> list[int]:
    if 3 in chunk:
        os._exit(9)
    return [2 * item for item in chunk]


def test_a_cluster_leaves_what_a_local_run_leaves(client: Client, tmp_path: Path) -> None:
    write_collection(tmp_path, 40)
    preprocess(tmp_path, tmp_path / "local", chunk_size=4)
    preprocess(tmp_path, tmp_path / "cluster", chunk_size=4, factory=client.get_executor)
    for path in [tmp_path / "local" / name for name in ("manifest.csv", "splits.json")] + sorted(
        (tmp_path / "local" / "records").iterdir()
    ):
        assert (
            tmp_path / "cluster" / path.relative_to(tmp_path / "local")
        ).read_bytes() == path.read_bytes()
    assert len(list((tmp_path / "cluster" / "records").iterdir())) == 38


def test_a_second_run_on_the_cluster_does_what_is_new(client: Client, tmp_path: Path) -> None:
    write_collection(tmp_path, 8)
    data = DataConfig({"d": str(tmp_path / "src")})
    for expected in (0, 7):
        summary = run_preprocessing(
            data,
            tmp_path / "out",
            config=CONFIG,
            execution=ExecutionConfig(workers=2),
            executor_factory=client.get_executor,
        )
        assert summary.n_skipped == expected and summary.by_status == {"ok": 8}
        (tmp_path / "out" / "records" / "d__r0.npz").unlink()


@pytest.mark.slow
def test_a_killed_worker_costs_its_chunks_only(client: Client, tmp_path: Path) -> None:
    results = run_chunks(
        partial(kill_once, str(tmp_path / "flag")),
        chunked(range(12), 2),
        partial(client.get_executor, pure=False),
        4,
    )
    assert sorted(item for chunk in results for item in chunk) == [2 * i for i in range(12)]
    assert (tmp_path / "flag").exists()


@pytest.mark.slow
def test_an_item_that_kills_every_worker_is_given_up(client: Client) -> None:
    results = run_chunks(
        kill_on_three,
        chunked(range(6), 2),
        partial(client.get_executor, pure=False),
        4,
        lost=lambda item: [-item],
    )
    assert sorted(item for chunk in results for item in chunk) == [-3, 0, 2, 4, 8, 10]
