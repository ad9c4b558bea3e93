"""A record to a tensor, and the run over many records.

`build_tensor` makes the array that the network sees: standard leads, one rate and length, z-scored.
`run_preprocessing` does so for every record of the collections: it plans the records, sends them in
chunks to workers, journals their manifest rows, and writes manifest and splits.

The run holds a bounded number of chunks, so its memory does not grow with the collection. Every
attempted record gets a manifest row. A run that was killed resumes from the journal.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.config import (
    SPLIT_NAMES,
    STANDARD_LEADS,
    DataConfig,
    ExecutionConfig,
    PreprocessConfig,
    SplitConfig,
)
from src.processed.duplicates import (
    DUPLICATES_FILE,
    find_duplicates,
    reject_copies,
    report_duplicates,
    save_duplicates,
)
from src.processed.fingerprints import compute_fingerprints
from src.processed.manifest import (
    Journal,
    ManifestRow,
    is_rejected_copy,
    load_manifest,
    report_patients,
    save_manifest,
    summarize_quality,
)
from src.processed.quality import find_rejection, measure_quality, quality_flags, report_gains
from src.processed.record_files import make_record_folders, record_keys
from src.processed.resampling import rate_ratio, resample, source_samples_needed
from src.processed.runs.chunks import process_chunk
from src.processed.runs.log import Progress, log_run
from src.processed.runs.plan import RunPlan, SourceFolders, choose_evenly, load_labels, plan_run
from src.processed.runs.pool import (
    ExecutorFactory,
    LocalExecutor,
    can_start_processes,
    local_executors,
    run_chunks,
    shrinking_chunks,
)
from src.processed.runs.resume import load_placed_records, merge_manifest, prepare_tasks
from src.processed.runs.staging import Stage, open_stage
from src.processed.runs.tasks import (
    RecordTask,
    RecordTensor,
    RejectedError,
    blank_row,
    unreadable_row,
)
from src.processed.signals import (
    derive_leads,
    drop_missing_leads,
    fill_gaps,
    fit_length,
    order_leads,
    standardize,
)
from src.processed.splits import Splits, build_splits, save_splits
from src.records.record import ECGRecord, RecordError, all_finite
from src.utils import (
    Float32Array,
    Rich,
    as_path,
    as_url,
    html_facts,
    html_table,
    printable_lines,
    remove_leftovers,
    shown_path,
)

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

# Relative error of the rate that resampling reaches; only sources far above the target exceed it.
_MAX_RATE_ERROR = 1e-3

# Folders that a run, or training on it, keeps in its output folder
_OUTPUT_FOLDERS = ("records", "packed", "logs", "models", "figures")

_FAILED_STATUSES = ("unreadable", "missing", "rejected")
_CRASH_REASON = "reading it ended two worker processes: a library crashed on it, or memory ran out"


# A record to a tensor -----------------------------------------------------------------------------


def build_tensor(record: ECGRecord, config: PreprocessConfig) -> RecordTensor:
    """Bring a record to the standard leads, rate and length, and z-score each lead.

    Returns
    -------
    RecordTensor
        `arrays` holds signal (12, n_samples) z-scored, lead_mean and lead_std (12,) in mV,
        lead_present (12,), n_valid and fs.

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
) -> list[RecordTensor | RejectedError]:
    """Build the tensors of several records; a rejected record gives its `RejectedError` instead.

    Each step runs for all records before the next one, because its code then stays in the
    processor's caches. Records of one rate and length, as most of a collection are, are measured
    together.
    """
    results: dict[int, RecordTensor | RejectedError] = {}
    groups: dict[tuple[float, int, int], list[tuple[int, _PreparedRecord]]] = {}
    for position, record in enumerate(records):
        try:
            prepared = _prepare_record(record, config)
        except RejectedError as error:
            results[position] = error
            continue
        shape = (record.fs, record.n_samples, prepared.signal.shape[1])
        groups.setdefault(shape, []).append((position, prepared))

    for (fs, _, _), group in groups.items():
        tensors = _build_group([prepared for _, prepared in group], fs, config)
        for (position, _), tensor in zip(group, tensors, strict=True):
            results[position] = tensor
    return [results[position] for position in range(len(records))]


class _PreparedRecord(NamedTuple):
    """A record's standard leads, ready to be measured and resampled.

    Attributes
    ----------
    whole
        All samples of the record, shape (12, any), missing ones included.
    signal
        The samples that its tensor needs, without gaps, shape (12, n_samples).
    present
        Mask of its leads (12,).
    flags
        Those of the record, of its leads and of its gaps.
    before, after
        Samples around a window of a longer recording, shape (12, any), or None.
    """

    whole: Float32Array
    signal: Float32Array
    present: NDArray[np.bool_]
    flags: list[str]
    before: Float32Array | None
    after: Float32Array | None


def _prepare_record(record: ECGRecord, config: PreprocessConfig) -> _PreparedRecord:
    """Order the leads, cut the record to the samples its tensor needs, and fill short gaps."""
    leads = order_leads(record.signal, record.leads, STANDARD_LEADS)
    if not leads.present.any():
        raise RejectedError(
            f"no known lead among {', '.join(map(repr, record.leads))}: expected names "
            "such as II or V1; name channels with --leads NAME=II,V5 by place, or "
            "NAME=CHANNEL:LEAD"
        )
    if record.duration_s < config.min_duration_s:
        raise RejectedError(
            f"lasts {record.duration_s:.3g} s, the limit is {config.min_duration_s:g} s"
        )
    if abs(rate_ratio(record.fs, config.fs) * record.fs / config.fs - 1) > _MAX_RATE_ERROR:
        raise RejectedError(
            f"its rate of {record.fs:g} Hz cannot be brought to {config.fs:g} Hz: "
            "expected at most some hundred times that"
        )
    n_needed = source_samples_needed(config.n_samples, record.fs, config.fs)
    signal = leads.signal[:, :n_needed]
    present, missing_flags = _find_missing_leads(signal, leads.present)
    signal, gap_flags = _fill_short_gaps(signal, present, record.fs, config)
    before = _order_margin(record.before, record, present)
    # The samples after the part that is needed are the better ones, where there are any.
    after = None if n_needed < record.n_samples else _order_margin(record.after, record, present)
    prepared = _PreparedRecord(
        leads.signal,
        signal,
        present,
        [*record.flags, *leads.flags, *missing_flags, *gap_flags],
        before,
        after,
    )
    return _derive_leads(prepared) if config.derive_leads else prepared


def _find_missing_leads(
    signal: Float32Array, present: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], list[str]]:
    """Return the mask of the leads that have samples, and a flag for each lead without any."""
    with_samples = drop_missing_leads(signal, present)
    if with_samples is present:
        return present, []
    if not with_samples.any():
        raise RejectedError("all samples are missing in every known lead: expected voltages")
    missing = np.flatnonzero(present & ~with_samples).tolist()
    return with_samples, [f"no_samples:{STANDARD_LEADS[row]}" for row in missing]


def _fill_short_gaps(
    signal: Float32Array, present: NDArray[np.bool_], fs: float, config: PreprocessConfig
) -> tuple[Float32Array, list[str]]:
    """Interpolate short gaps and flag their leads; a longer gap rejects the record.

    Absent leads, which may have the source's mark of missing samples, become zeros.
    """
    if all_finite(signal):
        return signal, []
    if not np.isfinite(signal[~present]).all():
        signal = np.where(present[:, None], signal, np.float32(0))
    max_gap = int(config.max_gap_s * fs)
    filled, longest = fill_gaps(signal, max_gap)
    if longest == 0:
        return signal, []
    gapped = [
        lead for lead, row in zip(STANDARD_LEADS, signal, strict=True) if not np.isfinite(row).all()
    ]
    if not np.isfinite(filled).all():
        raise RejectedError(
            f"{longest / fs:.3g} s of samples are missing in one gap (leads "
            f"{', '.join(gapped)}), the limit is {config.max_gap_s:g} s"
        )
    return filled, [f"gap_filled:{lead}" for lead in gapped]


def _order_margin(
    margin: Float32Array | None, record: ECGRecord, present: NDArray[np.bool_]
) -> Float32Array | None:
    """Return the standard leads of the samples beside a window, or None if some are missing."""
    if margin is None or not margin.shape[1]:
        return None
    ordered = order_leads(margin, record.leads, STANDARD_LEADS).signal
    if not all_finite(ordered[present]):
        return None
    return ordered if present.all() else np.where(present[:, None], ordered, np.float32(0))


def _derive_leads(prepared: _PreparedRecord) -> _PreparedRecord:
    """Add the limb leads that follow from two of I, II and III, each with a flag."""
    if prepared.present.all():
        return prepared
    parts = [prepared.whole, prepared.signal, prepared.before, prepared.after]
    derived: list[int] = []
    for i, part in enumerate(parts):
        if part is not None:
            # The samples may be those of the record, which stays as it is.
            parts[i] = part = part.copy()
            derived = derive_leads(part, prepared.present)
    if not derived:
        return prepared
    present = prepared.present.copy()
    present[derived] = True
    whole, signal, before, after = parts
    assert whole is not None and signal is not None
    flags = [*prepared.flags, *[f"derived:{STANDARD_LEADS[row]}" for row in derived]]
    return _PreparedRecord(whole, signal, present, flags, before, after)


def _build_group(
    group: Sequence[_PreparedRecord], fs: float, config: PreprocessConfig
) -> Iterator[RecordTensor | RejectedError]:
    """Yield the tensors of records of one rate and length."""
    present = np.stack([prepared.present for prepared in group])  # (n_records, 12)
    measures = measure_quality([prepared.signal for prepared in group], fs, present)
    constant = measures.highest_mv == measures.lowest_mv  # (n_records, 12)
    flags = quality_flags(measures, present, config.quality, config.max_amplitude_mv)
    # Fingerprints are of the uncut signals, so that copies match whatever length the tensor has.
    wholes = [prepared.whole for prepared in group]
    # The window of a beat is too short for one; it gets that of its record.
    fingerprints = [""] * len(group) if config.cuts_beats else compute_fingerprints(wholes, fs)
    for i, prepared in enumerate(group):
        yield _standardize_record(prepared, fs, config, constant[i], flags[i], fingerprints[i])


def _standardize_record(
    prepared: _PreparedRecord,
    fs: float,
    config: PreprocessConfig,
    constant: NDArray[np.bool_],
    measured_flags: list[str],
    fingerprint: str,
) -> RecordTensor | RejectedError:
    """Resample, z-score and pad a record; `constant` marks the leads (12,) that never change."""
    present = prepared.present
    resampled = resample(
        prepared.signal, fs, config.fs, before=prepared.before, after=prepared.after
    )[:, : config.n_samples]
    if constant.any() and rate_ratio(fs, config.fs) != 1:
        # Rounding, and what was recorded around a window, would make a flat lead look alive.
        resampled[constant] = prepared.signal[constant, :1]
    scaled = standardize(resampled, config.flat_std_mv)

    flags = [*prepared.flags, *measured_flags]
    is_flat = np.asarray((scaled.std == 0) & present)
    flags += [f"flat:{STANDARD_LEADS[i]}" for i in np.flatnonzero(is_flat).tolist()]
    if reason := find_rejection(flags, config.quality.reject_flags):
        return RejectedError(reason, flags)

    arrays = {
        "signal": fit_length(scaled.signal, config.n_samples),
        "lead_mean": np.where(present, scaled.mean, 0).astype(np.float32),
        "lead_std": scaled.std,
        "lead_present": present,
        "n_valid": np.array(resampled.shape[1], np.int32),
        "fs": np.array(config.fs, np.float32),
    }
    return RecordTensor(arrays, tuple(flags), fingerprint)


# The run over many records ------------------------------------------------------------------------


@dataclass(frozen=True)
class RunSummary(Rich):
    """Counts of a run: records by status, records done before, and recordings that have copies.

    `n_failed` counts records that are unreadable, missing or rejected, but not rejected copies.
    `quality` names the most frequent quality flags of each dataset, with their share of records.
    """

    n_records: int
    n_skipped: int
    by_status: dict[str, int]
    reasons: dict[str, int]
    split_sizes: dict[str, int]
    n_copied: int
    processed: Path
    n_failed: int = 0
    quality: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        status = ", ".join(f"{count} {name}" for name, count in self.by_status.items()) or "nothing"
        sizes = ", ".join(f"{name} {count}" for name, count in self.split_sizes.items())
        lines = [
            f"{self.n_records} records: {status} ({self.n_skipped} were done before)",
            f"splits: {sizes}",
        ]
        if self.n_copied:
            duplicates = self.processed / DUPLICATES_FILE
            lines.append(f"{self.n_copied} recordings are in several records: {duplicates}")
        lines += [f"quality of {name}: {flags}" for name, flags in self.quality.items()]
        lines += [f"  {count} x {reason}" for reason, count in self.reasons.items()]
        return printable_lines("\n".join(lines))

    def require_success(self, max_failed: float) -> None:
        """Refuse a run in which too many records failed.

        Parameters
        ----------
        max_failed
            Largest share of failed records that is accepted, 0 to 1.

        Raises
        ------
        ValueError
            If more failed; the message gives the most frequent reason.
        """
        share = self.n_failed / max(1, self.n_records)
        if share > max_failed:
            reason, count = next(iter(self.reasons.items()), ("", 0))
            raise ValueError(
                f"{self.processed}: {share:.1%} of {self.n_records} records failed, "
                f"max_failed allows {max_failed:.1%}; most often ({count} x): {reason}"
            )

    def _repr_html_(self) -> str:
        facts = html_facts(
            {
                "records": self.n_records,
                "done before": self.n_skipped,
                "with copies": self.n_copied,
                "in": shown_path(self.processed),
            }
        )
        rows: list[list[object]] = []
        for title, counts in (
            ("status", self.by_status),
            ("split", self.split_sizes),
            ("reason", self.reasons),
        ):
            rows += [[title, name, count] for name, count in counts.items()]
        rows += [["quality", name, flags] for name, flags in self.quality.items()]
        return facts + html_table(["", "", "records"], rows)


def run_preprocessing(
    data: DataConfig,
    processed: str | Path,
    *,
    mapping: str | Path | None = None,
    config: PreprocessConfig | None = None,
    splits: SplitConfig | None = None,
    execution: ExecutionConfig | None = None,
    executor_factory: ExecutorFactory | None = None,
    limit: int | None = None,
    extend: bool = True,
) -> RunSummary:
    """Process every record of the collections in `data` into the folder `processed`.

    Parameters
    ----------
    data
        Collections by name, with the rate and gain of files that do not state theirs.
    processed
        Gets ``records/``, ``manifest.csv`` and ``splits.json``. It may be a URL such as
        ``s3://bucket/folder``, and so may the collections; the run then keeps its tables in a local
        folder until they are uploaded.
    mapping
        Label mapping; without one every record gets the fallback label.
    config, splits, execution
        Settings; defaults where left out.
    executor_factory
        Makes the `concurrent.futures.Executor` that runs the chunks, and is called again when one
        breaks; by default a local process pool.
    limit
        Process at most this many records, spread evenly over the collections. Rows of their other
        records leave the manifest.
    extend
        Keep the rows of datasets that an earlier run put into `processed` and this one does not
        name; False leaves them out of the manifest and the splits.

    Returns
    -------
    RunSummary

    Raises
    ------
    ValueError
        If the mapping or a folder is wrong, `processed` holds records of other datasets made with
        other settings, or, when everything is written, more records failed than
        `execution.max_failed` allows.
    RecordError
        At the first bad record when `execution.on_error` is ``raise``.
    RuntimeError
        If another run holds the folder, or worker processes keep dying.
    OSError
        If the disk is full, or the folder of a collection vanishes; finished records are kept for
        the next run.
    """
    config = config or PreprocessConfig()
    splits = splits or SplitConfig()
    execution = execution or ExecutionConfig()
    arguments = {
        "data": data,
        "mapping": mapping,
        "preprocess": config,
        "splits": splits,
        "execution": execution,
        "limit": limit,
        "extend": extend,
    }
    _require_apart(data, processed)
    plan = _plan(data, mapping, config, execution, limit)
    sources = SourceFolders(data.roots)
    with (
        open_stage(processed) as stage,
        log_run(stage.folder, "preprocess", arguments) as log,
        _open_executors(executor_factory, execution.n_workers, stage, plan) as executors,
    ):
        # Prepare the folder, and skip records that earlier runs have done.
        sharded = stage.remote is None and len(plan.tasks) > execution.shard_above
        folders = [stage.folder, *make_record_folders(stage.folder, sharded=sharded)]
        remove_leftovers(folders)
        stage = stage.pull()
        # Read first: a damaged splits file stops the run before the work, not after it.
        placed = load_placed_records(stage.folder, splits)
        if mapping is None:
            _warn_of_lost_labels(stage.folder, data)
        waiting = prepare_tasks(stage, plan, data, config, extend)

        # Process the records, and journal the rows of each chunk as soon as its files are written.
        journal = Journal(stage.folder)
        with Progress(len(waiting), "preprocess") as progress:
            for rows in _process_chunks(waiting, stage, config, execution, executors):
                sources.require(rows)
                journal.append(rows)
                progress.update(1 if config.cuts_windows else len(rows))
        # Workers that died during the run left temporary files, too.
        remove_leftovers(folders)

        # Write manifest, duplicates and splits.
        kept_data = data if extend else None
        manifest = merge_manifest(
            stage.folder, plan, kept_data, journal, windows=config.cuts_windows
        )
        copies = find_duplicates(manifest, placed.splits, list(data.roots))
        manifest = reject_copies(manifest, copies, splits.on_duplicate)
        divided = build_splits(manifest, splits, placed.splits, copies, placed.provisional)
        _save_tables(stage, manifest, divided, copies, journal)

        # Report.
        report_duplicates(copies, splits.on_duplicate)
        report_gains(manifest[manifest["status"] == "ok"])
        ok = manifest[manifest["status"] == "ok"]
        report_patients(*(ok[name].tolist() for name in ("dataset", "record_id", "patient_id")))
        n_skipped = len(plan.tasks) - len(waiting)
        summary = _summarize(manifest, divided, stage.folder, n_skipped, n_copied=len(copies))
        logger.info("%s", summary)
        log.result = {
            **vars(summary),
            "n_processed": len(waiting),
            "records_per_s": round(progress.per_second, 1),
        }
        summary.require_success(execution.max_failed)
        return summary


def _require_apart(data: DataConfig, processed: str | Path) -> None:
    """Refuse an output folder that is a collection too, or that keeps its files around one.

    A collection may lie elsewhere in the output folder. One that holds the output folder is read
    without it, since `survey_folder` passes over folders that preprocessing wrote.
    """
    if as_url(processed):
        return
    out = as_path(processed).resolve()
    for name, root in data.roots.items():
        folder = None if as_url(root) else as_path(root).resolve()
        if folder is None or not folder.is_relative_to(out):
            continue
        inside = folder.relative_to(out).parts
        if not inside or inside[0] in _OUTPUT_FOLDERS:
            raise ValueError(
                f"{processed}: the records of {name} would lie among the files that this run "
                "writes; choose another folder for --out"
            )
        logger.warning("%s: holds the folder of %s, which is only read", processed, name)


def _warn_of_lost_labels(folder: Path, data: DataConfig) -> None:
    """Warn if a run without a label mapping takes the labels from records of an earlier run."""
    if not (folder / "manifest.csv").exists():
        return
    rows = load_manifest(folder)
    of_these = rows["dataset"].isin(list(data.roots))
    n_labelled = int((of_these & (rows["label_source"] == "mapping")).sum())
    if n_labelled:
        logger.warning(
            "%s: %d records lose the labels that an earlier run gave them; give --mapping to keep "
            "them",
            folder,
            n_labelled,
        )


def _plan(
    data: DataConfig,
    mapping: str | Path | None,
    config: PreprocessConfig,
    execution: ExecutionConfig,
    limit: int | None,
) -> RunPlan:
    """Return the records to process; with `on_error` raise, a missing record ends the run."""
    plan = plan_run(data, load_labels(mapping, config), config)
    if limit is not None:
        plan = replace(plan, tasks=choose_evenly(plan.tasks, limit), missing=(), unread=())
    labelled = [row for row in plan.unread if row.label_source == "mapping"]
    failed = [*plan.missing, *labelled]
    if execution.on_error == "raise" and failed:
        first = failed[0]
        raise RecordError(f"{first.dataset}/{first.record_id}", first.reason)
    return plan


def _open_executors(
    factory: ExecutorFactory | None, n_workers: int, stage: Stage, plan: RunPlan
) -> AbstractContextManager[ExecutorFactory | None]:
    """Return a context that yields the executor factory of a run; None works in this process.

    Local processes start while the run is prepared, unless an earlier run may have left them
    nothing to do.
    """
    if factory is not None or n_workers == 1 or not can_start_processes():
        return nullcontext(factory)
    if (stage.folder / "manifest.csv").exists() or Journal(stage.folder).path.exists():
        return nullcontext(partial(LocalExecutor, n_workers))
    return local_executors(n_workers, min(n_workers, len(plan.tasks)), "src.preprocessing")


def _process_chunks(
    waiting: Sequence[RecordTask],
    stage: Stage,
    config: PreprocessConfig,
    execution: ExecutionConfig,
    executors: ExecutorFactory | None,
) -> Iterator[list[ManifestRow]]:
    """Yield the manifest rows of the tasks chunk by chunk."""
    workers = execution.n_workers
    # A single record with many windows is enough work for a chunk.
    largest = 1 if config.cuts_windows else execution.chunk_size
    chunks = shrinking_chunks(waiting, largest, workers)
    process = partial(
        process_chunk, config=config, build=build_tensors, on_error=execution.on_error
    )

    def report_crash(task: RecordTask) -> list[ManifestRow]:
        if execution.on_error == "raise":
            raise RecordError(task.path, _CRASH_REASON)
        return [unreadable_row(blank_row(task, config), _CRASH_REASON)]

    work = stage.work(process, waiting)
    yield from run_chunks(work, chunks, executors, window=4 * workers, lost=report_crash)


def _save_tables(
    stage: Stage,
    manifest: pd.DataFrame,
    splits: Splits,
    copies: Sequence[tuple[str, ...]],
    journal: Journal,
) -> None:
    """Write manifest, duplicates and splits, and remove the journal, which is then in them."""
    split_of = splits.of_key()
    manifest["split"] = [split_of.get(key, "") for key in record_keys(manifest).tolist()]
    save_manifest(manifest, stage.folder)
    save_duplicates(copies, manifest, stage.folder)
    # Last: a run that ends before this starts from the same splits again.
    save_splits(splits, stage.folder / "splits.json")
    stage.push()
    journal.remove()


def _summarize(
    manifest: pd.DataFrame, splits: Splits, processed: Path, n_skipped: int, n_copied: int
) -> RunSummary:
    is_failed = manifest["status"].isin(_FAILED_STATUSES) & ~is_rejected_copy(manifest)
    reasons = Counter(manifest.loc[manifest["status"] != "ok", "reason"])
    return RunSummary(
        n_records=len(manifest),
        n_skipped=n_skipped,
        by_status=dict(Counter(manifest["status"])),
        reasons=dict(reasons.most_common(10)),
        split_sizes={name: len(getattr(splits, name)) for name in SPLIT_NAMES},
        n_copied=n_copied,
        processed=processed,
        n_failed=int(is_failed.sum()),
        quality=summarize_quality(manifest[manifest["status"] == "ok"]),
    )
