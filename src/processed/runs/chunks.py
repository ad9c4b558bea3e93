"""A chunk of records to record files and manifest rows, as a worker processes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ParamSpec, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray

from src.config import FALLBACK_LABEL, STANDARD_LEADS, PreprocessConfig
from src.labels.intervals import TimedLabels, WindowLabels, WindowRule, find_beyond
from src.labels.mapping import LabelRow
from src.labels.text_tables import join_list, split_list
from src.processed.files import FileBatch
from src.processed.manifest import ManifestRow
from src.processed.record_files import (
    RR_SIDE,
    record_key,
    record_path,
    record_paths,
    save_record_files,
)
from src.processed.runs.beats import BeatWindows
from src.processed.runs.pool import chunked
from src.processed.runs.tasks import (
    WINDOW_COUNT,
    RecordTask,
    RecordTensor,
    RejectedError,
    blank_row,
    unreadable_row,
)
from src.records.reading import RecordStart, find_start, iter_cuts, iter_with_hints
from src.records.record import ECGRecord, RecordError
from src.records.windows import window_name

P = ParamSpec("P")
R = TypeVar("R")
TensorBuilder = Callable[
    [Sequence[ECGRecord], PreprocessConfig], list[RecordTensor | RejectedError]
]
"""Builds the tensor of each record, or gives its rejection."""

# Files written before they are synced to the disk together, while the next ones are made.
_FLUSHED_FILES = 32
# Values (leads x samples) of the records that go through a step together.
_VALUES_TOGETHER = 4_000_000
_NO_BEATS = "no row of the table of beats is of it: expected a row with the time of each beat"
# Seconds read beyond what a tensor holds, far more than the resampling filter reaches.
_FILTER_MARGIN_S = 30.0


def process_chunk(
    tasks: Sequence[RecordTask],
    processed: Path,
    *,
    config: PreprocessConfig,
    build: TensorBuilder,
    on_error: str,
) -> list[ManifestRow]:
    """Process several records in a worker and return their manifest rows.

    When it returns, the record files of these rows are on the disk under their final names.

    Parameters
    ----------
    tasks
        The records.
    processed
        Folder below which the record files are written.
    config
        Settings.
    build
        Builds the tensors.
    on_error
        ``raise`` stops at the first bad record, after those that are processed together with it;
        ``skip`` gives it a row.

    Raises
    ------
    RecordError
        At a bad record with `on_error` ``raise``.
    OSError
        If a record file cannot be written.
    """
    n_samples = max(config.n_samples, round(config.min_duration_s * config.fs))
    together = max(1, min(_FLUSHED_FILES, _VALUES_TOGETHER // (len(STANDARD_LEADS) * n_samples)))
    group_size = 1 if config.cuts_windows else together
    rows: list[ManifestRow] = []
    with FileBatch() as batch:
        for group in chunked(tasks, group_size):
            if config.cuts_beats:
                group_rows = _process_beats(group[0], processed, config, build, batch)
            elif config.window_s:
                group_rows = _process_windows(group[0], processed, config, build, batch)
            else:
                group_rows = _process_together(group, processed, config, build, batch)
            if on_error == "raise":
                _raise_first_failure(group_rows)
            rows += group_rows
            if len(batch) >= _FLUSHED_FILES:
                batch.flush()
        batch.commit()
    return rows


def _raise_first_failure(rows: Sequence[ManifestRow]) -> None:
    for row in rows:
        if row.status != "ok":
            raise RecordError(row.source_path, row.reason)


# Whole records ------------------------------------------------------------------------------------


def _process_together(
    tasks: Sequence[RecordTask],
    processed: Path,
    config: PreprocessConfig,
    build: TensorBuilder,
    batch: FileBatch,
) -> list[ManifestRow]:
    """Process records together, one step for all of them before the next.

    Each step's code then stays in the processor's caches, which saves a tenth of the time.
    """
    blanks = [blank_row(task, config) for task in tasks]
    starts = [_or_error(find_record_start, task, config) for task in tasks]
    # Each item is (record, samples of the whole recording), or the error.
    loaded = [
        start if isinstance(start, RecordError) else _or_error(start.read) for start in starts
    ]
    readable = [item[0] for item in loaded if not isinstance(item, RecordError)]
    tensors = iter(build(readable, config))

    rows: list[ManifestRow] = []
    built: list[tuple[ManifestRow, RecordTensor]] = []
    for task, blank, item in zip(tasks, blanks, loaded, strict=True):
        if isinstance(item, RecordError):
            rows.append(unreadable_row(blank, item.message))
            continue
        record, n_samples = item
        tensor = next(tensors)
        if task.row is not None and task.row.intervals:
            # A record that is not cut into windows is one window: what its tensor holds.
            stop = min(n_samples, round(config.n_samples / config.fs * record.fs))
            labeller = WindowLabeller(task.row, config)
            try:
                blank = with_labels(blank, labeller.label(record.fs, n_samples, 0, stop))
            except RejectedError as error:
                rows.append(blank._replace(status="rejected", reason=str(error)))
                continue
        row = _complete_row(blank, record, n_samples, tensor)
        rows.append(row)
        if isinstance(tensor, RecordTensor):
            built.append((row, tensor))

    paths = record_paths(processed, [record_key(row.dataset, row.record_id) for row, _ in built])
    files = [
        (path, _record_arrays(tensor, row))
        for path, (row, tensor) in zip(paths, built, strict=True)
    ]
    save_record_files(files, batch)
    return rows


def find_record_start(task: RecordTask, config: PreprocessConfig) -> RecordStart:
    """Locate the part of a record that its tensor needs."""
    # A record cut shorter than the shortest allowed one would look too short.
    seconds = max(config.n_samples / config.fs, config.min_duration_s) + _FILTER_MARGIN_S
    return find_start(task.file, seconds, task.hints)


def _or_error(step: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R | RecordError:
    """Return the result of a step, or the error of a record that cannot be read."""
    try:
        return step(*args, **kwargs)
    except RecordError as error:
        return error


# Windows of a record ------------------------------------------------------------------------------


def _process_windows(
    task: RecordTask,
    processed: Path,
    config: PreprocessConfig,
    build: TensorBuilder,
    batch: FileBatch,
) -> list[ManifestRow]:
    """Process the windows of a record one by one.

    A record without a patient is its own patient, so that its windows share a split. The input hash
    of each window ends in their number, so that a later run can tell whether all of them are there.
    """
    blank = blank_row(task, config)
    n_files_before = len(batch)
    patient_id = blank.patient_id or task.record_id
    has_times = task.row is not None and task.row.intervals
    labeller = WindowLabeller(task.row, config) if task.row and has_times else None
    rows = []
    try:
        for index, window in enumerate(_iter_windows(task, config)):
            name = window_name(task.record_id, index)
            row = blank._replace(record_id=name, patient_id=patient_id)
            if labeller is not None:
                first, stop = window.first_sample, window.first_sample + window.n_samples
                labels = labeller.label(window.fs, window.n_whole, first, stop)
                row = with_labels(row, labels)
            tensor = build([window], config)[0]
            row = _complete_row(row, window, window.n_samples, tensor)
            if isinstance(tensor, RecordTensor):
                path = record_path(processed, record_key(row.dataset, row.record_id))
                save_record_files([(path, _record_arrays(tensor, row))], batch)
            rows.append(row)
    except RecordError as error:
        # A record that cannot be read to its end has no windows at all.
        batch.discard(n_files_before)
        return [unreadable_row(blank, error.message)]
    except RejectedError as error:
        return [blank._replace(status="rejected", reason=str(error))]
    return _count_rows(rows)


def _count_rows(rows: Sequence[ManifestRow]) -> list[ManifestRow]:
    """Return the rows of the windows of a record, with their number in the input hash of each."""
    return [row._replace(input_hash=f"{row.input_hash}{WINDOW_COUNT}{len(rows)}") for row in rows]


def _iter_windows(task: RecordTask, config: PreprocessConfig) -> Iterator[ECGRecord]:
    return iter_with_hints(
        task.file, task.hints, window_s=config.window_s, stride_s=config.stride_s or None
    )


# Windows around beats -----------------------------------------------------------------------------


def _process_beats(
    task: RecordTask,
    processed: Path,
    config: PreprocessConfig,
    build: TensorBuilder,
    batch: FileBatch,
) -> list[ManifestRow]:
    """Process the window around each beat of a record, some dozens together.

    A beat whose window leaves the record is rejected. Patients and input hashes are as for windows
    of one length; the fingerprint is that of the record.
    """
    blank = blank_row(task, config)
    blank = blank._replace(patient_id=blank.patient_id or task.record_id)
    beats = BeatWindows(task.row.intervals if task.row else (), config)
    if not beats.beats:
        return [blank._replace(status="rejected", reason=_NO_BEATS)]
    outside = beats.explain_outside()
    rows = [
        _beat_row(blank, beats, number)._replace(status="rejected", reason=outside)
        for number in range(len(beats.beats))
    ]
    n_files_before = len(batch)
    try:
        fingerprint = _fingerprint_start(task, config, build)
        windows = enumerate(iter_cuts(task.file, task.hints, beats.place))
        for group in chunked(windows, _FLUSHED_FILES):
            files = []
            tensors = build([window for _, window in group], config)
            for (place, window), tensor in zip(group, tensors, strict=True):
                number = beats.inside[place]
                row = _beat_row(blank, beats, number)
                rows[number] = row = _complete_row(row, window, window.n_samples, tensor)
                if isinstance(tensor, RecordTensor):
                    rows[number] = row = row._replace(signal_hash=fingerprint)
                    path = record_path(processed, record_key(row.dataset, row.record_id))
                    files.append((path, _record_arrays(tensor, row) | {"rr_s": beats.rr[number]}))
            save_record_files(files, batch)
    except RecordError as error:
        batch.discard(n_files_before)
        return [unreadable_row(blank, error.message)]
    except RejectedError as error:
        return [blank._replace(status="rejected", reason=str(error))]
    return _count_rows(rows)


def _fingerprint_start(task: RecordTask, config: PreprocessConfig, build: TensorBuilder) -> str:
    """Return the fingerprint of the beginning of a record, "" if it has none."""
    config = replace(config, before_s=0.0, after_s=0.0)
    record, _ = find_record_start(task, config).read()
    tensor = build([record], config)[0]
    return tensor.fingerprint if isinstance(tensor, RecordTensor) else ""


def _beat_row(blank: ManifestRow, beats: BeatWindows, number: int) -> ManifestRow:
    """Return the manifest row of a beat before its window is read."""
    beat, rr = beats.beats[number], beats.rr[number]
    before, after = (f"{seconds:g}" if seconds else "" for seconds in rr[RR_SIDE - 1 : RR_SIDE + 1])
    return blank._replace(
        record_id=window_name(blank.record_id, number),
        labels=join_list(beat.labels),
        annotated=join_list(beat.annotated),
        beat_s=f"{beat.start_s:.6f}".rstrip("0").rstrip("."),
        rr_before_s=before,
        rr_after_s=after,
    )


# Labels with a time -------------------------------------------------------------------------------


class WindowLabeller:
    """Gives the windows of one record the labels of the intervals in them."""

    def __init__(self, row: LabelRow, config: PreprocessConfig) -> None:
        self.intervals = row.intervals
        self.rule = WindowRule.parse(config.window_labels, config.min_cover)
        self._timed: TimedLabels | None = None

    def label(self, fs: float, n_samples: int, start: int, stop: int) -> WindowLabels:
        """Return the labels of a window.

        Parameters
        ----------
        fs, n_samples
            Rate in Hz and length in samples of the record.
        start, stop
            First sample of the window, and the one after its last.

        Raises
        ------
        RejectedError
            If an interval lies beyond the record's end.
        """
        if self._timed is None:
            if beyond := find_beyond(self.intervals, n_samples / fs):
                raise RejectedError(
                    f"the label {beyond} of the label mapping lies beyond the record's end at "
                    f"{n_samples / fs:g} s: expected seconds from its beginning"
                )
            self._timed = TimedLabels(self.intervals, fs)
        return self._timed.label_window(start, stop, self.rule)


def with_labels(row: ManifestRow, found: WindowLabels) -> ManifestRow:
    """Return the manifest row of a window with its labels, or with none if it is not annotated."""
    row = row._replace(label_cover=join_list(found.cover))
    if not found.is_annotated:
        return row._replace(labels=FALLBACK_LABEL, annotated="", label_source="fallback")
    return row._replace(labels=join_list(found.labels), annotated=join_list(found.annotated))


# Rows and arrays ----------------------------------------------------------------------------------


class _RecordFacts(TypedDict, total=False):
    """Columns of the manifest that a record file fills in."""

    n_samples: int
    fs: float
    age: float
    sex: str


def _complete_row(
    blank: ManifestRow, record: ECGRecord, n_samples: int, tensor: RecordTensor | RejectedError
) -> ManifestRow:
    """Return the manifest row with the facts of a record, `n_samples` long, and its outcome.

    Age and sex of the mapping take precedence over those of the record.
    """
    facts: _RecordFacts = {"n_samples": n_samples, "fs": record.fs}
    if blank.age == "" and record.age is not None:
        facts["age"] = record.age
    if not blank.sex and record.sex:
        facts["sex"] = record.sex
    if isinstance(tensor, RejectedError):
        return blank._replace(
            **facts,
            status="rejected",
            reason=str(tensor),
            quality_flags=join_list(tensor.flags or record.flags),
        )
    return blank._replace(
        **facts, status="ok", quality_flags=join_list(tensor.flags), signal_hash=tensor.fingerprint
    )


def _record_arrays(tensor: RecordTensor, row: ManifestRow) -> dict[str, NDArray[Any]]:
    """Return all arrays of the record file of `row`."""
    return {
        **tensor.arrays,
        "label": np.array(split_list(row.labels), dtype=np.str_),
        "annotated": np.array(split_list(row.annotated), dtype=np.str_),
        "record_id": np.array(row.record_id),
        "dataset": np.array(row.dataset),
        "config_hash": np.array(row.config_hash),
    }
