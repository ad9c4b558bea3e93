from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from src.config import PreprocessConfig
from src.processed.runs.tasks import RecordTask, blank_row, input_hash, unreadable_row
from src.records.formats.wfdb_piece import iter_source_files
from src.records.record import ReadingHints

CONFIG = PreprocessConfig()


@pytest.fixture
def task(tmp_path: Path) -> RecordTask:
    """A header with a sample file of another name beside it."""
    (tmp_path / "r.hea").write_text("r 1 500 5000\nsamples.bin 16 200 16 0 0 0 0 II\n")
    (tmp_path / "samples.bin").write_bytes(b"\0" * 10)
    return RecordTask("d", "r", str(tmp_path / "r.hea"))


def test_a_record_without_a_label_gets_the_fallback(task: RecordTask) -> None:
    row = blank_row(task, CONFIG)
    assert (row.labels, row.label_source, row.annotated) == ("OTHER", "fallback", "")
    assert (row.dataset, row.record_id, row.source_path) == ("d", "r", task.path)
    failed = unreadable_row(row, "cut short")
    assert (failed.status, failed.reason) == ("unreadable", "cut short")


def test_the_input_hash_depends_on_settings_task_and_files(task: RecordTask) -> None:
    first = input_hash(task, CONFIG)
    assert input_hash(task, CONFIG) == first
    assert input_hash(task, replace(CONFIG, fs=100.0)) != first
    assert input_hash(replace(task, hints=ReadingHints(fs=500.0)), CONFIG) != first
    os.utime(Path(task.path).with_name("samples.bin"), (0, 0))
    assert input_hash(task, CONFIG) != first


def _write_header(folder: Path, *files: str) -> RecordTask:
    lines = "".join(f"{name} 16 200 16 0 0 0 0 V{i}\n" for i, name in enumerate(files, 1))
    (folder / "r.hea").write_text(f"r {len(files)} 500 5000\n{lines}")
    return RecordTask("d", "r", str(folder / "r.hea"))


@pytest.mark.parametrize(
    ("named", "on_disk"),
    [
        (["r.dat", "r_b.dat"], ["r.dat", "r_b.dat"]),
        (["r.dat"], ["R.DAT"]),
        (["other.dat"], ["other.dat", "r.mat"]),
        (["r.mat"], ["r.mat", "r.dat"]),
    ],
)
def test_each_file_of_a_record_counts_and_no_other(
    tmp_path: Path, named: list[str], on_disk: list[str]
) -> None:
    """The last files of the third and fourth case belong to no signal of the header."""
    task = _write_header(tmp_path, *named)
    for name in on_disk:
        (tmp_path / name).write_bytes(b"\0" * 10)
    first = input_hash(task, CONFIG)
    for name in on_disk[: len(named)]:
        os.utime(tmp_path / name, (0, 0))
        assert input_hash(task, CONFIG) != first
        first = input_hash(task, CONFIG)
    for name in on_disk[len(named) :]:
        os.utime(tmp_path / name, (0, 0))
        assert input_hash(task, CONFIG) == first


def test_the_headers_and_samples_of_segments_count(tmp_path: Path) -> None:
    (tmp_path / "r.hea").write_text("r/2 1 500 200\ns1 100\ns2 100\n")
    for name in ("s1", "s2"):
        header = f"{name} 1 500 100\n{name}.dat 16 200 16 0 0 0 0 II\n"
        (tmp_path / f"{name}.hea").write_text(header)
        (tmp_path / f"{name}.dat").write_bytes(b"\0" * 200)
    task = RecordTask("d", "r", str(tmp_path / "r.hea"))
    seen = {input_hash(task, CONFIG)}
    for name in ("s1.hea", "s2.hea", "s1.dat", "s2.dat"):
        os.utime(tmp_path / name, (0, 0))
        seen.add(input_hash(task, CONFIG))
    assert len(seen) == 5


def test_the_usual_header_is_scanned_with_the_result_of_parsing_it(tmp_path: Path) -> None:
    task = _write_header(tmp_path, "r.dat", "r.dat")
    (tmp_path / "r.dat").write_bytes(b"\0" * 10)
    path = Path(task.path)
    assert list(iter_source_files(path)) == [str(tmp_path / "r.dat")]
    # Line ends of old systems hide a second file from a scan by lines.
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r").replace(b"\rr.dat", b"\rb.dat", 1))
    (tmp_path / "b.dat").write_bytes(b"\0" * 10)
    assert list(iter_source_files(path)) == [str(tmp_path / name) for name in ("b.dat", "r.dat")]


def test_a_missing_file_has_a_hash_too(tmp_path: Path) -> None:
    assert len(input_hash(RecordTask("d", "r", str(tmp_path / "none.hea")), CONFIG)) == 16


def test_a_task_is_read_from_its_copy() -> None:
    task = RecordTask("d", "r", "s3://bucket/r.hea", stamp="v1")
    assert task.file == "s3://bucket/r.hea"
    assert replace(task, copy="/tmp/r.hea").file == "/tmp/r.hea"
