"""Records to record files, several at a time: standard leads, rate and length, z-scored, with the
row that says what became of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from src.config import FALLBACK_LABEL, PreprocessConfig, config_hash
from src.durable import FileBatch
from src.fingerprints import compute_fingerprints
from src.formats.base import split_part
from src.formats.wfdb_header import named_files
from src.labels import LabelRow
from src.leads import STANDARD_LEADS
from src.pool import chunked
from src.quality import find_rejection, measure_quality, quality_flags
from src.records import ECGRecord, RecordError, RecordStart, find_start, iter_records, window_name
from src.signals import (
    OrderedLeads,
    Signal,
    fill_gaps,
    fit_length,
    order_leads,
    rate_ratio,
    resample,
    source_samples_needed,
    standardize,
)
from src.store import (
    FORMAT_VERSION,
    ManifestRow,
    join_list,
    record_key,
    record_path,
    record_paths,
    save_record_files,
    split_list,
)
from src.utils import printable, stable_hash

P = ParamSpec("P")
R = TypeVar("R")

WINDOW_COUNT = "x"
"""Parts the input hash of a window, which is hexadecimal, from the number of its record's windows.
"""

_MAX_PATH = 5000  # characters
_FLUSHED_FILES = 32  # are brought to the disk at a time, while the next are made
_VALUES_TOGETHER = 4_000_000  # of the records that go through a step together
_MAX_RATE_ERROR = 1e-3  # of the rate that comes out; only sources far above the target pass it
_FILTER_MARGIN_S = (
    30.0  # read beyond what a tensor holds, far more than the resampling filter reaches
)


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
    source_fs: float | None = None
    source_gain_per_mv: float | None = None
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


def build_tensor(record: ECGRecord, config: PreprocessConfig) -> Tensor:
    """Turn a record into the standard leads, rate and length.

    Returns
    -------
    Tensor
        `arrays` holds signal (12, n_samples) z-scored, lead_mean and lead_std in mV, lead_present,
        n_valid and fs.

    Raises
    ------
    RejectedError
        If no lead is known, the record is too short or its rate is far above the target, a gap of
        missing samples is too long, or a quality flag rejects it.
    """
    tensor = build_tensors([record], config)[0]
    if isinstance(tensor, RejectedError):
        raise tensor
    return tensor


def build_tensors(
    records: Sequence[ECGRecord], config: PreprocessConfig
) -> list[Tensor | RejectedError]:
    """Turn records into tensors, as `build_tensor` does, or give the reason why one is rejected.

    Each step is taken for all of them, since its code then stays in the processor's caches; records
    of one rate and length, as most of a collection are, are judged in one go.
    """
    made: dict[int, Tensor | RejectedError] = {}
    alike: dict[tuple[float, int, int], list[tuple[int, _Window]]] = {}
    for i, record in enumerate(records):
        try:
            window = _cut_window(record, config)
        except RejectedError as error:
            made[i] = error
        else:
            alike.setdefault((record.fs, record.n_samples, window.signal.shape[1]), []).append(
                (i, window)
            )
    for (fs, *_), group in alike.items():
        windows = [window for _, window in group]
        present = np.stack([window.ordered.present for window in windows])
        measures = measure_quality([window.signal for window in windows], fs, present)
        constant = measures.highest_mv == measures.lowest_mv
        flags = quality_flags(measures, present, config.quality, config.max_amplitude_mv)
        fingerprints = compute_fingerprints([window.ordered.signal for window in windows], fs)
        for (i, window), *judged in zip(group, constant, flags, fingerprints, strict=True):
            made[i] = _finish(window, fs, config, *judged)
    return [made[i] for i in range(len(records))]


class _Window(NamedTuple):
    """What of a record its tensor is made of: the standard leads, from them the samples needed with
    gaps filled, and flags.
    """

    ordered: OrderedLeads
    signal: Signal
    flags: list[str]


def _cut_window(record: ECGRecord, config: PreprocessConfig) -> _Window:
    ordered = order_leads(record.signal, record.leads, STANDARD_LEADS)
    if not ordered.present.any():
        raise RejectedError(
            f"no known lead among {', '.join(map(repr, record.leads))}: expected names "
            "such as II or V1"
        )
    if record.duration_s < config.min_duration_s:
        raise RejectedError(
            f"lasts {record.duration_s:.3g} s, the limit is {config.min_duration_s:g} s"
        )
    if abs(rate_ratio(record.fs, config.fs) * record.fs / config.fs - 1) > _MAX_RATE_ERROR:
        raise RejectedError(
            f"its rate of {record.fs:g} Hz cannot be brought to {config.fs:g} Hz: "
            "expected at most some hundred times as much"
        )
    window = ordered.signal[:, : source_samples_needed(config.n_samples, record.fs, config.fs)]
    window, flags = _without_gaps(window, record.fs, config)
    return _Window(ordered, window, [*record.flags, *ordered.flags, *flags])


def _finish(
    window: _Window,
    fs: float,
    config: PreprocessConfig,
    constant: NDArray[np.bool_],
    quality: list[str],
    fingerprint: str,
) -> Tensor | RejectedError:
    """Bring a window to the rate and length wanted; `constant` are its leads (12,) that do not
    change at all.
    """
    present = window.ordered.present
    resampled = resample(window.signal, fs, config.fs)[:, : config.n_samples]
    if constant.any() and rate_ratio(fs, config.fs) != 1:
        resampled[constant] = window.signal[
            constant, :1
        ]  # the filter's edges would make a flat lead look alive
    scaled = standardize(resampled, config.flat_std_mv)
    flat = np.asarray((scaled.std == 0) & present)
    flags = [*window.flags, *quality]
    flags += [
        f"flat:{lead}"
        for lead, is_flat in zip(STANDARD_LEADS, flat.tolist(), strict=True)
        if is_flat
    ]
    if reason := find_rejection(flags, config.quality.reject_flags):
        return RejectedError(reason, flags)
    arrays = {
        "signal": fit_length(scaled.signal, config.n_samples),
        "lead_mean": np.where(present, scaled.mean, 0).astype(np.float32),
        "lead_std": scaled.std,
        "lead_present": present,
        "n_valid": np.int32(resampled.shape[1]),
        "fs": np.float32(config.fs),
    }
    return Tensor(arrays, tuple(flags), fingerprint)


def _without_gaps(window: Signal, fs: float, config: PreprocessConfig) -> tuple[Signal, list[str]]:
    """Interpolate short gaps, with a flag per lead; a longer one rejects the record."""
    max_gap = int(config.max_gap_s * fs)
    filled, longest = fill_gaps(window, max_gap)
    if longest == 0:
        return window, []
    gapped = [
        lead for lead, row in zip(STANDARD_LEADS, window, strict=True) if not np.isfinite(row).all()
    ]
    if not np.isfinite(filled).all():
        raise RejectedError(
            f"{longest / fs:.3g} s of samples are missing in one gap (leads "
            f"{', '.join(gapped)}), the limit is {config.max_gap_s:g} s"
        )
    return filled, [f"gap_filled:{lead}" for lead in gapped]


def unreadable_row(blank: ManifestRow, reason: str) -> ManifestRow:
    """Return the row of a record that could not be read, from what `blank_row` gave for it."""
    return blank._replace(status="unreadable", reason=reason)


def find_task(task: RecordTask, config: PreprocessConfig) -> RecordStart:
    """Look up what of a record its tensor depends on."""
    seconds = (
        max(config.n_samples / config.fs, config.min_duration_s) + _FILTER_MARGIN_S
    )  # a record cut shorter would look too short
    return find_start(
        task.file, seconds, source_fs=task.source_fs, source_gain_per_mv=task.source_gain_per_mv
    )


def _process_starts(
    tasks: Sequence[RecordTask], processed: Path, config: PreprocessConfig, batch: FileBatch
) -> list[ManifestRow]:
    """Process records step by step together: each step's code then stays in the processor's caches,
    which saves a tenth of the time.
    """
    blanks = [blank_row(task, config) for task in tasks]
    found = [_or_error(find_task, task, config) for task in tasks]
    starts = [start if isinstance(start, RecordError) else _or_error(start.read) for start in found]
    tensors = iter(
        build_tensors([start[0] for start in starts if not isinstance(start, RecordError)], config)
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
    task: RecordTask, processed: Path, config: PreprocessConfig, batch: FileBatch
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
            tensor = build_tensors([window], config)[0]
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
    return iter_records(
        task.file,
        window_s=config.window_s,
        stride_s=config.stride_s or None,
        source_fs=task.source_fs,
        source_gain_per_mv=task.source_gain_per_mv,
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
        task.source_fs,
        task.source_gain_per_mv,
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


def process_chunk(
    tasks: Sequence[RecordTask], processed: Path, config: PreprocessConfig, on_error: str
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
                _process_windows(group[0], processed, config, batch)
                if config.window_s
                else _process_starts(group, processed, config, batch)
            )
            bad = next((row for row in made if row.status != "ok"), None)
            if on_error == "raise" and bad is not None:
                raise RecordError(bad.source_path, bad.reason)
            rows += made
            if len(batch) >= _FLUSHED_FILES:
                batch.flush()
        batch.commit()
    return rows
