"""Shared parts of the builders: their request and options, finding files, and mapping rows."""

from __future__ import annotations

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from src.labels.collections.annotation import OTHER, RecordLabels
from src.labels.crosswalk import ClassSet, known_codes
from src.labels.ids import clean_id, id_key, is_nobody
from src.labels.mapping import COLUMNS
from src.labels.text_tables import LIST_SEPARATOR, join_list
from src.records.facts import parse_age, parse_sex
from src.utils import UsageError, printable, read_regular

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


_LEVELS_UP = 2  # folders above the root in which a collection's table is looked for
_SHOWN = 10  # record names in a log line
_MAX_HEADER_BYTES = 4_000_000  # as readers of recordings allow


@dataclass(frozen=True)
class LabelOptions:
    """Options that only some builders take; `Builder.options` names those of each.

    Attributes
    ----------
    rate
        ptbxl: 100 or 500 Hz; None takes the rate that is on disk, 500 if both are.
    min_likelihood
        ptbxl: 0 to 100. With 0, the default, every statement counts, as likelihood 0 means
        ungraded. Above 0, a statement needs that likelihood, so that ungraded ones, among them all
        of form and rhythm, do not count.
    unvalidated_weight
        ptbxl: training weight, 0 to 1, of records whose statements no human validated. The records
        of folds 9 and 10 are all validated.
    columns
        csv: our column -> theirs.
    table
        csv: the table, by its path or its name in the root; needed if the root holds several.
        mimic-iv-ecg: the table of phrases, with the columns phrase and class.
    separator
        csv: the text between several labels of a record.
    annotator
        annotations, mitbih, afdb: the suffix of the annotation files.
    what
        annotations: rhythm or beats; mitbih and afdb take rhythm by default.
    collection
        annotations: the known collection that it is, by default the one that the dataset is called.

    Raises
    ------
    UsageError
        If an option is out of range.
    """

    rate: int | None = None
    min_likelihood: float = 0.0
    unvalidated_weight: float = 1.0
    columns: Mapping[str, str] = field(default_factory=dict)
    table: str | Path | None = None
    separator: str = LIST_SEPARATOR
    annotator: str = "atr"
    what: str = ""
    collection: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.min_likelihood <= 100:
            raise UsageError(f"min_likelihood is {self.min_likelihood}: expected 0 to 100")
        if not 0 <= self.unvalidated_weight <= 1:
            raise UsageError(f"unvalidated_weight is {self.unvalidated_weight}: expected 0 to 1")
        if not self.separator:
            raise UsageError("separator is empty: expected the text between two labels")

    def given(self) -> list[str]:
        """Return the names of the options that differ from their default."""
        default = LabelOptions()
        names = [option.name for option in fields(self)]
        return [name for name in names if getattr(self, name) != getattr(default, name)]


@dataclass(frozen=True)
class Request:
    """The input of a builder; see `src.labels.builders.build_labels`."""

    root: Path
    dataset: str
    task: str
    classes: ClassSet | None = None
    options: LabelOptions = field(default_factory=LabelOptions)


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
    start_s: str = ""
    end_s: str = ""


# Files --------------------------------------------------------------------------------------------


def find_table(root: Path, *names: str) -> Path:
    """Return the first of `names` that is in `root`, in folders above, or right below it.

    What has the name and is no file is returned too: who reads it refuses it by its name.

    Raises
    ------
    ValueError
        If there is none.
    """
    above = [root.resolve(), *root.resolve().parents[:_LEVELS_UP]]
    below = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    for name in names:
        for folder in (root, *above, *below):
            if os.path.lexists(folder / name):
                return folder / name
    raise ValueError(
        f"{root}: no {' or '.join(names)} here, in the folders above or in those right below"
    )


def list_files(root: Path, suffixes: tuple[str, ...]) -> list[str]:
    """Return the files below `root` with one of the suffixes, relative to it, in order.

    Paths have forward slashes. Links to folders are followed; each real folder is entered once, so
    that a loop of links ends.
    """
    paths: list[str] = []
    entered: set[str] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in entered:
            subfolders.clear()
            continue
        entered.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        prefix = ""
        if folder != str(root):
            prefix = os.path.relpath(folder, root).replace(os.sep, "/") + "/"
        for name in sorted(names):
            if not name.startswith(".") and name.lower().endswith(suffixes):
                paths.append(f"{prefix}{name}")
    return paths


class StemPaths(dict[str, str]):
    """Stem of a file -> its path; two spellings of a stem are one, as for ids.

    A table may write a name in one Unicode form and the disk in another.
    """

    def __missing__(self, stem: str) -> str:
        return self.spellings[clean_id(stem)]

    def __contains__(self, stem: object) -> bool:
        return super().__contains__(stem) or clean_id(str(stem)) in self.spellings

    @cached_property
    def spellings(self) -> dict[str, str]:
        """Stem in one Unicode form, without what nobody sees -> path."""
        return {clean_id(stem): path for stem, path in reversed(self.items())}


def index_stems(root: Path, suffixes: tuple[str, ...]) -> StemPaths:
    """Return stem -> path below `root` without suffix, for files with one of the suffixes."""
    by_stem = StemPaths()
    for file in list_files(root, suffixes):
        path = os.path.splitext(file)[0]
        by_stem.setdefault(path.rsplit("/", 1)[-1], path)
    return by_stem


def read_comments(path: Path) -> tuple[str, ...]:
    """Return the comment lines of a WFDB header; its signal lines, slow to parse, are ignored."""
    content = read_regular(path, _MAX_HEADER_BYTES)
    lines = content.decode("utf-8", errors="replace").splitlines()
    return tuple(text[1:].strip() for line in lines if (text := line.strip()).startswith("#"))


def name_records(paths: Sequence[str]) -> dict[str, str]:
    """Return path -> record id: its last part, or the whole path where several end alike."""
    stems = {path: path.rsplit("/", 1)[-1] for path in paths}
    counts = Counter(map(clean_id, stems.values()))
    return {path: stem if counts[clean_id(stem)] == 1 else path for path, stem in stems.items()}


# Cells --------------------------------------------------------------------------------------------


def age_text(value: object) -> str:
    """Return an age as a mapping cell; empty if it is unknown."""
    age = parse_age(value)
    return "" if age is None else f"{age:g}"


def sex_text(value: object) -> str:
    """Return a sex as a mapping cell: F, M or empty."""
    return {"female": "F", "male": "M"}.get(parse_sex(value) or "", "")


# Rows ---------------------------------------------------------------------------------------------


def build_frame(dataset: str, rows: Sequence[Row]) -> pd.DataFrame:
    """Return mapping rows as a table, without those that have no label and no annotated class.

    If a row has the label OTHER, OTHER is annotated in all rows that list annotated classes.

    Raises
    ------
    ValueError
        If there are no rows.
    """
    import pandas as pd

    report_missing(
        dataset,
        [row.record_id for row in rows if not row.labels and not row.annotated],
        "have no label among these classes and are skipped",
    )
    rows = [row for row in rows if row.labels or row.annotated]
    if not rows:
        raise ValueError(
            f"dataset {dataset}: no record has a label among these classes; check --root, "
            "and the task or classes"
        )
    has_other = any(OTHER in row.labels for row in rows)
    cells = []
    for row in rows:
        annotated = list(row.annotated)
        if has_other and annotated and OTHER not in annotated:
            annotated.append(OTHER)
        texts = (row.patient_id, row.fold, row.path, row.age, row.sex)
        labels = join_list(row.labels)
        rest = (join_list(annotated), row.weight, row.start_s, row.end_s)
        cells.append((dataset, row.record_id, labels, *texts, *rest))
    _log_summary(dataset, rows)
    return pd.DataFrame(cells, columns=list(COLUMNS), dtype=str)


def _log_summary(dataset: str, rows: Sequence[Row]) -> None:
    counts = Counter(label for row in rows for label in row.labels)
    logger.info(
        "%s: %d rows, %d of them without a label; records per class: %s",
        dataset,
        len(rows),
        sum(not row.labels for row in rows),
        ", ".join(f"{label} {count}" for label, count in counts.most_common()),
    )


def report_missing(
    dataset: str,
    missing: Sequence[str],
    reason: str = "have no signal file below the root and are skipped",
) -> None:
    """Log how many records a builder skips, with the names of some."""
    if missing:
        names = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
        logger.warning("%s: %d records %s (%s)", dataset, len(missing), reason, names)


def log_unknown_statements(dataset: str, unknown: Counter[str]) -> None:
    """Log the statements that no phrase or acronym of a table knows, the most frequent first."""
    if unknown:
        shown = ", ".join(f"{printable(repr(text), 80)} {n}" for text, n in unknown.most_common(20))
        logger.warning(
            "%s: %d statements that no phrase knows, with their number of records: %s%s",
            dataset,
            len(unknown),
            shown,
            ", ..." if len(unknown) > 20 else "",
        )


def settle_sexes(dataset: str, rows: Sequence[Row]) -> list[Row]:
    """Return the rows, with the sex left empty for patients whose rows state both.

    Only the authors of the collection could settle it.
    """
    sexes: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if not is_nobody(row.patient_id):
            sexes[id_key(row.patient_id)].add(row.sex)
    unclear = {patient for patient, stated in sexes.items() if {"F", "M"} <= stated}
    report_missing(
        dataset,
        [row.record_id for row in rows if id_key(row.patient_id) in unclear],
        "belong to patients recorded with both sexes; their sex is left empty",
    )
    return [replace(row, sex="") if id_key(row.patient_id) in unclear else row for row in rows]


class CodeReport:
    """Counts of records by code, for codes that have no place in a label set."""

    def __init__(self, dataset: str, vocabulary: str, set_name: str) -> None:
        self.dataset = dataset
        self.vocabulary = vocabulary
        self.set_name = set_name
        self.unknown: Counter[str] = Counter()
        self.outside: Counter[str] = Counter()

    def add(self, result: RecordLabels) -> RecordLabels:
        """Count each code of a record once, and return the record."""
        self.unknown.update(set(result.unknown))
        self.outside.update(set(result.outside))
        return result

    def log(self) -> None:
        """Log every code with its count."""
        if self.outside:
            known = known_codes(self.vocabulary)
            codes = [f"{code} ({known[code].name}) {n}" for code, n in self.outside.most_common()]
            logger.info(
                "%s: codes outside %s, with their number of records: %s",
                self.dataset,
                self.set_name,
                ", ".join(codes),
            )
        if self.unknown:
            logger.warning(
                "%s: unknown %s codes, with their number of records: %s",
                self.dataset,
                self.vocabulary,
                ", ".join(f"{code} {n}" for code, n in self.unknown.most_common()),
            )
