"""Resuming a run: tasks that earlier runs have done, rows to replace, splits to keep."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.config import DataConfig, PreprocessConfig, SplitConfig, config_hash
from src.labels.ids import file_key
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
from src.processed.record_files import (
    FORMAT_VERSION,
    earlier_keys,
    record_keys,
    rename_earlier_files,
)
from src.processed.runs.plan import RunPlan
from src.processed.runs.staging import Stage
from src.processed.runs.tasks import WINDOW_COUNT, RecordTask, input_hash
from src.processed.splits import load_splits, split_fractions
from src.records.windows import window_name, window_parent
from src.utils import save_json, stable_hash

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

# Cells that replace those of an ok row whose record file a run will rewrite.
_INTERRUPTED_CELLS = {
    "status": "unreadable",
    "reason": INTERRUPTED,
    "split": "",
    "input_hash": "",
}
# Statuses of records that are tried again, since their files may have been repaired.
_RETRIED = ("unreadable", "missing")


class _EarlierResult(NamedTuple):
    """Input hash and status in the manifest row of an earlier run."""

    input_hash: str
    status: str


def prepare_tasks(
    stage: Stage, plan: RunPlan, data: DataConfig, config: PreprocessConfig, extend: bool
) -> list[RecordTask]:
    """Return the tasks that earlier runs have not done.

    Rows of record files that this run will rewrite are marked as interrupted first, in manifest and
    journal. A run that is killed thus never leaves an ok row for a record file with other settings
    or labels.

    Raises
    ------
    ValueError
        If the folder holds records of other datasets that were made with other settings.
    """
    processed = stage.folder
    journal = Journal(processed)
    manifest = load_manifest(processed)
    journalled = journal.load()
    rows = _join_earlier_rows(manifest, journalled)
    rename_earlier_files(processed, record_keys(rows))
    if extend:
        _require_other_names(processed, rows, data)
        _require_same_settings(processed, rows, data, config)
    earlier = {
        key: _EarlierResult(digest, status)
        for key, digest, status in zip_cells(record_keys(rows), rows["input_hash"], rows["status"])
    }
    waiting = [task for task in plan.tasks if not _is_done(task, earlier, stage, config)]

    planned = {(task.dataset, task.record_id) for task in plan.tasks}
    redone = {(task.dataset, task.record_id) for task in waiting}
    if (rewritten := _find_rewritten(journalled, redone, planned)).any():
        changed = journalled[rewritten].assign(**_INTERRUPTED_CELLS)
        journal.append(ManifestRow(*row) for row in changed.to_numpy().tolist())
    if (rewritten := _find_rewritten(manifest, redone, planned)).any():
        manifest.loc[rewritten, list(_INTERRUPTED_CELLS)] = list(_INTERRUPTED_CELLS.values())
        save_manifest(manifest, processed)
    save_json(config, processed / CONFIG_FILE)
    if rewritten.any():
        stage.push()
    return waiting


def _join_earlier_rows(manifest: pd.DataFrame, journalled: pd.DataFrame) -> pd.DataFrame:
    """Return the newest row of each record in manifest and journal."""
    import pandas as pd

    rows = pd.concat([restore_copies(manifest), journalled], ignore_index=True)
    return rows.drop_duplicates(["dataset", "record_id"], keep="last")


def _require_other_names(processed: Path, rows: pd.DataFrame, data: DataConfig) -> None:
    """Refuse a dataset whose files might be taken for those of one that the folder holds."""
    names = {file_key(name): name for name in rows["dataset"].unique()}
    for name in data.roots:
        other = names.get(file_key(name), name)
        if other != name:
            raise ValueError(
                f"{processed}: holds a dataset {other!a}, from which {name!a} differs in case or "
                "in marks that are not seen: use that name, or choose another folder"
            )


def _require_same_settings(
    processed: Path, rows: pd.DataFrame, data: DataConfig, config: PreprocessConfig
) -> None:
    """Refuse to mix settings in one folder: rows of other datasets must have those of this run."""
    others = rows[~rows["dataset"].isin(list(data.roots)) & (rows["status"] == "ok")]
    different = others[others["config_hash"] != config_hash(config, FORMAT_VERSION)]
    if len(different):
        names = ", ".join(sorted(set(different["dataset"])))
        raise ValueError(
            f"{processed}: holds records of {names} made with other settings; name these "
            "datasets too, or choose another folder"
        )


def _find_rewritten(
    rows: pd.DataFrame, redone: Collection[tuple[str, str]], planned: Collection[tuple[str, str]]
) -> NDArray[np.bool_]:
    """Return a mask of ok rows whose record file this run rewrites.

    These are the rows of the records `redone` and of their windows. A record that is `planned`
    under the name of a window is no window.
    """
    is_rewritten = []
    for dataset, record_id in zip_cells(rows["dataset"], rows["record_id"]):
        key, parent = (dataset, record_id), (dataset, window_parent(record_id))
        is_rewritten.append(key in redone or (parent in redone and key not in planned))
    return np.array(is_rewritten, bool) & (rows["status"] == "ok").to_numpy(bool)


def _is_done(
    task: RecordTask,
    earlier: Mapping[str, _EarlierResult],
    stage: Stage,
    config: PreprocessConfig,
) -> bool:
    """Return whether an earlier run processed the same input, and its record files are there."""
    attempts = [[task.key]]
    if config.cuts_windows:
        attempts.append(_list_earlier_windows(task, earlier))
    # Hashing looks at the source files, so records without a usable row are left out first.
    attempts = [keys for keys in attempts if keys and all(_is_final(earlier, key) for key in keys)]
    if not attempts:
        return False
    digest = input_hash(task, config)
    return any(
        all(_is_current(earlier[key], digest) for key in keys)
        and all(earlier[key].status != "ok" or stage.holds(key) for key in keys)
        for keys in attempts
    )


def _list_earlier_windows(task: RecordTask, earlier: Mapping[str, _EarlierResult]) -> list[str]:
    """Return the keys of all windows that an earlier run cut a record into."""
    first = earlier.get(window_name(task.key, 0))
    if first is None:
        return []
    count = first.input_hash.partition(WINDOW_COUNT)[2]
    # A damaged hash is that of other windows.
    n_windows = int(count) if re.fullmatch(r"[0-9]{1,9}", count) else 0
    return [window_name(task.key, index) for index in range(n_windows)]


def _is_final(earlier: Mapping[str, _EarlierResult], key: str) -> bool:
    return key in earlier and earlier[key].status not in _RETRIED


def _is_current(result: _EarlierResult, digest: str) -> bool:
    return result.input_hash.partition(WINDOW_COUNT)[0] == digest


def merge_manifest(
    processed: Path, plan: RunPlan, data: DataConfig | None, journal: Journal, windows: bool = False
) -> pd.DataFrame:
    """Return the manifest after a run.

    Parameters
    ----------
    processed
        Folder with the manifest of earlier runs.
    plan
        The records of this run; the newest row of each is kept.
    data
        The collections of this run; rows of other datasets are kept. None drops them.
    journal
        The rows of this run.
    windows
        Whether records are cut into windows. A record then has a row per window, and only those of
        its newest input are kept.
    """
    import pandas as pd

    old = restore_copies(load_manifest(processed))
    datasets = set(old["dataset"]) if data is None else set(data.roots)
    # Rows without a file come from the plan of each run.
    old = old[~((old["status"] == "missing") & old["dataset"].isin(list(datasets)))]
    rows = pd.concat([old, journal.load()], ignore_index=True)
    # So do rows of files that are not read.
    unread = {(row.dataset, row.record_id) for row in plan.unread}
    keys = zip_cells(rows["dataset"], rows["record_id"])
    rows = rows[np.array([key not in unread for key in keys], bool)]
    planned = {(task.dataset, task.record_id) for task in plan.tasks}
    parents = rows["record_id"]
    if windows:
        names = []
        for dataset, name in zip_cells(rows["dataset"], rows["record_id"]):
            # A record that is planned under the name of a window is no window.
            names.append(name if (dataset, name) in planned else window_parent(name))
        parents = pd.Series(names, index=rows.index, dtype=str)
        newest = rows.groupby([rows["dataset"], parents])["input_hash"].transform("last")
        rows = rows[rows["input_hash"] == newest]
    rows = rows.drop_duplicates(["dataset", "record_id"], keep="last")
    parents = parents[rows.index]

    # Drop records that are neither in this run nor of a dataset that it leaves alone.
    in_run = pd.Series(
        [pair in planned for pair in zip_cells(rows["dataset"], parents)],
        index=rows.index,
        dtype=bool,
    )
    if data is None:
        datasets = set(rows["dataset"])
    untouched = ~rows["dataset"].isin(list(datasets))
    gone = ~(untouched | in_run)
    if gone.any():
        logger.warning(
            "%d records of earlier runs are no longer in the sources, or beyond the "
            "limit: left out of the manifest",
            gone.sum(),
        )
    rows = pd.concat([rows[~gone], _missing_rows(plan, rows[~gone])], ignore_index=True)
    return rows.sort_values(["dataset", "record_id"], ignore_index=True)


def _missing_rows(plan: RunPlan, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the label mapping that have no record.

    Where a record or a window has the id of such a row too, the row's id ends in a hash, so that
    both are listed.
    """
    import pandas as pd

    taken = set(zip_cells(rows["dataset"], rows["record_id"]))
    missing = []
    for row in (*plan.missing, *plan.unread):
        if (row.dataset, row.record_id) in taken:
            digest = stable_hash((row.record_id, row.source_path), 6)
            row = row._replace(record_id=f"{row.record_id}~{digest}")
        missing.append(row)
    return pd.DataFrame(missing, columns=rows.columns, dtype=str).astype(str)


class PlacedRecords(NamedTuple):
    """Record key -> split of an earlier run, and the keys that had no label then."""

    splits: dict[str, str]
    provisional: frozenset[str]


def load_placed_records(processed: Path, config: SplitConfig) -> PlacedRecords:
    """Return where an earlier run placed the records of a folder."""
    splits = load_previous_splits(processed / "splits.json", config)
    if not splits:
        return PlacedRecords({}, frozenset())
    rows = load_manifest(
        processed, ("dataset", "record_id", "label_source", "fold", "split", "status")
    )
    keys = record_keys(rows)
    _rename_keys(splits, keys)
    journal = Journal(processed)
    if journal.path.exists():
        # A run that ended between its manifest and its splits file: the manifest is the newer one.
        unfinished = set(record_keys(journal.load()))
        for key, split in zip_cells(keys, rows["split"]):
            if split and key in unfinished:
                splits[key] = split
    return PlacedRecords(splits, frozenset(keys[rows["label_source"] == "fallback"]))


def _rename_keys(splits: dict[str, str], keys: Iterable[str]) -> None:
    """Replace keys that an earlier version gave to records by those of today."""
    known = set(keys)
    for key, earlier in earlier_keys(known).items():
        if earlier in splits:
            splits.setdefault(key, splits[earlier])
            if earlier not in known:
                del splits[earlier]


def load_previous_splits(path: Path, config: SplitConfig) -> dict[str, str]:
    """Return record key -> split of an earlier run; empty if it had other split settings."""
    if not path.exists():
        return {}
    if config.restratify:
        logger.warning("%s: all records are placed again, as --restratify asks", path)
        return {}
    earlier = load_splits(path)
    rule = {
        "fractions": split_fractions(config),
        "val_folds": list(config.val_folds),
        "test_folds": list(config.test_folds),
    }
    same_rule = all(earlier.rule.get(name) == value for name, value in rule.items())
    if same_rule and earlier.seed == config.seed:
        return earlier.of_key()
    logger.warning("%s: made with other split settings, so all records are split again", path)
    return {}
