"""Probabilities of records from any program, and the records of a processed folder they are of.

`src.learning.score_files` reads them. Labels never come with them, but from the processed folder.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from src.labels.ids import id_key
from src.learning.predictions import ROUNDING, Predictions
from src.processed.manifest import find_keys
from src.processed.record_files import key_parts
from src.processed.targets import (
    LabelledRecords,
    Task,
    choose_records,
    encode_targets,
    find_classes,
)
from src.utils import Float64Array, printable

logger = logging.getLogger(__name__)

TARGETS = ("auto", "single", "multi")

_NAMES_SHOWN = 10


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Probabilities of records, before they meet the labels of a processed folder.

    Attributes
    ----------
    keys
        Record keys, or record ids, length n_records.
    y_score
        Probabilities, shape (n_records, n_classes); a row of NaN has none.
    classes
        Class names, in the order of the columns.
    source
        Their file, for messages.
    single_label
        Whether one class is predicted per record; None where the source does not say.
    has_negative
        Whether records without any of the classes were evaluated, as our own predictions show.
    thresholds, train_hashes, out_of_fold
        As in `Predictions`; those of other programs have none.

    Raises
    ------
    ValueError
        If shapes disagree, a class is named twice, or a value is not a probability; the message
        names the source, the record and the class.
    """

    keys: tuple[str, ...]
    y_score: Float64Array
    classes: tuple[str, ...]
    source: str = "predictions"
    single_label: bool | None = None
    has_negative: bool = False
    thresholds: Float64Array | None = None
    train_hashes: tuple[str, ...] = ()
    out_of_fold: bool = False

    def __post_init__(self) -> None:
        expected = (len(self.keys), len(self.classes))
        if self.y_score.shape != expected:
            raise ValueError(
                f"{self.source}: y_score has shape {self.y_score.shape}: expected {expected}, a "
                "row per record and a column per class"
            )
        if not self.classes or len(set(self.classes)) < len(self.classes):
            raise ValueError(
                f"{self.source}: classes are {show_names(self.classes)}: expected one or more "
                "names, each once"
            )
        # NaN fails both comparisons
        is_wrong = ~((self.y_score >= -ROUNDING) & (self.y_score <= 1 + ROUNDING))
        is_wrong &= self.has_scores[:, None]
        if is_wrong.any():
            row, column = np.argwhere(is_wrong)[0].tolist()
            raise ValueError(
                f"{self.source}: record {printable(self.keys[row])}, class "
                f"{printable(self.classes[column])} is {self.y_score[row, column]:g}: expected "
                "probabilities from 0 to 1; give those, as softmax or sigmoid makes them of logits"
            )

    @property
    def has_scores(self) -> NDArray[np.bool_]:
        """Whether each record has a probability at all, shape (n_records,)."""
        return np.logical_not(np.isnan(self.y_score).all(axis=1))

    @classmethod
    def of(cls, predictions: Predictions, source: str = "predictions") -> ScoreTable:
        """Return the probabilities of predictions, and what they say beyond these."""
        has_one = (predictions.y_true == 1).any(axis=1)
        return cls(
            keys=predictions.keys,
            y_score=predictions.y_score,
            classes=predictions.classes,
            source=source,
            single_label=predictions.single_label,
            has_negative=bool((~has_one).any()),
            thresholds=predictions.thresholds,
            train_hashes=predictions.train_hashes,
            out_of_fold=predictions.out_of_fold,
        )

    def resolve(self, known: Collection[str]) -> ScoreTable:
        """Return the table with its keys as a processed folder spells them; see `resolve_keys`.

        Raises
        ------
        ValueError
            If a record id is of several datasets, or two rows are of one record.
        """
        keys = resolve_keys(self.keys, known, self.source)
        if len(set(keys)) < len(keys):
            key, count = Counter(keys).most_common(1)[0]
            rows = [row + 1 for row, name in enumerate(keys) if name == key]
            raise ValueError(
                f"{self.source}: record {printable(key)} is repeated in {count} of its records "
                f"({rows[0]} and {rows[1]}): expected each record once; give the mean of its "
                "predictions"
            )
        return dataclasses.replace(self, keys=tuple(keys))

    def choose_task(
        self, splits: Mapping[str, LabelledRecords], target: str, *, keep_negative: bool
    ) -> Task:
        """Return the task that the probabilities are evaluated on.

        Parameters
        ----------
        splits
            The records of the processed folder by split.
        target
            One of `TARGETS`. ``auto`` takes what our own predictions say; else one label per record
            if every record of the folder carries exactly one of the classes.
        keep_negative
            With several labels, evaluate records without any class; one class is always evaluated
            so.

        Raises
        ------
        ValueError
            If `target` is unknown, or there is one class for one label per record.
        """
        if target not in TARGETS:
            raise ValueError(f"target is {target!r}: expected one of {', '.join(TARGETS)}")
        is_alone = len(self.classes) == 1
        if is_alone and target == "single":
            raise ValueError(
                f"{self.source}: {printable(self.classes[0])} is its only class: expected two or "
                "more for one label per record; give --target multi"
            )
        single_label = target == "single"
        if target == "auto":
            single_label = self.single_label is True
            if self.single_label is None:
                single_label = not is_alone and _are_exclusive(splits, self.classes)
        keeps = not single_label and (keep_negative or is_alone or self.has_negative)
        return Task(self.classes, single_label, keep_negative=keeps)

    def predict(self, records: LabelledRecords, task: Task) -> Predictions:
        """Return the predictions for records that are all in the table, with their labels."""
        row_of = {key: row for row, key in enumerate(self.keys)}
        return Predictions(
            keys=records.keys,
            y_true=encode_targets(records, task.classes),
            y_score=self.y_score[[row_of[key] for key in records.keys]],
            classes=task.classes,
            single_label=task.single_label,
            thresholds=None if task.single_label else self.thresholds,
            signal_hashes=records.signal_hashes,
            train_hashes=self.train_hashes,
            out_of_fold=self.out_of_fold,
        )


def _are_exclusive(splits: Mapping[str, LabelledRecords], classes: Sequence[str]) -> bool:
    names = set(classes)
    return all(
        len(names.intersection(labels)) == 1
        for records in splits.values()
        for labels in records.labels
    )


# Records ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FoundRecords:
    """The records of a split that a table predicts.

    Attributes
    ----------
    records
        Those that it predicts.
    n_missing
        Number of those that should be evaluated and that it lacks.
    has_negative
        Whether it also predicts all records that carry none of the classes.
    """

    records: LabelledRecords
    n_missing: int
    has_negative: bool


def find_records(
    table: ScoreTable,
    records: LabelledRecords,
    task: Task,
    split: str,
    *,
    everyone: bool = False,
    allow_missing: bool = False,
) -> FoundRecords:
    """Return the records of a split that a table predicts, and refuse a table that lacks some.

    Parameters
    ----------
    table
        Its keys are those of the processed folder (`ScoreTable.resolve`).
    records
        All labelled records of the split.
    task
        Says which of them are evaluated.
    split
        Name of the split, for messages.
    everyone
        With several labels, include records without any class, if the table predicts them all.
    allow_missing
        Evaluate the others where it lacks some.

    Raises
    ------
    ValueError
        If no record carries a class, or the table lacks a record, and `allow_missing` is not set,
        or it has none of them.
    """
    predicted = {key for key, has in zip(table.keys, table.has_scores, strict=True) if has}
    wanted = choose_records(records, task, split)
    if not len(wanted):
        raise ValueError(
            f"{table.source}: none of the {len(records)} records of split {split} carries "
            f"{'exactly one' if task.single_label else 'one'} of its classes "
            f"({show_names(task.classes)})"
        )
    missing = [key for key in wanted.keys if key not in predicted]
    if missing:
        n_blank = len(set(table.keys).intersection(missing))
        lacking = (
            f"{table.source}: lacks {len(missing)} of the {len(wanted)} records of split {split} "
            f"to be evaluated, such as {printable(missing[0])}"
        )
        if n_blank:
            lacking += f" ({n_blank} of them have a row without probabilities)"
        if len(missing) == len(wanted):
            first = printable(table.keys[0]) if table.keys else "none"
            raise ValueError(
                f"{table.source}: holds none of the {len(wanted)} records of split {split} to be "
                f"evaluated or fitted on: expected keys or ids such as {printable(missing[0])}, "
                f"found first: {first}"
            )
        if not allow_missing:
            raise ValueError(
                f"{lacking}; predict them too, or give --allow-missing (allow_missing=True) to "
                "evaluate the others"
            )
        logger.warning("%s: they are left out", lacking)
    keys = set(wanted.keys)
    if not everyone or task.single_label:
        return FoundRecords(_only(wanted, predicted), len(missing), has_negative=False)
    negative = [key for key in records.keys if key not in keys]
    has_negative = predicted.issuperset(negative)
    if has_negative:
        keys.update(negative)
    elif predicted.intersection(negative):
        logger.info(
            "%s: lacks some of the %d records of split %s without a class, so these are not "
            "evaluated as well",
            table.source,
            len(negative),
            split,
        )
    return FoundRecords(_only(records, predicted & keys), len(missing), has_negative)


def _only(records: LabelledRecords, keys: Collection[str]) -> LabelledRecords:
    return records.subset(row for row, key in enumerate(records.keys) if key in keys)


def report_others(
    table: ScoreTable, evaluated: Iterable[str], split_of: Mapping[str, str], split: str
) -> None:
    """Log how many records of a table are not evaluated, and where they are.

    Parameters
    ----------
    table
        The table, with keys as the processed folder has them.
    evaluated
        Keys of the evaluated records.
    split_of
        Key -> split, of all records of the folder.
    split
        The evaluated split.
    """
    others = set(table.keys).difference(evaluated)
    unknown = sorted(others.difference(split_of))
    counts = Counter(split_of[key] or "no split" for key in others if key in split_of)
    if split in counts:
        counts[f"{split} without a class to evaluate"] = counts.pop(split)
    if counts:
        places = ", ".join(f"{place} {count}" for place, count in sorted(counts.items()))
        logger.info(
            "%s: %d of its %d records are not evaluated: %s",
            table.source,
            sum(counts.values()),
            len(table.keys),
            places,
        )
    if unknown:
        logger.warning(
            "%s: %d of its %d records are not in the processed folder and not evaluated, such as "
            "%s",
            table.source,
            len(unknown),
            len(table.keys),
            printable(unknown[0]),
        )


def resolve_keys(names: Sequence[str], known: Collection[str], source: str) -> list[str]:
    """Return record keys or record ids as the keys of a processed folder.

    A record id may be spelled as another number (``3.0`` for ``0003``), as in label mappings.

    Parameters
    ----------
    names
        Keys, or record ids without their dataset.
    known
        Keys of the folder.
    source
        Their file, for the message.

    Returns
    -------
    list of str
        A key for each name; names that the folder lacks stay as they are.

    Raises
    ------
    ValueError
        If several datasets have a record of that id.
    """
    known = set(known)
    keys = find_keys(names, known)
    if known.issuperset(keys):
        return keys
    by_id: dict[tuple[str, str], list[str]] = {}
    for key in known:
        dataset, record_id = key_parts(key)
        for place in (dataset, ""):
            by_id.setdefault((place, id_key(record_id)), []).append(key)
    return [key if key in known else _find_record(key, by_id, source) for key in keys]


def _find_record(name: str, by_id: Mapping[tuple[str, str], list[str]], source: str) -> str:
    """Return the key of a record id, or the name as it is."""
    dataset, record_id = key_parts(name)
    found = by_id.get((dataset, id_key(record_id))) if record_id else None
    if not found:
        record_id = name
        found = by_id.get(("", id_key(name)), [])
    if len(found) > 1:
        # Only one may be spelled so
        found = [key for key in found if key_parts(key)[1] == record_id] or found
    if len(found) > 1:
        first, second = sorted(found)[:2]
        raise ValueError(
            f"{source}: record {printable(name)} may be {printable(first)} or "
            f"{printable(second)}: give record keys (dataset__record_id), or a column dataset"
        )
    return found[0] if found else name


def folder_labels(splits: Mapping[str, LabelledRecords]) -> tuple[str, ...]:
    """Return the labels of the records of all splits, as `find_classes`."""
    names = [name for records in splits.values() for name in find_classes(records)]
    return tuple(dict.fromkeys(names))


def show_names(names: Sequence[str]) -> str:
    """Return the first of some names of others, for a message."""
    more = " ..." if len(names) > _NAMES_SHOWN else ""
    return printable(", ".join(names[:_NAMES_SHOWN]), 500) + more
