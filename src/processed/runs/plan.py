"""What a run will do: the records of the collections with their rows of the label table."""

from __future__ import annotations

import errno
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from src.config import FALLBACK_LABEL, DataConfig, PreprocessConfig
from src.labels.mapping import LabelRow, iter_rows
from src.labels.matching import RecordMatch, match_records
from src.labels.text_tables import is_plain_name
from src.processed.manifest import ManifestRow
from src.processed.runs.tasks import RecordTask, blank_row
from src.records.folders import index_folder
from src.records.record import ReadingHints, split_part
from src.records.remote import join_root
from src.utils import UsageError, as_path, as_url, printable

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunPlan:
    """What a run will do: records to process, and rows of the mapping that have no file."""

    tasks: tuple[RecordTask, ...]
    missing: tuple[ManifestRow, ...]


def plan_run(data: DataConfig, mapping: pd.DataFrame | None, config: PreprocessConfig) -> RunPlan:
    """Index the folders and match them with the mapping; reads no recording.

    Raises
    ------
    ValueError
        If a folder is missing or two datasets share one.
    """
    _check_roots(data)
    rows: dict[str, list[LabelRow]] = {name: [] for name in data.roots}
    for row in iter_rows(mapping) if mapping is not None else ():
        if row.dataset in rows:
            rows[row.dataset].append(row)
    if mapping is not None:
        _report_unlabelled(rows, mapping)
    tasks: list[RecordTask] = []
    missing: list[ManifestRow] = []
    for dataset, root in data.roots.items():
        matches = match_records(rows[dataset], index_folder(root))
        hints = ReadingHints(data.source_fs.get(dataset), data.source_gain_per_mv.get(dataset))
        tasks += [_task(dataset, root, match, hints) for match in matches.records]
        missing += [_missing_row(row, reason, config) for row, reason in matches.missing]
    return RunPlan(tuple(tasks), tuple(missing))


def _report_unlabelled(rows: Mapping[str, Sequence[LabelRow]], mapping: pd.DataFrame) -> None:
    """Log collections of which the mapping has no row at all: more often a name that was written in
    two ways than unlabelled data.
    """
    held = sorted(set(mapping["dataset"]))
    for name in [name for name, found in rows.items() if not found]:
        logger.warning(
            "the label mapping has no rows of dataset %r, so all its records get %s; it has "
            "rows of %s: if these are the same "
            "recordings, write --data with that name",
            name,
            FALLBACK_LABEL,
            ", ".join(held[:10]) or "none",
        )


def _check_roots(data: DataConfig) -> None:
    if not data.roots:
        raise UsageError(
            "no collection is named: give --data NAME=DIR, or data.roots in the configuration"
        )
    problems = [
        f"{name!r} is no plain dataset name: expected one without slashes, ':' or '__'"
        for name in data.roots
        if not is_plain_name(name)
    ]
    folded = Counter(name.casefold() for name in data.roots)
    problems += [
        f"dataset {name!r} differs from another in case only"
        for name in data.roots
        if folded[name.casefold()] > 1
    ]
    real: dict[str, str] = {}
    for name, root in data.roots.items():
        other = real.setdefault(as_url(root) or os.path.realpath(as_path(root)), name)
        if other != name:
            problems.append(f"datasets {other!r} and {name!r} are the same folder {root}")
    for setting, values in (
        ("source-fs", data.source_fs),
        ("source-gain", data.source_gain_per_mv),
    ):
        problems += [
            f"--{setting} names {n!r}, which no --data names" for n in values if n not in data.roots
        ]
        problems += [
            f"--{setting} {n}={v}: expected a positive number"
            for n, v in values.items()
            if not v > 0
        ]
    if problems:
        raise UsageError("; ".join(problems))


def _task(dataset: str, root: str, match: RecordMatch, hints: ReadingHints) -> RecordTask:
    return RecordTask(
        dataset=dataset,
        record_id=match.record_id,
        path=join_root(root, match.found.relative),
        row=match.row,
        hints=hints,
        stamp=match.found.stamp,
    )


def _missing_row(row: LabelRow, reason: str, config: PreprocessConfig) -> ManifestRow:
    blank = blank_row(
        RecordTask(row.dataset, row.record_id, "", row), config
    )  # its path leads nowhere, so nothing is looked up
    return blank._replace(source_path=printable(row.path), status="missing", reason=reason)


def spread(tasks: Sequence[RecordTask], limit: int) -> tuple[RecordTask, ...]:
    """Return `limit` tasks, as evenly as can be from each dataset and from its beginning to its
    end.
    """
    by_dataset: dict[str, list[RecordTask]] = {}
    for task in tasks:
        by_dataset.setdefault(task.dataset, []).append(task)
    chosen: list[RecordTask] = []
    for left, members in zip(
        range(len(by_dataset), 0, -1), sorted(by_dataset.values(), key=len), strict=True
    ):
        share = min(len(members), -(-(limit - len(chosen)) // left))
        chosen += [members[i * len(members) // share] for i in range(share)]
    return tuple(chosen[:limit])


class SourceFolders:
    """The folders of the collections, so that one that vanishes ends the run instead of each of its
    records.

    Behind a URL it is the fetching that notices.
    """

    def __init__(self, roots: Mapping[str, str]) -> None:
        self.roots = {name: str(as_path(root)) for name, root in roots.items() if not as_url(root)}
        self.places = {name: _place(root) for name, root in self.roots.items()}

    def require(self, rows: Sequence[ManifestRow]) -> None:
        """Look at the folders of the records that could not be read.

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
            escaped = (
                os.sep == "/" and "\\" in row.source_path
            )  # what cannot be printed was escaped, so the path leads nowhere
            if _place(root) != self.places[row.dataset] or (not escaped and _is_empty(path.parent)):
                raise OSError(
                    errno.ENOENT,
                    "the folder is gone, or is another one now; bring it back and run the "
                    "same command again",
                    root,
                )


def _place(folder: str) -> tuple[int, int] | None:
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_empty(folder: Path) -> bool:
    """Tell whether nothing is in a folder, as where a mount was removed, or the folder is not
    there.
    """
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return True
