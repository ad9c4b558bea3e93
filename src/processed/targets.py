"""The labelled records of each split, the task to train for, and the targets of its classes."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from src.config import FALLBACK_LABEL, SPLIT_NAMES, TrainConfig
from src.labels.text_tables import split_list, zip_cells
from src.processed.manifest import INTERRUPTED, load_manifest, patients_of, report_patients
from src.processed.record_files import record_key, record_keys, record_path
from src.utils import Float32Array

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

# Below this share of the records, a choice that they decide is a surprise.
_FEW = 0.1

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
    """The records of a split and their rows of the manifest.

    Attributes
    ----------
    processed
        The processed folder. All other fields have one entry per record, in the same order.
    keys
        Record keys, ``<dataset>__<record_id>``.
    labels
        Labels of each record.
    annotated
        Classes that the source of each record looked for; empty means all.
    patients, datasets
        The patient and the dataset of each record.
    signal_hashes
        Fingerprints of the recordings.
    weights
        Sampling weights from the label mapping; 1 where it gives none.
    """

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
        rows = list(keep)
        columns = []
        for name in PARALLEL_FIELDS:
            values = getattr(self, name)
            columns.append(tuple(values[row] for row in rows))
        return LabelledRecords(self.processed, *columns)

    @property
    def paths(self) -> list[Path]:
        """The record files."""
        return [record_path(self.processed, key) for key in self.keys]


PARALLEL_FIELDS = tuple(
    field.name for field in fields(LabelledRecords) if field.name != "processed"
)


def join_records(parts: Sequence[LabelledRecords]) -> LabelledRecords:
    """Return the records of all parts, which are of the same processed folder, as one."""
    columns = [
        tuple(chain.from_iterable(getattr(part, name) for part in parts))
        for name in PARALLEL_FIELDS
    ]
    return LabelledRecords(parts[0].processed, *columns)


def load_records(processed: str | Path, *, keep_other: bool = False) -> dict[str, LabelledRecords]:
    """Return the records of train, val and test from the manifest.

    Parameters
    ----------
    processed
        The processed folder.
    keep_other
        Keep records whose label is the fallback ``OTHER``. An ``OTHER`` given by the label mapping
        is a class like any other and always kept.

    Returns
    -------
    dict
        Split name -> its records.

    Raises
    ------
    ValueError
        If the folder has no manifest, no record with status ok, or an invalid weight, or if
        preprocessing was interrupted in it.
    """
    processed = Path(processed)
    manifest = load_manifest(processed, _COLUMNS)
    rows = manifest[manifest["status"] == "ok"]
    if n_left := int((manifest["reason"] == INTERRUPTED).sum()):
        raise ValueError(
            f"{processed}: {n_left} records were being rewritten when preprocessing was "
            "interrupted; run preprocess again and let it finish"
        )
    if not len(rows):
        raise ValueError(
            f"{processed}: no processed records here; run preprocess with --out {processed} first"
        )
    if not keep_other:
        fallback = rows["label_source"] == "fallback"
        if fallback.any():
            left_out = rows[fallback]
            logger.info(
                "%d records have only the fallback label and are skipped (--keep-other keeps "
                "them): %s",
                fallback.sum(),
                _count_places(zip_cells(left_out["dataset"], left_out["split"])),
            )
        rows = rows[~fallback]
    return {name: _to_records(processed, rows[rows["split"] == name]) for name in SPLIT_NAMES}


def _count_places(places: Iterable[tuple[str, ...]]) -> str:
    """Return how many records are of each dataset and split, for a message."""
    counts = Counter(" ".join(part for part in place if part) for place in places)
    return ", ".join(f"{place} {count}" for place, count in sorted(counts.items()))


def _to_records(processed: Path, rows: pd.DataFrame) -> LabelledRecords:
    """Return rows of the manifest as records."""
    return LabelledRecords(
        processed=processed,
        keys=tuple(record_keys(rows)),
        labels=tuple(split_list(cell) for cell in rows["labels"]),
        annotated=tuple(split_list(cell) for cell in rows["annotated"]),
        patients=patients_of(rows),
        datasets=tuple(rows["dataset"]),
        signal_hashes=tuple(rows["signal_hash"]),
        weights=tuple(float(cell) if cell else 1.0 for cell in rows["weight"]),
    )


@dataclass(frozen=True)
class Task:
    """The classes to predict, and the kind of records that train and test them.

    Attributes
    ----------
    classes
        Names, in the order of the outputs.
    single_label
        Whether a record carries exactly one of the classes, which then exclude each other.
    auxiliary
        Further classes to train on, with outputs of their own after those of `classes`.
    keep_negative
        With several labels, keep records that carry none of the classes.
    """

    classes: tuple[str, ...]
    single_label: bool
    auxiliary: tuple[str, ...] = ()
    keep_negative: bool = False

    @property
    def outputs(self) -> tuple[str, ...]:
        """Classes of the training targets: `classes`, then `auxiliary`."""
        return self.classes + self.auxiliary

    @property
    def description(self) -> str:
        """The kind of target in words."""
        return "one label per record" if self.single_label else "several labels per record"


def find_classes(records: LabelledRecords) -> tuple[str, ...]:
    """Return the labels of the records in alphabetical order, the fallback label last."""
    names = set().union(*records.labels)
    return tuple(sorted(names, key=lambda name: (name == FALLBACK_LABEL, name)))


def is_single_label(records: LabelledRecords) -> bool:
    """Return whether every record carries exactly one label."""
    return all(len(labels) == 1 for labels in records.labels)


def encode_targets(records: LabelledRecords, classes: Sequence[str]) -> Float32Array:
    """Return the targets of records.

    Parameters
    ----------
    records
        Records with their labels.
    classes
        Names of the columns; labels outside them are ignored.

    Returns
    -------
    ndarray
        Shape (n_records, n_classes): 1 present, 0 absent, NaN where the source did not look for the
        class.
    """
    column_of = {name: column for column, name in enumerate(classes)}
    targets = np.zeros((len(records), len(classes)), np.float32)
    for row, (labels, annotated) in enumerate(zip(records.labels, records.annotated, strict=True)):
        if annotated:
            looked_for = set(annotated)
            targets[row] = [0.0 if name in looked_for else np.nan for name in classes]
        for label in labels:
            if label in column_of:
                targets[row, column_of[label]] = 1.0
    return targets


def choose_records(records: LabelledRecords, task: Task, split: str = "") -> LabelledRecords:
    """Return the records that a task can train or be evaluated on.

    With one label per record these carry exactly one of the task's classes, with several labels
    at least one of them, or none where `Task.keep_negative` is set. `split` names their split in
    the log.
    """
    classes = set(task.classes)
    fewest = 0 if task.keep_negative else 1
    most = 1 if task.single_label else len(classes)
    chosen = []
    for row, labels in enumerate(records.labels):
        if fewest <= len(classes.intersection(labels)) <= most:
            chosen.append(row)
    if len(chosen) < len(records):
        left_out = set(range(len(records))) - set(chosen)
        logger.info(
            "%d of %d records are skipped: they do not carry %s of the classes (%s)",
            len(records) - len(chosen),
            len(records),
            "exactly one" if task.single_label else "any",
            _count_places((records.datasets[row], split) for row in left_out),
        )
    return records.subset(chosen)


def choose_task(train: LabelledRecords, config: TrainConfig) -> Task:
    """Return the task that the settings ask for, completed from the training records.

    Parameters
    ----------
    train
        The training records. Their labels are the classes where the settings name none, and
        ``target="auto"`` means one label per record where each of them carries exactly one.
    config
        Classes, target, auxiliary classes and negative records.

    Raises
    ------
    ValueError
        If a class has no training record, or there are too few classes to train on.
    """
    labels = find_classes(train)
    classes = config.classes or labels
    _check_classes(classes, labels, config)
    single_label = config.target == "single"
    if config.target == "auto":
        single_label = is_single_label(train)
        _report_auto_target(train, single_label)
    auxiliary: tuple[str, ...] = ()
    if config.auxiliary_weight:
        auxiliary = tuple(name for name in labels if name not in classes)
    return Task(classes, single_label, auxiliary, config.keep_negative and not single_label)


def _report_auto_target(train: LabelledRecords, single_label: bool) -> None:
    """Log the target that was chosen; a warning where few records decided it."""
    n_other = sum(len(labels) != 1 for labels in train.labels)
    n_none = sum(not labels for labels in train.labels)
    if single_label:
        return
    is_surprising = n_other < _FEW * len(train)
    logger.log(
        logging.WARNING if is_surprising else logging.INFO,
        "the target is several labels per record, because %d of %d training records carry %s "
        "(--target auto); --target single leaves them out and predicts one label",
        n_other,
        len(train),
        "several labels or none" if n_none else "several labels",
    )


def report_known_patients(splits: Mapping[str, LabelledRecords]) -> None:
    """Log the datasets of which no patient is known, or only one."""
    cells: list[tuple[str, str, str]] = []
    for records in splits.values():
        for key, dataset, patient in zip(
            records.keys, records.datasets, records.patients, strict=True
        ):
            record_id = key.removeprefix(record_key(dataset, ""))
            # A record whose patient is not known is named by its key there.
            name = "" if patient == key else patient.removeprefix(f"{dataset}/")
            cells.append((dataset, record_id, name))
    if cells:
        report_patients(*zip(*cells, strict=True))


def report_untrained_classes(splits: Mapping[str, LabelledRecords]) -> None:
    """Log labels of validation and test that no training record carries."""
    trained = set().union(*splits["train"].labels)
    for name, records in splits.items():
        counts = Counter(label for labels in records.labels for label in labels)
        unknown = {label: n for label, n in counts.items() if label not in trained}
        if unknown:
            logger.warning(
                "%s has labels that no training record carries, so they are not trained: %s",
                name,
                ", ".join(f"{label} ({n})" for label, n in sorted(unknown.items())),
            )


def _check_classes(classes: Sequence[str], labels: Sequence[str], config: TrainConfig) -> None:
    """Raise ValueError if the training records, which carry `labels`, cannot train `classes`."""
    unknown = [name for name in classes if name not in labels]
    if unknown:
        raise ValueError(
            f"classes {', '.join(unknown)} have no training record: there are "
            f"{', '.join(labels) or 'none'}"
        )
    if not classes:
        raise ValueError(
            "no training record has a label: preprocess with --mapping, or train with --keep-other"
        )
    # One class alone needs something to tell it from: records without it, or auxiliary classes. A
    # trial run without any labels has the fallback label only and passes too.
    has_contrast = (
        config.keep_negative or config.auxiliary_weight or tuple(classes) == (FALLBACK_LABEL,)
    )
    if len(classes) < 2 and not (config.target == "multi" and has_contrast):
        raise ValueError(
            f"{', '.join(classes)} is the only class to train on: expected two or more classes, or "
            "--target multi --keep-negative to tell one class from its absence"
        )
