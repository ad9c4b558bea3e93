"""What a run will do: the records of the collections with their rows of the label table."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from src.config import FALLBACK_LABEL, DataConfig, PreprocessConfig
from src.labels import LabelRow, iter_rows
from src.matching import RecordMatch, index_folder, match_records
from src.remote import as_path, as_url, join_root
from src.store import ManifestRow, is_plain_name
from src.tensors import RecordTask, blank_row
from src.utils import UsageError, printable

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
        tasks += [_task(dataset, root, match, data) for match in matches.records]
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


def _task(dataset: str, root: str, match: RecordMatch, data: DataConfig) -> RecordTask:
    return RecordTask(
        dataset=dataset,
        record_id=match.record_id,
        path=join_root(root, match.found.relative),
        row=match.row,
        source_fs=data.source_fs.get(dataset),
        source_gain_per_mv=data.source_gain_per_mv.get(dataset),
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
