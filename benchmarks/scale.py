"""What bookkeeping costs as collections grow: ``python -m benchmarks.scale [--rows
1000,20000,100000,1000000]``.

No signals are needed: manifests are made up. Each step runs in a process of its own, which tells
its peak memory. Writes results_scale.json beside this file; docs/scaling.md explains it.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import resource
import secrets
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from src.processed.manifest import ManifestRow
from src.processed.runs.log import environment
from src.utils import save_json, setup_logging

logger = logging.getLogger("benchmarks")

Result = dict[str, Any]
FILES_AT_MOST = 200_000  # files are made for this many records at most: more says nothing new
CONTEXT = multiprocessing.get_context("forkserver")


def made_up_rows(n_rows: int) -> list[ManifestRow]:
    """Return manifest rows as real ones are: five labels, two records a patient, one in fifty a
    copy.
    """
    fingerprints = [
        f"1{''.join(secrets.choice('123456789abc') for _ in range(4))}{secrets.token_hex(32)}"
        for _ in range(n_rows)
    ]
    copied = fingerprints[1::50]
    fingerprints[: 50 * len(copied) : 50] = copied
    config_hash = secrets.token_hex(8)
    return [
        ManifestRow(
            "collection",
            f"rec{i:08d}",
            patient_id=f"p{i // 2}",
            source_path=f"/data/collection/g{i // 1000:05d}/rec{i:08d}.hea",
            fs="500.0",
            n_samples="5000",
            labels=("NORM", "MI;STTC", "CD", "HYP", "MI")[i % 5],
            label_source="mapping",
            status="ok",
            quality_flags="noise:V1" if i % 7 == 0 else "",
            signal_hash=fingerprints[i],
            age=str(20 + i % 70),
            sex="FM"[i // 2 % 2],
            config_hash=config_hash,
            input_hash=secrets.token_hex(8),
        )
        for i in range(n_rows)
    ]


# Steps: each takes the folder and the number of rows, and returns bytes on disk where it leaves som


def save_manifest_step(folder: Path, n_rows: int) -> int:
    """Make the manifest up and write it; making it up is not timed."""
    import pandas as pd

    from src.processed.manifest import MANIFEST_COLUMNS, save_manifest

    frame = pd.DataFrame(made_up_rows(n_rows), columns=list(MANIFEST_COLUMNS), dtype=str)
    _start_clock()
    save_manifest(frame, folder)
    return (folder / "manifest.csv").stat().st_size


def load_manifest_step(folder: Path, n_rows: int) -> int:
    """Read the manifest whole."""
    from src.processed.manifest import load_manifest

    _start_clock()
    assert len(load_manifest(folder)) == n_rows
    return 0


def journal_step(folder: Path, n_rows: int) -> int:
    """Append chunks of 64 rows to the journal, each brought to the disk, and read it back."""
    from src.processed.manifest import Journal

    journal = Journal(folder)
    rows = made_up_rows(min(n_rows, FILES_AT_MOST))
    _start_clock()
    for start in range(0, len(rows), 64):
        journal.append(rows[start : start + 64])
    assert len(journal.load()) == len(rows)
    size = journal.path.stat().st_size
    journal.remove()
    return size


def find_copies_step(folder: Path, n_rows: int) -> int:
    """Search the manifest for copies of recordings."""
    from src.processed.duplicates import find_duplicates
    from src.processed.manifest import load_manifest

    manifest = load_manifest(folder)
    _start_clock()
    find_duplicates(manifest)
    return 0


def split_step(folder: Path, n_rows: int) -> int:
    """Place all records in splits anew and write them down, in the manifest too."""
    from src.config import SplitConfig
    from src.processed.manifest import load_manifest, save_manifest
    from src.processed.record_files import record_keys
    from src.processed.splits import build_splits, save_splits

    manifest = load_manifest(folder)
    _start_clock()
    splits = build_splits(manifest, SplitConfig(), {})
    save_splits(splits, folder / "splits.json")
    _stop_clock()
    where = splits.of_key()
    manifest["split"] = [where[key] for key in record_keys(manifest)]
    save_manifest(manifest, folder)
    return (folder / "splits.json").stat().st_size


def load_splits_step(folder: Path, n_rows: int) -> int:
    """Read splits.json and look every record up, as a second run does."""
    from src.processed.splits import load_splits

    _start_clock()
    assert len(load_splits(folder / "splits.json").of_key()) == n_rows
    return 0


def load_records_step(folder: Path, n_rows: int) -> int:
    """Read what training needs of the manifest: keys, labels, patients, splits."""
    from src.processed.targets import load_records

    _start_clock()
    assert sum(map(len, load_records(folder).values())) == n_rows
    return 0


def pack_hash_step(folder: Path, n_rows: int) -> int:
    """Work out which packed cache belongs to the training split."""
    from src.processed.packed import pack_hash

    _start_clock()
    pack_hash(folder, "train")
    return 0


def match_step(folder: Path, n_rows: int) -> int:
    """Match label rows to the records found."""
    from src.labels.mapping import LabelRow
    from src.labels.matching import match_records
    from src.records.folders import FoundRecord

    found = [FoundRecord(f"g{i // 1000:05d}/rec{i:08d}.hea", f"rec{i:08d}") for i in range(n_rows)]
    rows = [LabelRow("collection", f"rec{i:08d}", ("NORM",)) for i in range(n_rows)]
    _start_clock()
    assert len(match_records(rows, found).records) == n_rows
    return 0


def index_step(folder: Path, n_rows: int) -> int:
    """List the folders of a collection, a thousand records in each."""
    from src.records.folders import index_folder

    n_files = min(n_rows, FILES_AT_MOST)
    for i in range(n_files):
        place = folder / "source" / f"g{i // 1000:05d}"
        if i % 1000 == 0:
            place.mkdir(parents=True)
        for suffix in ("hea", "dat"):
            os.close(os.open(place / f"rec{i:08d}.{suffix}", os.O_CREAT))
    _start_clock()
    assert len(index_folder(folder / "source")) == n_files
    return 0


def record_files_step(folder: Path, n_rows: int) -> int:
    """Make, rename and look up the names of record files where `src.store.record_path` puts them;
    their content is not what counts.
    """
    from src.processed.record_files import record_path

    paths = [
        record_path(folder / "made", f"collection__rec{i:08d}")
        for i in range(min(n_rows, FILES_AT_MOST))
    ]
    for parent in {path.parent for path in paths}:
        parent.mkdir(parents=True, exist_ok=True)
    _start_clock()
    for path in paths:
        temporary = path.with_suffix(".tmp")
        os.close(os.open(temporary, os.O_CREAT))
        temporary.replace(path)
    assert all(path.exists() for path in paths)
    return 0


STEPS: dict[str, Callable[[Path, int], int]] = {
    "save the manifest": save_manifest_step,
    "load the manifest": load_manifest_step,
    "find copies": find_copies_step,
    "make and save splits": split_step,
    "load splits": load_splits_step,
    "load the records to train on": load_records_step,
    "hash of the packed cache": pack_hash_step,
    "journal": journal_step,
    "match labels to files": match_step,
    "index the source": index_step,
    "names of record files": record_files_step,
}
_CAPPED = (journal_step, index_step, record_files_step)
_clock: dict[str, float] = {}


def _start_clock() -> None:
    _clock.update(start=time.perf_counter(), cpu_start=time.process_time())


def _stop_clock() -> None:
    _clock.setdefault("stop", time.perf_counter())
    _clock.setdefault("cpu_stop", time.process_time())


def _peak_mib() -> float:
    """Return the peak memory of this process; Linux counts in KiB, macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        2**20 if sys.platform == "darwin" else 2**10
    )


def _run(name: str, folder: Path, n_rows: int, queue: Any) -> None:
    import numpy  # noqa: F401  what every step loads is not what is measured
    import pandas  # noqa: F401

    n_bytes = STEPS[name](folder, n_rows)
    _stop_clock()
    seconds, cpu_seconds = (
        _clock["stop"] - _clock["start"],
        _clock["cpu_stop"] - _clock["cpu_start"],
    )
    queue.put(
        {
            "seconds": round(seconds, 4),
            "cpu_seconds": round(cpu_seconds, 4),
            "bytes": n_bytes,
            "peak_mib": round(_peak_mib(), 1),
        }
    )


def measure(n_rows: int, steps: Collection[str] = tuple(STEPS)) -> Result:
    """Return seconds, seconds of the processor, bytes and peak memory of each step at a number of
    rows.

    Peak memory includes about 70 MiB of the interpreter and its libraries.
    """
    results: Result = {}
    with TemporaryDirectory(prefix="ecg-") as folder:
        for name, step in STEPS.items():
            if name not in steps:
                continue
            queue = CONTEXT.SimpleQueue()
            process = CONTEXT.Process(target=_run, args=(name, Path(folder), n_rows, queue))
            process.start()
            process.join()
            if process.exitcode:
                raise RuntimeError(
                    f"{name} at {n_rows} rows ended with status {process.exitcode}: is "
                    "memory short?"
                )
            results[name] = {
                **queue.get(),
                "rows": min(n_rows, FILES_AT_MOST) if step in _CAPPED else n_rows,
            }
            logger.info(
                "%d rows, %s: %.2f s, of the processor %.2f s, %.0f MiB, %d bytes",
                n_rows,
                name,
                *(results[name][key] for key in ("seconds", "cpu_seconds", "peak_mib", "bytes")),
            )
    return results


def main() -> None:
    """Parse the options and measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument(
        "--rows",
        default="1000,20000,100000,1000000",
        help="numbers of records (default: %(default)s)",
    )
    parser.add_argument(
        "--steps",
        default=",".join(STEPS),
        help="some of them, in this order (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).with_name("results_scale.json"),
        help="default: benchmarks/results_scale.json",
    )
    args = parser.parse_args()
    setup_logging()
    sizes = [int(text) for text in args.rows.split(",")]
    results: Result = {"environment": environment(), "sizes": {}}
    for n_rows in sizes:
        results["sizes"][str(n_rows)] = measure(n_rows, args.steps.split(","))
        save_json(results, args.out)


if __name__ == "__main__":
    main()
