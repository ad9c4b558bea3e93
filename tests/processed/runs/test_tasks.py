from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from src.config import PreprocessConfig
from src.processed.runs.tasks import RecordTask, blank_row, input_hash, unreadable_row
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


def test_a_missing_file_has_a_hash_too(tmp_path: Path) -> None:
    assert len(input_hash(RecordTask("d", "r", str(tmp_path / "none.hea")), CONFIG)) == 16


def test_a_task_is_read_from_its_copy() -> None:
    task = RecordTask("d", "r", "s3://bucket/r.hea", stamp="v1")
    assert task.file == "s3://bucket/r.hea"
    assert replace(task, copy="/tmp/r.hea").file == "/tmp/r.hea"
