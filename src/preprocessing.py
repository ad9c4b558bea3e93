"""The streaming run over many records: pool, journal, manifest, splits.

The run holds a bounded window of chunks, so its memory does not grow with the collection. Every
attempted record gets a manifest row; rows are journalled chunk by chunk, and a run that was killed
goes on from there.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from src.config import (
    DataConfig,
    ExecutionConfig,
    PreprocessConfig,
    SplitConfig,
    config_hash,
    load_dataclass,
)
from src.duplicates import (
    DUPLICATES_FILE,
    find_duplicates,
    is_taken_out,
    report_duplicates,
    restore_copies,
    save_duplicates,
    take_out_copies,
)
from src.durable import remove_leftovers
from src.labels import load_mapping
from src.pool import (
    ExecutorFactory,
    LocalExecutor,
    can_start_processes,
    local_executors,
    run_chunks,
    shrinking_chunks,
)
from src.records import RecordError, window_name
from src.rich import Rich, html_facts, html_table
from src.run_log import Progress, log_run
from src.run_plan import RunPlan, plan_run, spread
from src.source_folders import SourceFolders
from src.splits import SPLIT_NAMES, SplitItem, Splits, load_splits, make_splits, save_splits
from src.staging import Stage, open_stage
from src.store import (
    FORMAT_VERSION,
    INTERRUPTED,
    Journal,
    ManifestRow,
    load_manifest,
    make_record_folders,
    record_key,
    record_keys,
    save_manifest,
    split_list,
)
from src.tensors import (
    WINDOW_COUNT,
    RecordTask,
    blank_row,
    build_tensor,
    input_hash,
    unreadable_row,
)
from src.text_tables import zip_cells
from src.utils import save_json, shown_path

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

CONFIG_FILE = "preprocess_config.json"

__all__ = ["RecordTask", "RunPlan", "RunSummary", "build_tensor", "plan_run", "run_preprocessing"]

_WINDOW = re.compile(r"__w\d{5,}$")
_STALE = {"status": "unreadable", "reason": INTERRUPTED, "split": "", "input_hash": ""}
_DEADLY = "reading it ended two worker processes: a library crashed on it, or memory ran out"
_MANY_GAINS = 0.2  # of a collection's records
_FAILED = ("unreadable", "missing", "rejected")
_RETRIED = ("unreadable", "missing")  # what may have been mended since the last run


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
        previous = _previous_places(
            stage.folder / "splits.json", splits
        )  # a damaged file stops the run before the work, not after
        waiting = _prepare(stage, plan, data, config, extend)
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
    return local_executors(n_workers, min(n_workers, len(plan.tasks)), "src.staging")


def _prepare(
    stage: Stage, plan: RunPlan, data: DataConfig, config: PreprocessConfig, extend: bool
) -> list[RecordTask]:
    """Return the tasks that earlier runs have not done, and take what the run will overwrite out of
    manifest and journal first.

    A run that is killed thus never leaves a row that vouches for a record file of other settings or
    labels.
    """
    processed = stage.folder
    journal, manifest = Journal(processed), load_manifest(processed)
    journalled = journal.load()
    known = _known_rows(processed, manifest, journalled, data, config, extend)
    waiting = [task for task in plan.tasks if not _is_done(task, known, stage, config)]
    planned = {(task.dataset, task.record_id) for task in plan.tasks}
    redone = {(task.dataset, task.record_id) for task in waiting}
    if (stale := _overwritten(journalled, redone, planned)).any():
        journal.append(
            ManifestRow(*row) for row in journalled[stale].assign(**_STALE).to_numpy().tolist()
        )
    if (stale := _overwritten(manifest, redone, planned)).any():
        manifest.loc[stale, list(_STALE)] = list(_STALE.values())
        save_manifest(manifest, processed)
    save_json(config, processed / CONFIG_FILE)
    if stale.any():
        stage.push()
    return waiting


def _overwritten(
    rows: pd.DataFrame, redone: Collection[tuple[str, str]], planned: Collection[tuple[str, str]]
) -> NDArray[np.bool_]:
    """Tell which rows vouch for a record file that is made anew, of one of the records `redone` or
    of a window of it.

    A record that is `planned` under the name of a window is no window.
    """
    parents = rows["record_id"].str.replace(_WINDOW, "", regex=True)
    cells = zip_cells(rows["dataset"], rows["record_id"], parents)
    anew = np.array(
        [(d, r) in redone or ((d, p) in redone and (d, r) not in planned) for d, r, p in cells],
        bool,
    )
    return anew & (rows["status"] == "ok").to_numpy(bool)


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
    work = stage.work(waiting, config, execution.on_error)

    def give_up(task: RecordTask) -> list[ManifestRow]:
        if execution.on_error == "raise":
            raise RecordError(task.path, _DEADLY)
        return [unreadable_row(blank_row(task, config), _DEADLY)]

    yield from run_chunks(work, chunks, executors, window=4 * workers, lost=give_up)


def _known_rows(
    processed: Path,
    manifest: pd.DataFrame,
    journalled: pd.DataFrame,
    data: DataConfig,
    config: PreprocessConfig,
    extend: bool,
) -> dict[str, tuple[str, str]]:
    """Return key -> (input hash, status) of what earlier runs did; refuses to mix settings in one
    folder.
    """
    import pandas as pd

    rows = pd.concat([restore_copies(manifest), journalled], ignore_index=True)
    rows = rows.drop_duplicates(["dataset", "record_id"], keep="last")
    stranger = rows[~rows["dataset"].isin(list(data.roots)) & (rows["status"] == "ok")]
    wrong = stranger[stranger["config_hash"] != config_hash(config, FORMAT_VERSION)]
    if len(wrong) and extend:
        names = ", ".join(sorted(set(wrong["dataset"])))
        raise ValueError(
            f"{processed}: holds records of {names} made with other settings; name these "
            "datasets too, or choose another folder"
        )
    return {
        key: (digest, status)
        for key, digest, status in zip_cells(record_keys(rows), rows["input_hash"], rows["status"])
    }


def _is_done(
    task: RecordTask, known: Mapping[str, tuple[str, str]], stage: Stage, config: PreprocessConfig
) -> bool:
    first, _ = known.get(window_name(task.key, 0), ("", ""))
    windows = (
        [
            window_name(task.key, index)
            for index in range(int(first.partition(WINDOW_COUNT)[2] or 0))
        ]
        if config.window_s
        else []
    )
    attempts = [
        keys
        for keys in ([task.key], windows)
        if keys and all(key in known and known[key][1] not in _RETRIED for key in keys)
    ]
    digest = input_hash(task, config) if attempts else ""
    current = (
        keys
        for keys in attempts
        if all(known[key][0].partition(WINDOW_COUNT)[0] == digest for key in keys)
    )
    return any(all(known[key][1] != "ok" or stage.holds(key) for key in keys) for keys in current)


def load_preprocess_config(processed: str | Path) -> PreprocessConfig:
    """Return the settings that a processed folder was made with.

    Raises
    ------
    ValueError
        If the folder was not made by preprocessing.
    """
    path = Path(processed) / CONFIG_FILE
    if not path.exists():
        raise ValueError(
            f"{processed}: no processed records here; run preprocess with --out {processed} first"
        )
    return load_dataclass(PreprocessConfig, path)


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
    manifest = take_out_copies(manifest, copies, config.on_duplicate)
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
    _report_gains(manifest[manifest["status"] == "ok"])
    bad = manifest.loc[manifest["status"] != "ok", "reason"]
    summary = RunSummary(
        n_records=len(manifest),
        n_skipped=n_skipped,
        by_status=dict(Counter(manifest["status"])),
        reasons=dict(Counter(bad).most_common(10)),
        split_sizes={name: len(getattr(made, name)) for name in SPLIT_NAMES},
        n_copied=len(copies),
        processed=processed,
        n_failed=int((manifest["status"].isin(_FAILED) & ~is_taken_out(manifest)).sum()),
    )
    logger.info("%s", summary)
    return summary


def _report_gains(ok: pd.DataFrame) -> None:
    """Log collections in which many records look as if their gain were wrong: hardly one record in
    a thousand does by nature.
    """
    for flag, size in (("gain_low", "small"), ("gain_high", "large")):
        share = ok["quality_flags"].str.contains(flag, regex=False).groupby(ok["dataset"]).mean()
        for name in share[share > _MANY_GAINS].index:
            logger.warning(
                "%s: voltages of %.0f %% of the records are too %s for hearts; is the gain "
                "right? mend the headers, or give "
                "--source-gain where they say none",
                name,
                100 * share[name],
                size,
            )


def merge_manifest(
    processed: Path, plan: RunPlan, data: DataConfig | None, journal: Journal, windows: bool = False
) -> pd.DataFrame:
    """Return the rows of this run's records, the newest of each, and with `data` those of the
    datasets it does not name.

    With `windows`, a record has a row per window, and the newest input decides for all of them.
    """
    import pandas as pd

    old = restore_copies(load_manifest(processed))
    missing = pd.DataFrame(list(plan.missing), columns=old.columns, dtype=str)
    rows = pd.concat([old, journal.load(), missing.astype(str)], ignore_index=True)
    parents = (
        rows["record_id"].str.replace(_WINDOW, "", regex=True) if windows else rows["record_id"]
    )
    if windows:
        newest = rows.groupby([rows["dataset"], parents])["input_hash"].transform("last")
        rows = rows[rows["input_hash"] == newest]
    rows = rows.drop_duplicates(["dataset", "record_id"], keep="last")
    parents = parents[rows.index]
    current = {(task.dataset, task.record_id) for task in plan.tasks} | {
        (r.dataset, r.record_id) for r in plan.missing
    }
    named = set(rows["dataset"]) if data is None else set(data.roots)
    untouched = ~rows["dataset"].isin(list(named))
    still = pd.Series(
        [pair in current for pair in zip_cells(rows["dataset"], parents)],
        index=rows.index,
        dtype=bool,
    )
    gone = ~(untouched | still)
    if gone.any():
        logger.warning(
            "%d records of earlier runs are no longer in the sources, or beyond the "
            "limit: left out of the manifest",
            gone.sum(),
        )
    return rows[~gone].sort_values(["dataset", "record_id"], ignore_index=True)


def build_splits(
    manifest: pd.DataFrame,
    config: SplitConfig,
    previous: Mapping[str, str],
    copies: Sequence[tuple[str, ...]] = (),
) -> Splits:
    """Place the ok records of a manifest, copies of a recording together, and those in `previous`
    where it says.

    Copies that were taken out still tell which records are of one patient.
    """
    recording = {key: first for group in copies for first in [min(group)] for key in group}

    def items(rows: pd.DataFrame) -> list[SplitItem]:
        columns = (
            rows[name]
            for name in ("dataset", "record_id", "labels", "label_source", "patient_id", "fold")
        )
        return [
            SplitItem(
                key=record_key(dataset, record_id),
                labels=split_list(labels) if source == "mapping" else (),
                dataset=dataset,
                patient_id=patient or None,
                fold=int(fold) if fold else None,
                recording=recording.get(record_key(dataset, record_id), ""),
            )
            for dataset, record_id, labels, source, patient, fold in zip_cells(*columns)
        ]

    return make_splits(
        items(manifest[manifest["status"] == "ok"]),
        fractions=_fractions(config),
        seed=config.seed,
        val_folds=config.val_folds,
        test_folds=config.test_folds,
        previous=previous,
        taken_out=items(manifest[is_taken_out(manifest)]),
    )


def _fractions(config: SplitConfig) -> dict[str, float]:
    held_out = {"val": config.val_fraction, "test": config.test_fraction}
    return {**held_out, "train": 1.0 - sum(held_out.values())}


def _previous_places(path: Path, config: SplitConfig) -> dict[str, str]:
    """Return the places of an earlier run, or nothing when it had other settings."""
    if not path.exists():
        return {}
    earlier = load_splits(path)
    rule = {
        "fractions": _fractions(config),
        "val_folds": list(config.val_folds),
        "test_folds": list(config.test_folds),
    }
    if earlier.seed == config.seed and all(
        earlier.rule.get(name) == value for name, value in rule.items()
    ):
        return earlier.of_key()
    logger.warning("%s: made with other split settings, so every record is placed anew", path)
    return {}
