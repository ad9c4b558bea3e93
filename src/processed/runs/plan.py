"""The plan of a run: the records of the collections with their rows of the label mapping."""

from __future__ import annotations

import errno
import logging
import math
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from src.config import FALLBACK_LABEL, DataConfig, PreprocessConfig
from src.labels.beats import load_beats
from src.labels.ids import clean_id, file_key
from src.labels.intervals import WindowRule
from src.labels.mapping import LabelRow, iter_rows, load_mapping
from src.labels.matching import RecordMatch, UnreadMatch, match_folder
from src.labels.text_tables import is_plain_name
from src.processed.manifest import ManifestRow
from src.processed.runs.tasks import RecordTask, blank_row
from src.records.channels import LeadNames
from src.records.folders import PassedOver, survey_folder
from src.records.record import ReadingHints, split_part
from src.records.remote import join_root
from src.utils import UsageError, as_path, as_url, storable

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunPlan:
    """What a run finds in its collections and in the label mapping.

    Attributes
    ----------
    tasks
        Records to process.
    missing
        Manifest rows of records in the mapping that have no file.
    unread
        Manifest rows of recordings in formats that are not read, and of other files that the
        mapping names.
    passed_over
        Files of each dataset that are no records.
    """

    tasks: tuple[RecordTask, ...]
    missing: tuple[ManifestRow, ...]
    unread: tuple[ManifestRow, ...] = ()
    passed_over: Mapping[str, tuple[PassedOver, ...]] = field(default_factory=dict)


def load_labels(mapping: str | Path | None, config: PreprocessConfig) -> pd.DataFrame | None:
    """Read the label mapping of a run, which is one of beats if windows lie around beats.

    Raises
    ------
    ValueError
        If it is wrong, or there is none and windows lie around beats.
    """
    if mapping is None:
        if config.cuts_beats:
            raise UsageError("no beats are given: expected --beats CSV, to cut windows around them")
        return None
    return load_beats(mapping) if config.cuts_beats else load_mapping(mapping)


def plan_run(data: DataConfig, mapping: pd.DataFrame | None, config: PreprocessConfig) -> RunPlan:
    """Index the folders and match them with the mapping, without reading a recording.

    Raises
    ------
    ValueError
        If a folder is missing or two datasets share one.
    """
    _check_data(data)
    rows: dict[str, list[LabelRow]] = {name: [] for name in data.roots}
    if mapping is not None:
        rows_of_name = {clean_id(name): rows[name] for name in data.roots}
        for row in iter_rows(mapping):
            if row.dataset in rows_of_name:
                rows_of_name[row.dataset].append(row)
        _warn_unlabelled(rows, mapping)
        _check_points(rows, config)
    tasks: list[RecordTask] = []
    missing: list[ManifestRow] = []
    unread: list[ManifestRow] = []
    passed_over = {}
    for dataset, root in data.roots.items():
        index = survey_folder(root)
        passed_over[dataset] = index.passed_over
        matches = match_folder(rows[dataset], index)
        hints = ReadingHints(
            data.source_fs.get(dataset),
            data.source_gain_per_mv.get(dataset),
            data.leads.get(dataset, ()),
        )
        tasks += [_build_task(dataset, root, match, hints) for match in matches.records]
        for row, reason in matches.missing:
            missing.append(_missing_row(replace(row, dataset=dataset), reason, config))
        unread += [_unread_row(dataset, root, match, config) for match in matches.unread]
    return RunPlan(tuple(tasks), tuple(missing), tuple(unread), passed_over)


def _warn_unlabelled(rows: Mapping[str, Sequence[LabelRow]], mapping: pd.DataFrame) -> None:
    """Warn of collections without any row in the mapping.

    More often their name is spelled in two ways than their data are unlabelled.
    """
    labelled = sorted(set(mapping["dataset"]))
    for name in [name for name, dataset_rows in rows.items() if not dataset_rows]:
        logger.warning(
            "the label mapping has no rows of dataset %r, so all its records get %s; it has "
            "rows of %s: if these are the same recordings, write --data with that name",
            name,
            FALLBACK_LABEL,
            ", ".join(labelled[:10]) or "none",
        )


def _check_points(rows: Mapping[str, Sequence[LabelRow]], config: PreprocessConfig) -> None:
    """Refuse a rule for windows by which beats, which cover nothing, would give no label.

    Raises
    ------
    UsageError
        The message names the first beat.
    """
    takes_points = WindowRule.parse(config.window_labels, config.min_cover).takes_points
    if takes_points or config.cuts_beats:
        return
    for row in (row for dataset_rows in rows.values() for row in dataset_rows):
        for item in row.intervals:
            if item.start_s == item.end_s:
                raise UsageError(
                    f"{row.dataset}/{row.record_id}: the label {item} has no length, as that of a "
                    f"beat, and covers nothing: expected --window-labels any or 'count>=N', not "
                    f"{config.window_labels}"
                )


def _check_data(data: DataConfig) -> None:
    """Refuse wrong names, folders and rates, with all problems in one message."""
    if not data.roots:
        raise UsageError(
            "no collection is named: give --data NAME=DIR, or data.roots in the configuration"
        )
    problems = _find_name_problems(data.roots)
    problems += _find_shared_folders(data.roots)
    problems += _find_value_problems("source-fs", data.source_fs, data.roots)
    problems += _find_value_problems("source-gain", data.source_gain_per_mv, data.roots)
    problems += _find_lead_problems(data)
    if problems:
        raise UsageError("; ".join(problems))


def _find_lead_problems(data: DataConfig) -> list[str]:
    problems = []
    for name, leads in data.leads.items():
        if name not in data.roots:
            problems.append(f"--leads names {name!r}, which no --data names")
        try:
            LeadNames.parse(leads)
        except ValueError as error:
            problems.append(f"--leads {name}: {error}")
    return problems


def _find_name_problems(names: Collection[str]) -> list[str]:
    problems = [
        f"{name!r} is no plain dataset name: expected one without slashes, ':' or '__'"
        for name in names
        if not is_plain_name(name)
    ]
    folded = Counter(name.casefold() for name in names)
    alike = Counter(file_key(name) for name in names)
    for name in names:
        if folded[name.casefold()] > 1:
            problems.append(f"dataset {name!r} differs from another in case only")
        elif alike[file_key(name)] > 1:
            problems.append(f"dataset {name!r} differs from another in marks that are not seen")
    return problems


def _find_shared_folders(roots: Mapping[str, str]) -> list[str]:
    problems = []
    name_of_folder: dict[str, str] = {}
    for name, root in roots.items():
        folder = as_url(root) or os.path.realpath(as_path(root))
        other = name_of_folder.setdefault(folder, name)
        if other != name:
            problems.append(f"datasets {other!r} and {name!r} are the same folder {root}")
    return problems


def _find_value_problems(
    option: str, values: Mapping[str, float], names: Collection[str]
) -> list[str]:
    """Return the problems of values by dataset: an unknown dataset, or no positive number."""
    unknown = [
        f"--{option} names {name!r}, which no --data names" for name in values if name not in names
    ]
    wrong = [
        f"--{option} {name}={value}: expected a positive number"
        for name, value in values.items()
        if not value > 0
    ]
    return unknown + wrong


def _build_task(dataset: str, root: str, match: RecordMatch, hints: ReadingHints) -> RecordTask:
    return RecordTask(
        dataset=dataset,
        record_id=match.record_id,
        path=join_root(root, match.found.relative),
        row=match.row,
        hints=hints,
        stamp=match.found.stamp,
    )


def _unread_row(
    dataset: str, root: str, match: UnreadMatch, config: PreprocessConfig
) -> ManifestRow:
    # The path is empty, so that no file is looked up.
    task = RecordTask(dataset, match.record_id, path="", row=match.row)
    return blank_row(task, config)._replace(
        source_path=storable(join_root(root, match.file.relative)),
        status="unreadable",
        reason=match.file.unread.reason,
    )


def _missing_row(row: LabelRow, reason: str, config: PreprocessConfig) -> ManifestRow:
    # The path is empty, so that no file is looked up.
    task = RecordTask(row.dataset, row.record_id, path="", row=row)
    return blank_row(task, config)._replace(
        source_path=storable(row.path), status="missing", reason=reason
    )


def choose_evenly(tasks: Sequence[RecordTask], limit: int) -> tuple[RecordTask, ...]:
    """Return up to `limit` tasks, as evenly as possible over and within the datasets."""
    by_dataset: dict[str, list[RecordTask]] = {}
    for task in tasks:
        by_dataset.setdefault(task.dataset, []).append(task)
    chosen: list[RecordTask] = []
    # The smallest first, so that the others share what they leave.
    for i, members in enumerate(sorted(by_dataset.values(), key=len)):
        n_datasets_left = len(by_dataset) - i
        share = min(len(members), math.ceil((limit - len(chosen)) / n_datasets_left))
        chosen += [members[j * len(members) // share] for j in range(share)]
    return tuple(chosen[:limit])


class SourceFolders:
    """The local folders of the collections, to notice when one vanishes during a run.

    The run then ends, instead of listing each of its records as unreadable. For a collection at a
    URL, fetching notices.
    """

    def __init__(self, roots: Mapping[str, str]) -> None:
        self.roots = {name: str(as_path(root)) for name, root in roots.items() if not as_url(root)}
        self.identities = {name: _folder_identity(root) for name, root in self.roots.items()}

    def require(self, rows: Sequence[ManifestRow]) -> None:
        """Check the folders of the records that could not be read.

        Raises
        ------
        OSError
            If a file is gone, and its folder with it.
        """
        for row in rows:
            if row.status != "unreadable" or row.dataset not in self.roots:
                continue
            path = split_part(row.source_path)[0]
            if os.path.isfile(path):
                continue
            root = self.roots[row.dataset]
            is_replaced = _folder_identity(root) != self.identities[row.dataset]
            # The manifest escapes unprintable characters, and such a path leads nowhere.
            is_escaped = os.sep == "/" and "\\" in row.source_path
            if is_replaced or (not is_escaped and _is_empty(path.parent)):
                raise OSError(
                    errno.ENOENT,
                    "the folder is gone, or is another one now; bring it back and run the "
                    "same command again",
                    root,
                )


def _folder_identity(folder: str) -> tuple[int, int] | None:
    """Return device and inode of a folder, None where it is missing."""
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_empty(folder: Path) -> bool:
    """Return whether a folder is empty, as where a disk was unmounted, or missing."""
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return True
