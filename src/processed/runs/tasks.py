"""One record to process: its task, its tensor, its manifest row and its input hash."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from src.config import FALLBACK_LABEL, PreprocessConfig, config_hash
from src.labels.mapping import LabelRow
from src.labels.text_tables import join_list
from src.processed.manifest import ManifestRow
from src.processed.record_files import FORMAT_VERSION, record_key
from src.records.formats.wfdb_header import named_files
from src.records.record import NO_HINTS, ReadingHints, split_part
from src.utils import printable, stable_hash

WINDOW_COUNT = "x"
"""Parts the input hash of a window, which is hexadecimal, from the number of its record's windows.
"""
_MAX_PATH = 5000  # characters


class RejectedError(ValueError):
    """A readable record that a limit of the configuration keeps out, with its flags where they are
    known.
    """

    def __init__(self, reason: str, flags: Sequence[str] = ()) -> None:
        super().__init__(reason)
        self.flags = tuple(flags)


@dataclass(frozen=True)
class RecordTask:
    """A record to process: where it is, what its labels are and what its file does not say.

    The path of one of the records of a file of many is ``file::id``. A record behind a URL has a
    stamp, which changes when it does, and is read from a local copy.
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
        """Where it is read."""
        return self.copy or self.path

    @property
    def key(self) -> str:
        """The record key."""
        return record_key(self.dataset, self.record_id)


class Tensor(NamedTuple):
    """What a record becomes: the arrays of its record file but for its names, remarks, and what
    tells it from others.
    """

    arrays: dict[str, Any]
    flags: tuple[str, ...]
    fingerprint: str


def unreadable_row(blank: ManifestRow, reason: str) -> ManifestRow:
    """Return the row of a record that could not be read, from what `blank_row` gave for it."""
    return blank._replace(status="unreadable", reason=reason)


def blank_row(task: RecordTask, config: PreprocessConfig) -> ManifestRow:
    """Return the manifest row of a task before its file is opened."""
    label = task.row
    given = label is not None
    return ManifestRow(
        dataset=task.dataset,
        record_id=task.record_id,
        patient_id=label.patient_id if label else "",
        source_path=printable(task.path, _MAX_PATH),
        labels=join_list(label.labels) if label else FALLBACK_LABEL,
        annotated=join_list(label.annotated) if label else "",
        label_source="mapping" if given else "fallback",
        fold=label.fold if label and label.fold is not None else "",
        age=label.age if label and label.age is not None else "",
        sex=label.sex if label else "",
        weight=label.weight if label and label.weight != 1 else "",
        config_hash=config_hash(config, FORMAT_VERSION),
        input_hash=input_hash(task, config),
    )


def input_hash(task: RecordTask, config: PreprocessConfig) -> str:
    """Return the hash of everything a record file depends on: settings, labels, and the source's
    size and time.
    """
    source = task.stamp or _source_stat(task.path)
    label = task.row
    parts = (
        config_hash(config, FORMAT_VERSION),
        task.path,
        source,
        task.hints.fs,
        task.hints.gain_per_mv,
        (
            label.labels,
            label.annotated,
            label.patient_id,
            label.fold,
            label.age,
            label.sex,
            label.weight,
        )
        if label
        else None,
    )
    return stable_hash(parts)


def _source_stat(path: str) -> tuple[int, ...]:
    """Return size and time of a record's files, nothing where there are none."""
    try:
        status = os.stat(split_part(path)[0] if path else "")
    except OSError:
        return ()
    return status.st_size, status.st_mtime_ns, *_samples_stat(path)


def _samples_stat(path: str) -> tuple[int, ...]:
    """Return size and time of the sample file that commonly stands beside a header."""
    stem, suffix = os.path.splitext(path)
    if suffix.lower() != ".hea":
        return ()
    for other in (".dat", ".mat"):
        try:
            status = os.stat(stem + other)
        except OSError:
            continue
        return status.st_size, status.st_mtime_ns
    return _named_stat(Path(path))


def _named_stat(header: Path) -> tuple[int, ...]:
    """Return sizes and times of the files that a header without samples of its own name stands for:
    segments, and their samples.
    """
    found: list[int] = []
    with suppress(OSError):
        for named in named_files(header):
            inner = named_files(header.with_name(named)) if named.endswith(".hea") else ()
            for name in (named, *inner):
                with suppress(OSError, ValueError):
                    status = os.stat(header.with_name(name))
                    found += [status.st_size, status.st_mtime_ns]
    return tuple(found)
