"""What the builders share: their request, finding files, and rows of the mapping table."""

from __future__ import annotations

import logging
import math
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from src.labels.collections.annotation import OTHER, RecordLabels
from src.labels.crosswalk import ClassSet, known_codes
from src.labels.mapping import COLUMNS
from src.labels.text_tables import LIST_SEPARATOR
from src.records.facts import parse_age, parse_sex

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


_LEVELS_UP = 2
_SHOWN = 10


@dataclass(frozen=True)
class Request:
    """What a builder is asked for; see `src.label_builders.build_labels`."""

    root: Path
    dataset: str
    task: str
    classes: ClassSet | None = None
    rate: int | None = None
    min_likelihood: float = 0.0
    unvalidated_weight: float = 1.0
    columns: Mapping[str, str] = field(default_factory=dict)
    table: Path | None = None
    separator: str = LIST_SEPARATOR


@dataclass
class Row:
    """One row of the mapping table before it is written."""

    record_id: str
    labels: Sequence[str]
    annotated: Sequence[str] = ()
    patient_id: str = ""
    fold: str = ""
    path: str = ""
    age: str = ""
    sex: str = ""
    weight: str = ""


def find_table(root: Path, *names: str) -> Path:
    """Return the file of the first of `names` that is in `root`, in the folders above it, or in
    those right below it.

    Raises
    ------
    ValueError
        If there is none.
    """
    above = [root.resolve(), *root.resolve().parents[:_LEVELS_UP]]
    below = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    for name in names:
        for folder in (root, *above, *below):
            if (folder / name).is_file():
                return folder / name
    raise ValueError(
        f"{root}: no {' or '.join(names)} here, in the folders above or in those right below"
    )


def list_files(root: Path, suffixes: tuple[str, ...]) -> list[str]:
    """Return the files below `root` with one of the suffixes, in order, relative to it and with
    forward slashes.

    Links to folders are followed, each real folder once, so that a loop of links ends.
    """
    found: list[str] = []
    seen: set[str] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        prefix = (
            "" if folder == str(root) else os.path.relpath(folder, root).replace(os.sep, "/") + "/"
        )
        found += [
            f"{prefix}{name}"
            for name in sorted(names)
            if not name.startswith(".") and name.lower().endswith(suffixes)
        ]
    return found


def index_stems(root: Path, suffixes: tuple[str, ...]) -> dict[str, str]:
    """Return stem -> path relative to `root` without suffix, of the files with one of the
    suffixes.
    """
    found: dict[str, str] = {}
    for path in list_files(root, suffixes):
        whole = os.path.splitext(path)[0]
        found.setdefault(whole.rsplit("/", 1)[-1], whole)
    return found


def age_text(value: object) -> str:
    """Return an age as a mapping cell, empty when it is unknown."""
    age = parse_age(value)
    return "" if age is None else f"{age:g}"


def sex_text(value: object) -> str:
    """Return a sex as a mapping cell: F, M or empty."""
    return {"female": "F", "male": "M"}.get(parse_sex(value) or "", "")


def id_text(value: str) -> str:
    """Return an identifier without the ``.0`` that a table of floats gives it."""
    try:
        number = float(value)
    except ValueError:
        return value
    return (
        str(int(number))
        if math.isfinite(number) and number == int(number) and "." in value
        else value
    )


def build_frame(dataset: str, rows: Sequence[Row]) -> pd.DataFrame:
    """Return the rows that say something as a mapping table; where one has the label OTHER, OTHER
    is annotated throughout.

    Raises
    ------
    ValueError
        If there are no rows.
    """
    import pandas as pd

    report_missing(
        dataset,
        [row.record_id for row in rows if not row.labels and not row.annotated],
        "say nothing of these classes and are left out",
    )
    rows = [row for row in rows if row.labels or row.annotated]
    if not rows:
        raise ValueError(
            f"dataset {dataset}: no record says anything of these classes; check --root, "
            "and the task or classes"
        )
    other = any(OTHER in row.labels for row in rows)
    cells = []
    for row in rows:
        annotated = (
            [*row.annotated, OTHER]
            if other and row.annotated and OTHER not in row.annotated
            else row.annotated
        )
        texts = (row.patient_id, row.fold, row.path, row.age, row.sex)
        cells.append(
            (
                dataset,
                row.record_id,
                LIST_SEPARATOR.join(row.labels),
                *texts,
                LIST_SEPARATOR.join(annotated),
                row.weight,
            )
        )
    counts = Counter(label for row in rows for label in row.labels)
    empty = sum(not row.labels for row in rows)
    summary = ", ".join(f"{label} {count}" for label, count in counts.most_common())
    logger.info(
        "%s: %d rows, %d of them without a label; records per class: %s",
        dataset,
        len(rows),
        empty,
        summary,
    )
    return pd.DataFrame(cells, columns=list(COLUMNS), dtype=str)


def report_missing(
    dataset: str,
    missing: Sequence[str],
    what: str = "without a signal file below the root are left out",
) -> None:
    """Log how many records are left out, with some of their names."""
    if missing:
        names = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
        logger.warning("%s: %d records %s (%s)", dataset, len(missing), what, names)


def settle_sexes(dataset: str, rows: Sequence[Row]) -> list[Row]:
    """Return the rows with the sex left empty for patients who have both, which only the
    collection's makers could settle.
    """
    sexes: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        sexes[row.patient_id].add(row.sex)
    torn = {patient for patient, found in sexes.items() if patient and {"F", "M"} <= found}
    report_missing(
        dataset,
        [row.record_id for row in rows if row.patient_id in torn],
        "belong to patients of two sexes; theirs is left empty",
    )
    return [replace(row, sex="") if row.patient_id in torn else row for row in rows]


class CodeReport:
    """Counts of the codes that have no place in a label set, by record."""

    def __init__(self, dataset: str, vocabulary: str, set_name: str) -> None:
        self.dataset, self.vocabulary, self.set_name = dataset, vocabulary, set_name
        self.unknown: Counter[str] = Counter()
        self.outside: Counter[str] = Counter()

    def add(self, result: RecordLabels) -> RecordLabels:
        """Count a record's codes once each, and hand the record back."""
        self.unknown.update(set(result.unknown))
        self.outside.update(set(result.outside))
        return result

    def log(self) -> None:
        """Log every code with its count."""
        if self.outside:
            known = known_codes(self.vocabulary)
            listed = ", ".join(
                f"{code} ({known[code].name}) {n}" for code, n in self.outside.most_common()
            )
            logger.info(
                "%s: codes outside %s, with their records: %s", self.dataset, self.set_name, listed
            )
        if self.unknown:
            listed = ", ".join(f"{code} {n}" for code, n in self.unknown.most_common())
            logger.warning(
                "%s: unknown %s codes, with their records: %s",
                self.dataset,
                self.vocabulary,
                listed,
            )
