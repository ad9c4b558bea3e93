"""Large inputs: flat memory, no descriptors lost, and seconds where a user waits. ``make soak``
runs them at full size.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from crash_runs import CONFIG, start
from test_crashes import memory_folder

from src.config import (
    Config,
    DataConfig,
    ExecutionConfig,
    LoaderConfig,
    ModelConfig,
    PreprocessConfig,
    TrainConfig,
)
from src.labels.mapping import LabelRow, iter_rows, load_mapping
from src.labels.matching import match_records
from src.learning.optimization import TrainState
from src.preprocessing import run_preprocessing
from src.processed.manifest import Journal, load_manifest
from src.processed.splits import SplitItem, make_splits
from src.records.folders import index_folder
from src.training import run_training

SOAK = bool(os.environ.get("ECG_SOAK"))
N_RECORDS = 100_000 if SOAK else 1500
N_ROWS = 1_000_000 if SOAK else 50_000
N_FILES = 200_000 if SOAK else 20_000
HOURS = 24.0 if SOAK else 0.25

tmp_path = pytest.fixture(memory_folder)
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="looks at memory through /proc"
)


def report(text: str) -> None:
    """Say a figure in ``make soak``, which captures no output."""
    if SOAK:
        sys.stderr.write(f"\n{text}\n")


def anonymous_mib() -> float:
    """Return what this process holds beyond mapped files, whose pages the system takes back when it
    needs them.
    """
    line = next(
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("RssAnon")
    )
    return int(line.split()[1]) / 1024


@needs_proc
def test_many_records_take_flat_memory_and_leak_no_descriptor(tmp_path: Path) -> None:
    """Links to one recording, a thousand in a folder: preprocessed, then trained on for two
    epochs.
    """
    samples = np.cumsum(np.random.default_rng(0).integers(-40, 41, (600, 2)), axis=0).astype("<i2")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "b.dat").write_bytes(samples.tobytes())
    (tmp_path / "base" / "b.hea").write_text(
        "b 2 100 600\nb.dat 16 1000/mV 16 0 0 0 0 II\nb.dat 16 1000/mV 16 0 0 0 0 V1\n"
    )
    for i in range(N_RECORDS):
        folder = tmp_path / "src" / str(i // 1000)
        if not i % 1000:
            folder.mkdir(parents=True)
            (folder / "b.dat").symlink_to(tmp_path / "base" / "b.dat")
        (folder / f"r{i:06d}.hea").symlink_to(tmp_path / "base" / "b.hea")
    labels = "".join(f"d,r{i:06d},{'AB'[i % 2]}\n" for i in range(N_RECORDS))
    (tmp_path / "m.csv").write_text("dataset,record_id,mapped_label\n" + labels)
    require_flat(preprocess_and_watch, tmp_path, "preprocessed", N_RECORDS)
    manifest = load_manifest(tmp_path / "out")
    assert len(manifest) == N_RECORDS and (manifest["status"] == "ok").all()
    require_flat(train_and_watch, tmp_path, "trained on", 2 * N_RECORDS)


def require_flat(run: Callable[[Path], None], root: Path, what: str, n_records: int) -> None:
    """Run in a process of its own, and require of what it noted that memory and descriptors stay
    once it is under way.
    """
    process = start(run, root)
    process.join()
    assert process.exitcode == 0
    watched = np.loadtxt(
        root / "watched.csv", delimiter=","
    )  # seconds, MiB, descriptors, one row each time
    settled = watched[len(watched) // 5 :]
    rate = n_records / (watched[-1, 0] - watched[0, 0])
    report(
        f"{n_records} records {what}, {rate:.0f}/s: memory {settled[0, 1]:.0f} to "
        f"{settled[-1, 1]:.0f} MiB, {int(settled[:, 2].max())} descriptors at most"
    )
    assert np.ptp(settled[:, 1]) < 16 and np.ptp(settled[:, 2]) <= 4


def watch_calls(owner: type, name: str) -> list[str]:
    """Have a method note what its process takes after each call; returns the list of notes."""
    method, lines = getattr(owner, name), []

    def watched(*args: object, **options: object) -> None:
        method(*args, **options)
        lines.append(f"{time.monotonic()},{anonymous_mib()},{len(os.listdir('/proc/self/fd'))}\n")

    setattr(owner, name, watched)
    return lines


def preprocess_and_watch(root: Path) -> None:
    """Preprocess with two workers, or in this process where there is little, and note what it takes
    after each chunk.
    """
    lines, execution = (
        watch_calls(Journal, "append"),
        ExecutionConfig(workers=2 if SOAK else 1, chunk_size=32),
    )
    run_preprocessing(
        DataConfig({"d": str(root / "src")}),
        root / "out",
        mapping=root / "m.csv",
        config=CONFIG,
        execution=execution,
    )
    (root / "watched.csv").write_text("".join(lines))


def train_and_watch(root: Path) -> None:
    """Train a small network, and note what it takes after each step."""
    lines = watch_calls(TrainState, "step")
    train = TrainConfig(epochs=2, crop_s=2.5, mixup=0.3, ema_decay=0.9, muon_lr=0.01, device="cpu")
    run_training(
        Config(loader=LoaderConfig(batch_size=32), model=ModelConfig(base_channels=4), train=train),
        root / "out",
        root / "run",
    )
    (root / "watched.csv").write_text("".join(lines))


@needs_proc
def test_a_long_record_is_cut_into_windows_in_bounded_memory(tmp_path: Path) -> None:
    """Twelve leads at 500 Hz; the whole would take over 2 GB in memory."""
    folder = tmp_path / "src"
    folder.mkdir()
    minute = (
        np.cumsum(np.random.default_rng(0).integers(-9, 10, (30_000, 12)), axis=0)
        .astype("<i2")
        .tobytes()
    )
    n_minutes = round(HOURS * 60)
    with open(folder / "r.dat", "wb") as stream:
        for _ in range(n_minutes):
            stream.write(minute)
    leads = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
    lines = [
        f"r 12 500 {30_000 * n_minutes}",
        *(f"r.dat 16 1000/mV 16 0 0 0 0 {lead}" for lead in leads),
    ]
    (folder / "r.hea").write_text("\n".join(lines) + "\n")
    process = start(cut_and_measure, tmp_path)
    process.join()
    assert process.exitcode == 0
    before, after, seconds = map(float, (tmp_path / "measured").read_text().split())
    manifest = load_manifest(tmp_path / "out")
    report(
        f"{HOURS:g} h of 12 leads at 500 Hz: {len(manifest)} windows in {seconds:.0f} s, "
        f"{after - before:.0f} MiB above the start"
    )
    assert len(manifest) == n_minutes * 6 and (manifest["status"] == "ok").all()
    assert after - before < 150


def cut_and_measure(root: Path) -> None:
    config = PreprocessConfig(fs=500.0, n_samples=5000, window_s=10.0)
    warm = root / "warm"  # the libraries are not what is measured
    warm.mkdir()
    (warm / "r.dat").write_bytes((root / "src" / "r.dat").open("rb").read(24 * 20_000))
    (warm / "r.hea").write_text(
        (root / "src" / "r.hea")
        .read_text()
        .replace((root / "src" / "r.hea").read_text().split("\n")[0], "r 12 500 20000")
    )
    run_preprocessing(
        DataConfig({"d": str(warm)}),
        root / "warm_out",
        config=config,
        execution=ExecutionConfig(workers=1),
    )
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, time.monotonic()
    run_preprocessing(
        DataConfig({"d": str(root / "src")}),
        root / "out",
        config=config,
        execution=ExecutionConfig(workers=1),
    )
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    (root / "measured").write_text(f"{before} {after} {time.monotonic() - began}")


def test_a_large_mapping_is_checked_in_seconds(tmp_path: Path) -> None:
    with open(tmp_path / "m.csv", "w", encoding="utf-8") as stream:
        stream.write("dataset,record_id,mapped_label,patient_id,fold,age,sex\n")
        stream.writelines(
            f"d,r{i:07d},{'ABC'[i % 3]};N,p{i // 2},{i % 10 + 1},{i % 90},{'FM'[i // 2 % 2]}\n"
            for i in range(N_ROWS)
        )
    began = time.process_time()
    frame = load_mapping(tmp_path / "m.csv")
    checked = time.process_time() - began
    assert sum(1 for _ in iter_rows(frame)) == N_ROWS
    report(f"mapping of {N_ROWS} rows: checked in {checked:.1f} s of processor time")
    assert checked < 2 + N_ROWS / 40_000


def test_a_large_folder_is_indexed_and_matched_in_seconds(tmp_path: Path) -> None:
    for i in range(N_FILES // 2):
        folder = tmp_path / str(i // 5000)
        if not i % 5000:
            folder.mkdir()
        (folder / f"r{i:06d}.hea").touch()
        (folder / f"r{i:06d}.dat").touch()
    began = time.process_time()
    found = index_folder(tmp_path)
    indexed = time.process_time() - began
    matches = match_records(
        [LabelRow("d", f"r{i:06d}", ("A",)) for i in range(N_FILES // 2)], found
    )
    matched = time.process_time() - began - indexed
    report(
        f"{N_FILES} files: indexed in {indexed:.1f} s, matched in {matched:.1f} s of processor time"
    )
    assert len(matches.records) == N_FILES // 2 and not matches.missing
    assert indexed + matched < 2 + N_FILES / 8_000


def test_many_copies_of_one_recording_are_placed_in_seconds() -> None:
    items = [SplitItem(f"d__{i}", ("A",), "d", recording="d__0") for i in range(20_000)]
    began = time.process_time()
    splits = make_splits(items, fractions={"train": 0.8, "val": 0.1, "test": 0.1})
    assert len(splits.train) == 20_000 and time.process_time() - began < 4


def test_a_run_with_nothing_left_to_do_is_quick(tmp_path: Path) -> None:
    folder = tmp_path / "src"
    folder.mkdir()
    for i in range(100):
        (folder / f"r{i}.dat").write_bytes(np.arange(1200, dtype="<i2").tobytes())
        (folder / f"r{i}.hea").write_text(
            f"r{i} 2 100 600\nr{i}.dat 16 1000/mV 16 0 0 0 0 II\nr{i}.dat 16 1000/mV 16 0 "
            "0 0 0 V1\n"
        )
    data, one = DataConfig({"d": str(folder)}), ExecutionConfig(workers=1)
    first = run_preprocessing(data, tmp_path / "out", config=CONFIG, execution=one)
    began = time.process_time()
    second = run_preprocessing(data, tmp_path / "out", config=CONFIG, execution=one)
    assert (first.n_skipped, second.n_skipped) == (0, 100) and time.process_time() - began < 2
