"""Which records a split holds, their labels, and the targets that a task makes of them."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from src.config import FALLBACK_LABEL, TrainConfig
from src.labels.text_tables import split_list
from src.processed.manifest import INTERRUPTED, load_manifest, patients_of
from src.processed.record_files import record_keys, record_path
from src.processed.splits import SPLIT_NAMES
from src.utils import Float32Array, printable

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


_COLUMNS = (
    "dataset",
    "record_id",
    "patient_id",
    "labels",
    "annotated",
    "label_source",
    "split",
    "status",
    "reason",
    "signal_hash",
    "weight",
)


@dataclass(frozen=True)
class LabelledRecords:
    """The records of a split with what the manifest says of them; all fields run in parallel."""

    processed: Path
    keys: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    annotated: tuple[tuple[str, ...], ...]
    patients: tuple[str, ...]
    datasets: tuple[str, ...]
    signal_hashes: tuple[str, ...]
    weights: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.keys)

    def subset(self, keep: Iterable[int]) -> LabelledRecords:
        """Return the records at the positions `keep`."""
        keep = list(keep)
        return LabelledRecords(
            self.processed, *(tuple(getattr(self, f)[i] for i in keep) for f in PARALLEL_FIELDS)
        )

    @property
    def paths(self) -> list[Path]:
        """The record files."""
        return [record_path(self.processed, key) for key in self.keys]


PARALLEL_FIELDS = tuple(
    field.name for field in fields(LabelledRecords) if field.name != "processed"
)


def load_records(processed: str | Path, *, keep_other: bool = False) -> dict[str, LabelledRecords]:
    """Return split name -> its records, from the manifest.

    Parameters
    ----------
    processed
        The folder that preprocessing filled.
    keep_other
        Keep records whose label is the fallback ``OTHER``; an ``OTHER`` that the mapping gave is a
        class like any other.

    Raises
    ------
    ValueError
        If the folder has no manifest, no record that is ok, or a weight that is none; if
        preprocessing was interrupted in it.
    """
    processed = Path(processed)
    manifest = load_manifest(processed, _COLUMNS)
    rows = manifest[manifest["status"] == "ok"]
    if n_left := int((manifest["reason"] == INTERRUPTED).sum()):
        raise ValueError(
            f"{processed}: {n_left} records were being made anew when preprocessing was "
            "interrupted; run it again to its end first"
        )
    if not len(rows):
        raise ValueError(
            f"{processed}: no processed records here; run preprocess with --out {processed} first"
        )
    if not keep_other:
        fallback = rows["label_source"] == "fallback"
        if fallback.any():
            logger.info(
                "%d records without a label of their own are left out (keep them with "
                "--keep-other)",
                fallback.sum(),
            )
        rows = rows[~fallback]
    return {name: _records_of(processed, rows[rows["split"] == name]) for name in SPLIT_NAMES}


def _records_of(processed: Path, rows: pd.DataFrame) -> LabelledRecords:
    return LabelledRecords(
        processed=processed,
        keys=tuple(record_keys(rows)),
        labels=tuple(split_list(cell) for cell in rows["labels"]),
        annotated=tuple(split_list(cell) for cell in rows["annotated"]),
        patients=patients_of(rows),
        datasets=tuple(rows["dataset"]),
        signal_hashes=tuple(rows["signal_hash"]),
        weights=tuple(_read_weight(cell, processed) if cell else 1.0 for cell in rows["weight"]),
    )


def _read_weight(cell: str, processed: Path) -> float:
    try:
        weight = float(cell)
    except ValueError:
        weight = math.nan
    if not 0 <= weight < math.inf:
        raise ValueError(
            f"{processed / 'manifest.csv'}: weight is {printable(repr(cell))}: expected a "
            "number from 0 up; delete it and run preprocess again"
        )
    return weight


def find_classes(records: LabelledRecords) -> tuple[str, ...]:
    """Return the classes of the records in alphabetical order, the fallback last."""
    names = {label for labels in records.labels for label in labels}
    return tuple(sorted(names, key=lambda name: (name == FALLBACK_LABEL, name)))


def is_single_label(records: LabelledRecords) -> bool:
    """Tell whether every record carries exactly one label."""
    return all(len(labels) == 1 for labels in records.labels)


def encode_targets(records: LabelledRecords, classes: Sequence[str]) -> Float32Array:
    """Return targets (n_records, n_classes): 1 present, 0 absent, NaN where the source did not look
    for the class.
    """
    column = {name: i for i, name in enumerate(classes)}
    targets = np.zeros((len(records), len(classes)), np.float32)
    for row, (labels, annotated) in enumerate(zip(records.labels, records.annotated, strict=True)):
        if annotated:
            looked_for = set(annotated)
            targets[row] = [0.0 if name in looked_for else np.nan for name in classes]
        for label in labels:
            if label in column:
                targets[row, column[label]] = 1.0
    return targets


def choose_records(
    records: LabelledRecords,
    classes: Sequence[str],
    *,
    single_label: bool,
    keep_negative: bool = False,
) -> LabelledRecords:
    """Keep the records that can train or be judged: exactly one label of `classes`, or for several
    labels one at least.

    With `keep_negative`, records for several labels may carry none of them.
    """
    wanted = set(classes)
    counts = [len(wanted.intersection(labels)) for labels in records.labels]
    keep = [
        i
        for i, n in enumerate(counts)
        if n == 1 or (n > 1 and not single_label) or (n == 0 and keep_negative)
    ]
    if len(keep) < len(records):
        what = "exactly one label" if single_label else "a label"
        logger.info(
            "%d of %d records are left out: they do not carry %s of the classes",
            len(records) - len(keep),
            len(records),
            what,
        )
    return records.subset(keep)


def auxiliary_classes(train: LabelledRecords, config: TrainConfig) -> tuple[str, ...]:
    """Return the labels of the training records beside `config.classes`, if they are to be learned
    as well.
    """
    if not config.auxiliary_weight:
        return ()
    return tuple(name for name in find_classes(train) if name not in config.classes)


def choose_task(train: LabelledRecords, config: TrainConfig) -> tuple[tuple[str, ...], bool]:
    """Return the classes and whether each record carries one label, from the settings or else from
    the records.
    """
    there = find_classes(train)
    classes = config.classes or there
    unknown = [name for name in classes if name not in there]
    if unknown:
        raise ValueError(
            f"classes {', '.join(unknown)} have no training record: there are "
            f"{', '.join(there) or 'none'}"
        )
    if not classes:
        raise ValueError(
            "no training record has a label: preprocess with --mapping, or train with --keep-other"
        )
    has_others = (
        config.keep_negative or config.auxiliary_weight or classes == (FALLBACK_LABEL,)
    )  # which a trial without labels learns
    if len(classes) < 2 and not (config.target == "multi" and has_others):
        raise ValueError(
            f"only class {', '.join(classes)} is there to train on: expected two or more "
            "classes, or --target multi --keep-negative, which tells one from its absence"
        )
    single = config.target == "single" or (config.target == "auto" and is_single_label(train))
    return classes, single
