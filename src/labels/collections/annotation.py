"""Sources of recordings and the classes that each looked for.

A class that a source never annotates is unknown in its records, not absent.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from src.labels.crosswalk import TABLES, ClassSet, CrosswalkError, known_codes, translate
from src.labels.text_tables import read_table, split_list

OTHER = "OTHER"
_COLUMNS = ("source", "prefix", "first", "last", "vocabulary", "codes", "superclasses")


@dataclass(frozen=True)
class Source:
    """A source of recordings, with the codes that it can give.

    Attributes
    ----------
    name
        As in ``src/labels/tables/sources.csv``.
    vocabulary
        The vocabulary of its codes.
    codes
        The codes that it used at least once.
    superclasses
        The PTB-XL superclasses that it looked for so widely that silence means absence; with NORM,
        a record with nothing but a sinus rhythm counts as normal.
    prefix, first, last
        Letters before the number of its record names, and the numbers that are its own.
    """

    name: str
    vocabulary: str
    codes: tuple[str, ...]
    superclasses: tuple[str, ...] = ()
    prefix: str = ""
    first: int = 0
    last: int = 10**9


@dataclass(frozen=True)
class RecordLabels:
    """Labels and annotated classes of one record, and its codes that have no place in the set."""

    labels: tuple[str, ...]
    annotated: tuple[str, ...]
    unknown: Counter[str] = field(default_factory=Counter)
    outside: Counter[str] = field(default_factory=Counter)


@lru_cache(maxsize=1)
def load_sources() -> dict[str, Source]:
    """Return the sources by name.

    Raises
    ------
    CrosswalkError
        If a code of the table is unknown; lists every problem.
    """
    path = TABLES / "sources.csv"
    sources: dict[str, Source] = {}
    problems = []
    table = read_table(path, _COLUMNS)
    for number, row in zip(table.numbers, table.rows, strict=True):
        known = known_codes(row["vocabulary"])
        codes = tuple(known) if row["codes"] == "*" else split_list(row["codes"])
        for code in codes:
            if code not in known:
                problems.append(
                    f"row {number}, column codes, value {code!r}: is not in the crosswalk"
                )
        sources[row["source"]] = Source(
            name=row["source"],
            vocabulary=row["vocabulary"],
            codes=codes,
            superclasses=split_list(row["superclasses"]),
            prefix=row["prefix"],
            first=int(row["first"] or 0),
            last=int(row["last"] or 10**9),
        )
    if problems:
        raise CrosswalkError(path, problems)
    return sources


def find_source(record_name: str) -> Source | None:
    """Return the source of a record of the Challenges 2020 and 2021, by its name, or None."""
    match = re.fullmatch(r"([A-Z]+)(\d{1,18})", record_name)
    if match is None:
        return None
    number = int(match[2])
    for source in load_sources().values():
        if source.prefix == match[1] and source.first <= number <= source.last:
            return source
    return None


def label_record(codes: Sequence[str], source: Source, classes: ClassSet) -> RecordLabels:
    """Translate the codes of a record, and list the classes known to be present or absent.

    A record without a label in the set gets ``OTHER``. Among the superclasses only a record of
    unknown codes gets it: a record without a superclass has none of those that its source looks
    for, and if the source looks for none, nothing is known about the record.
    """
    result = translate(codes, source.vocabulary, classes)
    labels = result.labels
    if classes.by_superclass:
        labels, annotated = _superclasses(codes, labels, source, classes, bool(result.unknown))
    else:
        looked_for = {*classes.annotated(source.vocabulary, source.codes), *labels}
        annotated = tuple(name for name in classes.classes if name in looked_for)
    nothing_known = bool(result.unknown) and len(result.unknown) == len(set(codes))
    if not labels and (nothing_known or not classes.by_superclass):
        labels = (OTHER,)
        annotated = (*annotated, OTHER)
    return RecordLabels(labels, annotated, result.unknown, result.outside)


def _superclasses(
    codes: Sequence[str],
    labels: tuple[str, ...],
    source: Source,
    classes: ClassSet,
    has_unknown_codes: bool,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the superclasses of a record, and those known to be present or absent.

    NORM excludes the others, and another excludes NORM. A finding that belongs to no superclass
    leaves NORM open. A finding that may belong to one leaves that one open. An unknown code leaves
    every superclass open that is not present.
    """
    keys = [(source.vocabulary, code) for code in codes]
    meanings = [classes.meanings[key] for key in keys if key in classes.meanings]
    if "NORM" in labels:
        # NORM that only follows from a sinus rhythm counts where the source looked for all else.
        is_stated = any("NORM" in meaning.labels for meaning in meanings)
        if is_stated or "NORM" in source.superclasses:
            return labels, classes.classes
        return (), ()
    known = set() if has_unknown_codes else set(source.superclasses) - {"NORM"}
    for meaning in meanings:
        known -= set(meaning.possible)
    if labels:
        known |= {*labels, "NORM"}
    return labels, tuple(name for name in classes.classes if name in known)
