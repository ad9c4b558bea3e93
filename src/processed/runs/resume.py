"""What earlier runs have done: tasks to skip, rows to replace, splits to keep."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from src.config import DataConfig, PreprocessConfig, SplitConfig, config_hash
from src.labels.text_tables import zip_cells
from src.processed.duplicates import restore_copies
from src.processed.manifest import (
    CONFIG_FILE,
    INTERRUPTED,
    Journal,
    ManifestRow,
    load_manifest,
    save_manifest,
)
from src.processed.record_files import FORMAT_VERSION, record_keys
from src.processed.runs.plan import RunPlan
from src.processed.runs.staging import Stage
from src.processed.runs.tasks import WINDOW_COUNT, RecordTask, input_hash
from src.processed.splits import load_splits, split_fractions
from src.records.windows import window_name, window_parent
from src.utils import save_json

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


_STALE = {"status": "unreadable", "reason": INTERRUPTED, "split": "", "input_hash": ""}
_RETRIED = ("unreadable", "missing")  # what may have been mended since the last run


def prepare_tasks(
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
    anew = np.array(
        [
            (d, r) in redone or ((d, window_parent(r)) in redone and (d, r) not in planned)
            for d, r in zip_cells(rows["dataset"], rows["record_id"])
        ],
        bool,
    )
    return anew & (rows["status"] == "ok").to_numpy(bool)


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
    parents = rows["record_id"]
    if windows:
        names = [window_parent(name) for name in parents.tolist()]
        parents = pd.Series(names, index=rows.index, dtype=str)
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


def load_previous_places(path: Path, config: SplitConfig) -> dict[str, str]:
    """Return the places of an earlier run, or nothing when it had other settings."""
    if not path.exists():
        return {}
    earlier = load_splits(path)
    rule = {
        "fractions": split_fractions(config),
        "val_folds": list(config.val_folds),
        "test_folds": list(config.test_folds),
    }
    if earlier.seed == config.seed and all(
        earlier.rule.get(name) == value for name, value in rule.items()
    ):
        return earlier.of_key()
    logger.warning("%s: made with other split settings, so every record is placed anew", path)
    return {}
