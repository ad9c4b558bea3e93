"""Records to record files, several at a time: standard leads, rate and length, z-scored, with the
row that says what became of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np

from src.config import STANDARD_LEADS, PreprocessConfig
from src.labels.text_tables import join_list, split_list
from src.processed.files import FileBatch
from src.processed.manifest import ManifestRow
from src.processed.record_files import record_key, record_path, record_paths, save_record_files
from src.processed.runs.pool import chunked
from src.processed.runs.tasks import (
    WINDOW_COUNT,
    RecordTask,
    RejectedError,
    Tensor,
    blank_row,
    unreadable_row,
)
from src.records.reading import RecordStart, find_start, iter_with_hints
from src.records.record import ECGRecord, RecordError
from src.records.windows import window_name

P = ParamSpec("P")
R = TypeVar("R")
TensorBuilder = Callable[[Sequence[ECGRecord], PreprocessConfig], list[Tensor | RejectedError]]
"""Makes the tensor of each record, or gives the reason why it is rejected."""

_FLUSHED_FILES = 32  # are brought to the disk at a time, while the next are made
_VALUES_TOGETHER = 4_000_000  # of the records that go through a step together
_FILTER_MARGIN_S = (
    30.0  # read beyond what a tensor holds, far more than the resampling filter reaches
)


def find_task(task: RecordTask, config: PreprocessConfig) -> RecordStart:
    """Look up what of a record its tensor depends on."""
    seconds = (
        max(config.n_samples / config.fs, config.min_duration_s) + _FILTER_MARGIN_S
    )  # a record cut shorter would look too short
    return find_start(task.file, seconds, task.hints)


def _process_starts(
    tasks: Sequence[RecordTask],
    processed: Path,
    config: PreprocessConfig,
    build: TensorBuilder,
    batch: FileBatch,
) -> list[ManifestRow]:
    """Process records step by step together: each step's code then stays in the processor's caches,
    which saves a tenth of the time.
    """
    blanks = [blank_row(task, config) for task in tasks]
    found = [_or_error(find_task, task, config) for task in tasks]
    starts = [start if isinstance(start, RecordError) else _or_error(start.read) for start in found]
    tensors = iter(
        build([start[0] for start in starts if not isinstance(start, RecordError)], config)
    )
    made: list[tuple[ManifestRow, Tensor | RejectedError | None]] = []
    for blank, start in zip(blanks, starts, strict=True):
        if isinstance(start, RecordError):
            made.append((unreadable_row(blank, start.message), None))
            continue
        record, n_samples = start
        tensor = next(tensors)
        made.append((_describe(record, tensor, blank, n_samples), tensor))
    paths = record_paths(processed, [record_key(row.dataset, row.record_id) for row, _ in made])
    save_record_files(
        [
            (path, _all_arrays(result, row))
            for path, (row, result) in zip(paths, made, strict=True)
            if isinstance(result, Tensor)
        ],
        batch,
    )
    return [row for row, _ in made]


def _or_error(step: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R | RecordError:
    """Return what a step gives, or the error of a record that cannot be read."""
    try:
        return step(*args, **kwargs)
    except RecordError as error:
        return error


def _process_windows(
    task: RecordTask,
    processed: Path,
    config: PreprocessConfig,
    build: TensorBuilder,
    batch: FileBatch,
) -> list[ManifestRow]:
    """Process the windows of a record one by one; they belong together in the splits as one
    patient's records do.

    The input hash of each ends in their number, which tells a later run whether all of them are
    there.
    """
    blank = blank_row(task, config)
    start = len(batch)
    patient_id = blank.patient_id or task.record_id
    rows = []
    try:
        for index, window in enumerate(_iter_windows(task, config)):
            row = blank._replace(
                record_id=window_name(task.record_id, index), patient_id=patient_id
            )
            tensor = build([window], config)[0]
            row = _describe(window, tensor, row, window.n_samples)
            if isinstance(tensor, Tensor):
                path = record_path(processed, record_key(row.dataset, row.record_id))
                save_record_files([(path, _all_arrays(tensor, row))], batch)
            rows.append(row)
    except RecordError as error:
        batch.discard(start)
        return [unreadable_row(blank, error.message)]
    return [row._replace(input_hash=f"{row.input_hash}{WINDOW_COUNT}{len(rows)}") for row in rows]


def _iter_windows(task: RecordTask, config: PreprocessConfig) -> Iterator[ECGRecord]:
    return iter_with_hints(
        task.file, task.hints, window_s=config.window_s, stride_s=config.stride_s or None
    )


def _describe(
    record: ECGRecord, tensor: Tensor | RejectedError, row: ManifestRow, n_samples: int
) -> ManifestRow:
    """Return the row with what the record says of itself, `n_samples` long as a whole, and with
    what became of it.
    """
    facts: dict[str, Any] = {"n_samples": n_samples, "fs": record.fs}
    if row.age == "" and record.age is not None:
        facts["age"] = record.age
    if not row.sex and record.sex:
        facts["sex"] = record.sex
    if isinstance(tensor, RejectedError):
        return row._replace(
            **facts,
            status="rejected",
            reason=str(tensor),
            quality_flags=join_list(tensor.flags or record.flags),
        )
    return row._replace(
        **facts, status="ok", quality_flags=join_list(tensor.flags), signal_hash=tensor.fingerprint
    )


def _all_arrays(tensor: Tensor, row: ManifestRow) -> dict[str, Any]:
    """Return the arrays of the record file of `row`."""
    return {
        **tensor.arrays,
        "label": np.array(split_list(row.labels), dtype=np.str_),
        "annotated": np.array(split_list(row.annotated), dtype=np.str_),
        "record_id": np.array(row.record_id),
        "dataset": np.array(row.dataset),
        "config_hash": np.array(row.config_hash),
    }


def process_chunk(
    tasks: Sequence[RecordTask],
    processed: Path,
    *,
    config: PreprocessConfig,
    build: TensorBuilder,
    on_error: str,
) -> list[ManifestRow]:
    """Process several records in a worker; with `on_error` raise, stop at the first bad one, after
    those that are read with it.

    When it returns, the record files that the rows speak of are on the disk under their names.
    """
    n_samples = max(config.n_samples, round(config.min_duration_s * config.fs))
    together = max(1, min(_FLUSHED_FILES, _VALUES_TOGETHER // (len(STANDARD_LEADS) * n_samples)))
    rows: list[ManifestRow] = []
    with FileBatch() as batch:
        for group in chunked(tasks, 1 if config.window_s else together):
            made = (
                _process_windows(group[0], processed, config, build, batch)
                if config.window_s
                else _process_starts(group, processed, config, build, batch)
            )
            bad = next((row for row in made if row.status != "ok"), None)
            if on_error == "raise" and bad is not None:
                raise RecordError(bad.source_path, bad.reason)
            rows += made
            if len(batch) >= _FLUSHED_FILES:
                batch.flush()
        batch.commit()
    return rows
