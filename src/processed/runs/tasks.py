"""One record to process: its task, its tensor, its manifest row and its input hash."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from src.config import FALLBACK_LABEL, PreprocessConfig, config_hash
from src.labels.mapping import LabelRow
from src.labels.text_tables import join_list
from src.processed.manifest import ManifestRow
from src.processed.record_files import FORMAT_VERSION, record_key
from src.records.formats.wfdb_piece import iter_source_files
from src.records.record import NO_HINTS, ReadingHints, split_part
from src.utils import stable_hash, storable

WINDOW_COUNT = "x"
"""Separates a window's input hash, which is hexadecimal, from the number of windows of its record.
"""
_MAX_PATH = 5000  # characters


class RejectedError(ValueError):
    """A readable record that violates a limit of the settings; `flags` are its quality flags."""

    def __init__(self, reason: str, flags: Sequence[str] = ()) -> None:
        super().__init__(reason)
        self.flags = tuple(flags)


@dataclass(frozen=True)
class RecordTask:
    """A record to process.

    Attributes
    ----------
    dataset, record_id
        Names of the collection and of the record in it.
    path
        Its file or URL; ``file::id`` for one record of a file that holds many.
    row
        Its row of the label mapping, if it has one.
    hints
        Facts that its file may not state, such as the sampling rate.
    stamp
        Version stamp of a record at a URL; empty for a local file.
    copy
        Local copy of a record at a URL, while there is one.
    """

    dataset: str
    record_id: str
    path: str
    row: LabelRow | None = None
    hints: ReadingHints = NO_HINTS
    stamp: str = ""
    copy: str = ""

    @property
    def file(self) -> str:
        """The path to read the record from."""
        return self.copy or self.path

    @property
    def key(self) -> str:
        """The record key."""
        return record_key(self.dataset, self.record_id)


class RecordTensor(NamedTuple):
    """Arrays of a record file without its names and labels, quality flags and fingerprint."""

    arrays: dict[str, NDArray[Any]]
    flags: tuple[str, ...]
    fingerprint: str


def unreadable_row(blank: ManifestRow, reason: str) -> ManifestRow:
    """Return the manifest row of a record that could not be read; `blank` is its `blank_row`."""
    return blank._replace(status="unreadable", reason=reason)


def blank_row(task: RecordTask, config: PreprocessConfig) -> ManifestRow:
    """Return the manifest row of a task before its file is opened."""
    row = ManifestRow(
        dataset=task.dataset,
        record_id=task.record_id,
        source_path=storable(task.path, _MAX_PATH),
        labels=FALLBACK_LABEL,
        label_source="fallback",
        config_hash=config_hash(config, FORMAT_VERSION),
        input_hash=input_hash(task, config),
    )
    label = task.row
    if label is None:
        return row
    return row._replace(
        patient_id=label.patient_id,
        labels=join_list(label.labels),
        annotated=join_list(label.annotated),
        label_source="mapping",
        fold=label.fold if label.fold is not None else "",
        age=label.age if label.age is not None else "",
        sex=label.sex,
        weight=label.weight if label.weight != 1 else "",
    )


def input_hash(task: RecordTask, config: PreprocessConfig) -> str:
    """Return a hash of everything that decides a record file.

    That is the settings, the labels, and the source's path, size and modification time.
    """
    source = task.stamp or _stat_source(task.path)
    label = task.row
    label_parts = None
    if label is not None:
        label_parts = (
            label.labels,
            label.annotated,
            label.patient_id,
            label.fold,
            label.age,
            label.sex,
            label.weight,
        )
    return stable_hash(
        (
            config_hash(config, FORMAT_VERSION),
            task.path,
            source,
            task.hints.fs,
            task.hints.gain_per_mv,
            label_parts,
            # Only where there are any, so that other records need not be processed anew.
            *([task.hints.leads] if task.hints.leads else []),
            *([label.intervals] if label is not None and label.intervals else []),
        )
    )


def _stat_source(path: str) -> tuple[int, ...]:
    """Return size and modification time of each file that a record is read from.

    The result is empty if its own file does not exist.
    """
    file = split_part(path)[0] if path else ""
    try:
        status = os.stat(file)
    except OSError:
        return ()
    stats = [status.st_size, status.st_mtime_ns]
    # Of all formats, only WFDB has records of several files.
    if os.path.splitext(path)[1].lower() == ".hea" and stat.S_ISREG(status.st_mode):
        for name in iter_source_files(Path(path)):
            with suppress(OSError):
                status = os.stat(name)
                stats += [status.st_size, status.st_mtime_ns]
    return tuple(stats)
