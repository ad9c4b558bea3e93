"""Runs in processes of their own that tests kill, and what must be true of the folders that they
leave.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np

from src.config import DataConfig, ExecutionConfig, PreprocessConfig
from src.preprocessing import run_preprocessing
from src.processed import files
from src.processed.manifest import load_manifest
from src.processed.record_files import load_record_file
from src.processed.runs.pool import start_worker
from src.processed.splits import load_splits

CONFIG = PreprocessConfig(fs=100.0, n_samples=500)
# A server that has everything loaded makes a process in some hundredths of a second.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["crash_runs", "src.training", "src.__main__", "pandas", "scipy.signal", "tqdm"]
)


def write_collection(root: Path, n_records: int, n_samples: int = 600) -> Path:
    """Write two-lead records of 100 Hz, some of them broken, and a mapping beside them."""
    rng = np.random.default_rng(0)
    (root / "src").mkdir(parents=True)
    for i in range(n_records):
        samples = np.cumsum(rng.integers(-40, 41, (n_samples, 2)), axis=0).astype("<i2")
        (root / "src" / f"r{i}.dat").write_bytes(samples.tobytes()[: 99 if i % 17 == 16 else None])
        lines = [
            f"r{i} 2 100 {n_samples}",
            *(f"r{i}.dat 16 1000/mV 16 0 0 0 0 {lead}" for lead in ("II", "V1")),
        ]
        (root / "src" / f"r{i}.hea").write_text("\n".join(lines) + "\n")
    rows = [f"d,r{i},{'ABC'[i % 3]},p{i // 2}" for i in range(n_records)]
    (root / "m.csv").write_text(
        "\n".join(["dataset,record_id,mapped_label,patient_id", *rows, "d,absent,A,"]) + "\n"
    )
    return root


def forked(workers: int) -> Executor:
    return ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("fork"), initializer=start_worker
    )


def preprocess(
    root: Path,
    out: Path,
    workers: int = 1,
    chunk_size: int = 4,
    config: PreprocessConfig = CONFIG,
    factory: Callable[[], Executor] | None = None,
) -> None:
    run_preprocessing(
        DataConfig({"d": str(root / "src")}),
        out,
        mapping=root / "m.csv",
        config=config,
        execution=ExecutionConfig(workers=workers, chunk_size=chunk_size),
        executor_factory=factory,
    )


def start(target: Callable[..., Any], *args: Any, **options: Any) -> BaseProcess:
    process = CONTEXT.Process(target=_quiet, args=(target, args, options))
    process.start()
    return process


def _quiet(target: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> None:
    os.setsid()
    sys.stderr = sys.stdout = io.StringIO()
    target(*args, **options)


def outputs(out: Path) -> dict[str, bytes]:
    """Return what a run leaves but for its logs, by name."""
    files = [path for path in out.rglob("*") if path.is_file() and "logs" not in path.parts]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def require_whole(out: Path) -> None:
    """Everything that is visible under a final name can be read, whenever the run ended."""
    for path in (out / "records").glob("[!.]*.npz"):
        assert load_record_file(path)["signal"].shape == (12, CONFIG.n_samples)
    manifest = load_manifest(out)
    for dataset, record_id in manifest.loc[
        manifest["status"] == "ok", ["dataset", "record_id"]
    ].to_numpy():
        assert (out / "records" / f"{dataset}__{record_id}.npz").exists()
    if (out / "splits.json").exists():
        load_splits(out / "splits.json")


def descendants(pid: int) -> set[int]:
    """Return the processes below one, from /proc."""
    below: dict[int, set[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text(encoding="latin-1").rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            below.setdefault(int(fields[1]), set()).add(int(entry.name))
    found, waiting = set(), {pid}
    while waiting:
        inner = below.get(waiting.pop(), set())
        found |= inner
        waiting |= inner
    return found


def wait_until(condition: Callable[[], Any], limit_s: float = 20.0) -> float:
    """Wait for something to become true; returns how long it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < limit_s, "it did not come"
        time.sleep(0.01)
    return time.monotonic() - began


def crash_after(n_operations: int, root: Path, out: Path, **options: Any) -> None:
    """Preprocess, and end without a word after that many operations that reach the disk."""
    left = [n_operations]

    def counted(operation: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **keywords: Any) -> Any:
            if left[0] == 0:
                os._exit(9)
            left[0] -= 1
            return operation(*args, **keywords)

        return run

    for name in ("fsync", "replace", "unlink", "mkdir"):
        setattr(os, name, counted(getattr(os, name)))
    files.sync_file_system = counted(files.sync_file_system)
    preprocess(root, out, **options)
