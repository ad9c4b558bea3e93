"""The streaming run over many records: pool, journal, manifest, splits.

The run holds a bounded window of chunks, so its memory does not grow with the collection. Every
attempted record gets a manifest row; rows are journalled chunk by chunk, and a run that was killed
goes on from there.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.config import STANDARD_LEADS, DataConfig, ExecutionConfig, PreprocessConfig, SplitConfig
from src.labels.mapping import load_mapping
from src.processed.duplicates import (
    DUPLICATES_FILE,
    find_duplicates,
    reject_copies,
    report_duplicates,
    save_duplicates,
)
from src.processed.files import remove_leftovers
from src.processed.fingerprints import compute_fingerprints
from src.processed.manifest import Journal, ManifestRow, is_rejected_copy, save_manifest
from src.processed.quality import find_rejection, measure_quality, quality_flags, report_gains
from src.processed.record_files import make_record_folders, record_keys
from src.processed.resampling import rate_ratio, resample, source_samples_needed
from src.processed.runs.chunks import process_chunk
from src.processed.runs.log import Progress, log_run
from src.processed.runs.plan import RunPlan, SourceFolders, plan_run, spread
from src.processed.runs.pool import (
    ExecutorFactory,
    LocalExecutor,
    can_start_processes,
    local_executors,
    run_chunks,
    shrinking_chunks,
)
from src.processed.runs.resume import load_previous_places, merge_manifest, prepare_tasks
from src.processed.runs.staging import Stage, open_stage
from src.processed.runs.tasks import RecordTask, RejectedError, Tensor, blank_row, unreadable_row
from src.processed.signals import (
    OrderedLeads,
    fill_gaps,
    fit_length,
    order_leads,
    standardize,
)
from src.processed.splits import SPLIT_NAMES, build_splits, save_splits
from src.records.record import ECGRecord, RecordError
from src.utils import Float32Array, Rich, html_facts, html_table, shown_path

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

_DEADLY = "reading it ended two worker processes: a library crashed on it, or memory ran out"
_FAILED = ("unreadable", "missing", "rejected")

_MAX_RATE_ERROR = 1e-3  # of the rate that comes out; only sources far above the target pass it


@dataclass(frozen=True)
class RunSummary(Rich):
    """What a run did, by status, with how many records were already there and how many recordings
    have copies.

    Those that failed could not be read, were not there, or were rejected, but not as copies.
    """

    n_records: int
    n_skipped: int
    by_status: dict[str, int]
    reasons: dict[str, int]
    split_sizes: dict[str, int]
    n_copied: int
    processed: Path
    n_failed: int = 0

    def __str__(self) -> str:
        status = ", ".join(f"{count} {name}" for name, count in self.by_status.items()) or "nothing"
        sizes = ", ".join(f"{name} {count}" for name, count in self.split_sizes.items())
        lines = [
            f"{self.n_records} records: {status} ({self.n_skipped} were done before)",
            f"splits: {sizes}",
        ]
        lines += (
            [
                (
                    f"{self.n_copied} recordings are in several records: "
                    f"{self.processed / DUPLICATES_FILE}"
                )
            ]
            if self.n_copied
            else []
        )
        lines += [f"  {count} x {reason}" for reason, count in self.reasons.items()]
        return "\n".join(lines)

    def require_success(self, max_failed: float) -> None:
        """Refuse a run in which more than a share of the records failed.

        Raises
        ------
        ValueError
            If it is so; the message gives the most frequent reason.
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
        rows = [
            *(["status", *item] for item in self.by_status.items()),
            *(["split", *item] for item in self.split_sizes.items()),
        ]
        return facts + html_table(
            ["", "", "records"], [*rows, *(["reason", *item] for item in self.reasons.items())]
        )


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
        Collections by name, and what their files do not say.
    processed
        Gets ``records/``, ``manifest.csv`` and ``splits.json``. A URL such as
        ``s3://bucket/folder`` serves too, as it does for the collections; the run then keeps its
        tables in a local folder until they are uploaded.
    mapping
        Label table; without one every record gets the fallback label.
    config, splits, execution
        Settings; defaults where left out.
    executor_factory
        Makes the `concurrent.futures.Executor` that runs the chunks, and is called again when one
        breaks; by default a local process pool.
    limit
        Process at most this many records, spread over the collections; rows of their other records
        leave the manifest.
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
        If the disk is full, or the folder of a collection vanishes; what was done is kept for the
        next run.
    """
    config, splits, execution = (
        config or PreprocessConfig(),
        splits or SplitConfig(),
        execution or ExecutionConfig(),
    )
    table = load_mapping(mapping) if mapping is not None else None
    plan = plan_run(data, table, config)
    if limit is not None:
        plan = replace(plan, tasks=spread(plan.tasks, limit), missing=())
    if execution.on_error == "raise" and plan.missing:
        first = plan.missing[0]
        raise RecordError(f"{first.dataset}/{first.record_id}", first.reason)
    sources = SourceFolders(data.roots)
    asked = {
        "data": data,
        "mapping": mapping,
        "preprocess": config,
        "splits": splits,
        "execution": execution,
        "limit": limit,
        "extend": extend,
    }
    with (
        open_stage(processed) as stage,
        log_run(stage.folder, "preprocess", asked) as log,
        _executors(executor_factory, execution.n_workers, stage, plan) as executors,
    ):
        sharded = stage.remote is None and len(plan.tasks) > execution.shard_above
        folders = [stage.folder, *make_record_folders(stage.folder, sharded=sharded)]
        remove_leftovers(folders)
        stage = stage.pull()
        previous = load_previous_places(
            stage.folder / "splits.json", splits
        )  # a damaged file stops the run before the work, not after
        waiting = prepare_tasks(stage, plan, data, config, extend)
        journal = Journal(stage.folder)
        with Progress(len(waiting), "preprocess") as progress:
            for rows in _process(waiting, stage, config, execution, executors):
                sources.require(rows)
                journal.append(rows)
                progress.update(1 if config.window_s else len(rows))
        remove_leftovers(folders)  # of workers that died meanwhile
        manifest = merge_manifest(
            stage.folder, plan, data if extend else None, journal, windows=config.window_s > 0
        )
        summary = _finish(
            stage,
            manifest,
            splits,
            previous,
            journal,
            n_skipped=len(plan.tasks) - len(waiting),
            datasets=list(data.roots),
        )
        log.result = {
            **vars(summary),
            "n_processed": len(waiting),
            "records_per_s": round(progress.per_second, 1),
        }
        summary.require_success(execution.max_failed)
        return summary


def _executors(
    factory: ExecutorFactory | None, n_workers: int, stage: Stage, plan: RunPlan
) -> AbstractContextManager[ExecutorFactory | None]:
    """Return a context that gives what makes the executors of a run; None stays in this process.

    Local ones start while the run is prepared, unless an earlier run may have left them nothing to
    do.
    """
    if factory is not None or n_workers == 1 or not can_start_processes():
        return nullcontext(factory)
    if any(path.exists() for path in (stage.folder / "manifest.csv", Journal(stage.folder).path)):
        return nullcontext(partial(LocalExecutor, n_workers))
    return local_executors(n_workers, min(n_workers, len(plan.tasks)), "src.preprocessing")


def _process(
    waiting: Sequence[RecordTask],
    stage: Stage,
    config: PreprocessConfig,
    execution: ExecutionConfig,
    executors: ExecutorFactory | None,
) -> Iterator[list[ManifestRow]]:
    """Yield the rows of the tasks chunk by chunk."""
    workers = execution.n_workers
    largest = (
        1 if config.window_s else execution.chunk_size
    )  # a record of many windows is work enough
    chunks = shrinking_chunks(waiting, largest, workers)
    process = partial(
        process_chunk, config=config, build=build_tensors, on_error=execution.on_error
    )
    work = stage.work(process, waiting)

    def give_up(task: RecordTask) -> list[ManifestRow]:
        if execution.on_error == "raise":
            raise RecordError(task.path, _DEADLY)
        return [unreadable_row(blank_row(task, config), _DEADLY)]

    yield from run_chunks(work, chunks, executors, window=4 * workers, lost=give_up)


def _finish(
    stage: Stage,
    manifest: pd.DataFrame,
    config: SplitConfig,
    previous: Mapping[str, str],
    journal: Journal,
    n_skipped: int,
    datasets: Sequence[str],
) -> RunSummary:
    """Settle copies, place the records in splits, write manifest and splits, and sum up."""
    processed = stage.folder
    copies = find_duplicates(manifest, previous, datasets)
    manifest = reject_copies(manifest, copies, config.on_duplicate)
    made = build_splits(manifest, config, previous, copies)
    where = made.of_key()
    manifest["split"] = [where.get(key, "") for key in record_keys(manifest).tolist()]
    save_manifest(manifest, processed)
    save_duplicates(copies, manifest, processed)
    save_splits(
        made, processed / "splits.json"
    )  # last: a run that ends before this starts from the same places again
    stage.push()
    journal.remove()
    report_duplicates(copies, config.on_duplicate)
    report_gains(manifest[manifest["status"] == "ok"])
    bad = manifest.loc[manifest["status"] != "ok", "reason"]
    summary = RunSummary(
        n_records=len(manifest),
        n_skipped=n_skipped,
        by_status=dict(Counter(manifest["status"])),
        reasons=dict(Counter(bad).most_common(10)),
        split_sizes={name: len(getattr(made, name)) for name in SPLIT_NAMES},
        n_copied=len(copies),
        processed=processed,
        n_failed=int((manifest["status"].isin(_FAILED) & ~is_rejected_copy(manifest)).sum()),
    )
    logger.info("%s", summary)
    return summary


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
            made[i] = _finish_tensor(window, fs, config, *judged)
    return [made[i] for i in range(len(records))]


class _Window(NamedTuple):
    """What of a record its tensor is made of: the standard leads, from them the samples needed with
    gaps filled, and flags.
    """

    ordered: OrderedLeads
    signal: Float32Array
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


def _finish_tensor(
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


def _without_gaps(
    window: Float32Array, fs: float, config: PreprocessConfig
) -> tuple[Float32Array, list[str]]:
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
