"""One vocabulary for all collections: the crosswalk table, label sets, and translation of codes.

The table is ``src/labels/tables/crosswalk.csv``, a row per diagnosis with its SCP-ECG, SNOMED CT
and AHA codes. ``docs/crosswalk.md`` explains how to read it, its sources and its decisions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from src.labels.text_tables import read_table, split_list
from src.utils import printable, printable_lines

TABLES = Path(__file__).resolve().parent / "tables"
VOCABULARIES = ("scp", "snomed", "aha", "cpsc2018", "challenge2017")
_UNAMBIGUOUS = ("scp", "snomed")  # vocabularies whose codes need no prefix
OWN_NAMES = "csv"
"""The vocabulary of a user's own label names: class names, SCP-ECG and SNOMED CT codes, mixed."""
SUPERCLASSES = ("NORM", "MI", "STTC", "CD", "HYP")
BEATS, RHYTHMS = "beat", "rhythm"
"""Vocabularies of annotations in time, which the crosswalk does not translate: symbols of beats
such as ``V``, and rhythms such as ``AFIB``.
"""
SET_NAMES = ("ptbxl_superclass", "challenge2021", "crosswalk", "aami")

_PROBLEMS_SHOWN = 20


class CrosswalkError(ValueError):
    """A code table with problems; the message lists their row (header: row 1), column and value."""

    def __init__(self, path: str | Path, problems: list[str]) -> None:
        noun = "problem" if len(problems) == 1 else "problems"
        shown = problems[:_PROBLEMS_SHOWN]
        if len(problems) > len(shown):
            shown = [*shown, f"... and {len(problems) - len(shown)} more"]
        super().__init__(
            printable_lines(f"{path}: {len(problems)} {noun} in the code table")
            + "".join(f"\n  {printable(problem, 1000)}" for problem in shown)
        )
        self.problems = problems


@dataclass(frozen=True)
class Diagnosis:
    """One row of the crosswalk.

    Attributes
    ----------
    name
        The class name.
    title
        The diagnosis in words.
    superclasses
        PTB-XL superclasses it belongs to.
    possible
        Superclasses it may or may not belong to, written ``CD?`` in the table.
    alone
        Further classes of a record that has this diagnosis and no other.
    codes
        Vocabulary -> its codes.
    scored
        The SNOMED CT codes that the score of the Challenge 2021 counts.
    """

    name: str
    title: str
    superclasses: tuple[str, ...]
    possible: tuple[str, ...]
    alone: tuple[str, ...]
    codes: Mapping[str, tuple[str, ...]]
    scored: tuple[str, ...]


@dataclass(frozen=True)
class Meaning:
    """The meaning of a code in a label set.

    Attributes
    ----------
    labels
        Labels that it gives.
    possible
        Labels that it leaves open.
    alone
        Labels that it gives if it is the only code of a record.
    """

    labels: tuple[str, ...] = ()
    possible: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClassSet:
    """A label set: its classes in order, and the meaning of each (vocabulary, code) in it.

    With `by_superclass`, a code of the set may mean no class at all, and a normal ECG excludes the
    other classes.
    """

    name: str
    classes: tuple[str, ...]
    meanings: Mapping[tuple[str, str], Meaning]
    by_superclass: bool = False

    def annotated(self, vocabulary: str, codes: Iterable[str]) -> tuple[str, ...]:
        """Return the classes, in their order, that a source using these codes can give."""
        labels: set[str] = set()
        for code in codes:
            if meaning := self.meanings.get((vocabulary, code)):
                labels.update(meaning.labels)
        return tuple(name for name in self.classes if name in labels)


@dataclass(frozen=True)
class Translation:
    """The labels of a record in a set, and counts of its codes that have no place in it.

    `unknown` codes are in no row of the crosswalk (or of the user's table). `outside` codes are,
    but the set excludes them.
    """

    labels: tuple[str, ...]
    unknown: Counter[str] = field(default_factory=Counter)
    outside: Counter[str] = field(default_factory=Counter)


# The table ----------------------------------------------------------------------------------------


def load_crosswalk(path: str | Path | None = None) -> tuple[Diagnosis, ...]:
    """Read and validate a crosswalk table, the project's own by default.

    Raises
    ------
    CrosswalkError
        If a class or a code is repeated, or a superclass is unknown; lists every problem.
    ValueError
        If it cannot be read or a column is missing.
    """
    return _load_crosswalk(TABLES / "crosswalk.csv" if path is None else Path(path))


@lru_cache(maxsize=8)
def _load_crosswalk(path: Path) -> tuple[Diagnosis, ...]:
    table = read_table(path, ("class", "name", "superclass", "alone", *VOCABULARIES, "scored2021"))
    rows = list(zip(table.numbers, table.rows, strict=True))
    class_names = {row["class"] for row in table.rows}
    problems: list[tuple[int, str]] = []
    first_rows: dict[tuple[str, str], int] = {}
    for number, row in rows:
        problems += [(number, text) for text in _row_problems(row, class_names)]
        for column in ("class", *VOCABULARIES):
            codes = _split_cell(row[column])
            for code in codes:
                first = first_rows.setdefault((column, code), number)
                if first != number or codes.count(code) > 1:
                    where = "in this row" if first == number else f"in row {first}"
                    problems.append(
                        (number, f"column {column}, value {code!r}: is repeated, also {where}")
                    )
    if problems:
        # A code that is twice in one cell is found twice.
        unique = dict.fromkeys(f"row {number}, {text}" for number, text in sorted(problems))
        raise CrosswalkError(path, list(unique))
    return tuple(_diagnosis(row) for _, row in rows)


def _split_cell(text: str) -> list[str]:
    """Split a cell, keeping repeats, which `split_list` drops."""
    return [part for item in text.split(";") if (part := item.strip())]


def _row_problems(row: Mapping[str, str], class_names: Collection[str]) -> Iterator[str]:
    if not row["class"] or ";" in row["class"]:
        yield f"column class, value {row['class']!r}: expected one name"
    for name in _split_cell(row["superclass"]):
        if name.removesuffix("?") not in SUPERCLASSES:
            yield (
                f"column superclass, value {name!r}: expected {', '.join(SUPERCLASSES)}, with "
                "? where it is open"
            )
    for name in _split_cell(row["alone"]):
        if name not in class_names:
            yield f"column alone, value {name!r}: is no class"
    if not any(_split_cell(row[vocabulary]) for vocabulary in VOCABULARIES):
        yield f"column scp, value '': no code in any of {', '.join(VOCABULARIES)}"
    for code in _split_cell(row["scored2021"]):
        if code not in _split_cell(row["snomed"]):
            yield f"column scored2021, value {code!r}: is not among the row's snomed codes"


def _diagnosis(row: Mapping[str, str]) -> Diagnosis:
    names = split_list(row["superclass"])
    return Diagnosis(
        name=row["class"],
        title=row["name"],
        superclasses=tuple(name for name in names if not name.endswith("?")),
        possible=tuple(name.removesuffix("?") for name in names if name.endswith("?")),
        alone=split_list(row["alone"]),
        codes={vocabulary: split_list(row[vocabulary]) for vocabulary in VOCABULARIES},
        scored=split_list(row["scored2021"]),
    )


@lru_cache(maxsize=len(VOCABULARIES) + 1)
def known_codes(vocabulary: str) -> dict[str, Diagnosis]:
    """Return code -> diagnosis, for a vocabulary of the crosswalk or `OWN_NAMES`.

    Raises
    ------
    ValueError
        If there is no such vocabulary.
    """
    if vocabulary == OWN_NAMES:
        names = {row.name: row for row in load_crosswalk()}
        return known_codes("snomed") | known_codes("scp") | names
    if vocabulary not in VOCABULARIES:
        raise ValueError(
            f"vocabulary {vocabulary!r} is unknown: expected "
            f"{', '.join((*VOCABULARIES, OWN_NAMES))}"
        )
    return {code: row for row in load_crosswalk() for code in row.codes[vocabulary]}


# Label sets ---------------------------------------------------------------------------------------


def load_class_set(name_or_path: str | Path) -> ClassSet:
    """Return a label set, by its name or from a CSV table.

    Parameters
    ----------
    name_or_path
        ``ptbxl_superclass``, ``challenge2021``, ``crosswalk``, ``aami`` (of beats, by ANSI/AAMI
        EC57), or a CSV with the columns ``class`` and ``codes`` (or ``code``): codes separated by
        ``;``, each a crosswalk class, an SCP-ECG or SNOMED CT code, or any ``vocabulary:code``,
        such as ``rhythm:AFIB`` or ``beat:V``. A column ``vocabulary`` may replace the prefix.

    Raises
    ------
    CrosswalkError
        If the table has problems; lists them with their rows.
    ValueError
        If it is neither a name nor a file, or the file is no table.
    """
    name = str(name_or_path)
    if name in SET_NAMES:
        return _named_set(name)
    if Path(name_or_path).is_file():
        return _user_set(Path(name_or_path))
    raise ValueError(
        f"classes {name!r}: expected {', '.join(SET_NAMES)}, or a CSV table with the "
        "columns class and codes"
    )


@lru_cache(maxsize=len(SET_NAMES))
def _named_set(name: str) -> ClassSet:
    if name == "aami":
        return _user_set(TABLES / "aami.csv")
    rows = load_crosswalk()
    if name == "ptbxl_superclass":
        meanings = _meanings(rows, lambda row: Meaning(row.superclasses, row.possible))
        return _complete_set(name, SUPERCLASSES, meanings, by_superclass=True)
    if name == "crosswalk":
        meanings = _meanings(rows, lambda row: Meaning((row.name,), (), row.alone))
        return _complete_set(name, tuple(row.name for row in rows), meanings)
    return _scored_set(name, rows)


def _scored_set(name: str, rows: Sequence[Diagnosis]) -> ClassSet:
    """Return the set of the diagnoses that the score of the Challenge 2021 counts."""
    classes = tuple(row.name for row in rows if row.scored)

    def meaning(row: Diagnosis) -> Meaning:
        alone = tuple(name for name in row.alone if name in classes)
        return Meaning((row.name,) if row.name in classes else (), (), alone)

    meanings = _meanings(rows, meaning)
    # Not every SNOMED CT code of a scored diagnosis is scored itself.
    for row in rows:
        for code in row.codes["snomed"]:
            if code not in row.scored:
                meanings.pop(("snomed", code), None)
    meanings = {key: value for key, value in meanings.items() if value != Meaning()}
    return _complete_set(name, classes, meanings)


def _meanings(
    rows: Iterable[Diagnosis], meaning_of: Callable[[Diagnosis], Meaning]
) -> dict[tuple[str, str], Meaning]:
    """Give every code of the rows, and their class names, a meaning."""
    table: dict[tuple[str, str], Meaning] = {}
    for row in rows:
        meaning = meaning_of(row)
        table[OWN_NAMES, row.name] = meaning
        for vocabulary, codes in row.codes.items():
            for code in codes:
                table[vocabulary, code] = meaning
    return table


def _complete_set(
    name: str,
    classes: tuple[str, ...],
    meanings: dict[tuple[str, str], Meaning],
    by_superclass: bool = False,
) -> ClassSet:
    """Return a label set in which the user's own names may be codes or classes.

    SNOMED CT and SCP-ECG codes have their usual meaning there, and a class means itself.
    """
    own: dict[tuple[str, str], Meaning] = {}
    for (vocabulary, code), meaning in meanings.items():
        if vocabulary in _UNAMBIGUOUS:
            own[OWN_NAMES, code] = meaning
    for label in classes:
        own[OWN_NAMES, label] = Meaning((label,))
    return ClassSet(name, classes, own | meanings, by_superclass)


def _user_set(path: Path) -> ClassSet:
    table = read_table(path, ("class",))
    column = "codes" if "codes" in table.header else "code"
    table = read_table(path, ("class", column))
    entries: list[tuple[int, str, str, str]] = []  # row, vocabulary, code, class
    problems: list[tuple[int, str]] = []
    for number, row in zip(table.numbers, table.rows, strict=True):
        tokens = split_list(row[column])
        if not row["class"] or ";" in row["class"]:
            problems.append((number, f"column class, value {row['class']!r}: expected one name"))
        if not tokens:
            problems.append((number, f"column {column}, value '': expected codes separated by ;"))
        for token in tokens:
            try:
                keys = _resolve(token, row.get("vocabulary", "").lower())
            except ValueError as error:
                problems.append((number, f"column {column}, value {token!r}: {error}"))
                continue
            entries += [(number, vocabulary, code, row["class"]) for vocabulary, code in keys]
    problems += _repeats(entries)
    if problems or not entries:
        texts = [f"row {number}, {text}" for number, text in sorted(problems)]
        raise CrosswalkError(path, texts or ["has no rows: expected one per class"])
    classes = tuple(dict.fromkeys(name for *_, name in entries))
    meanings = {(vocabulary, code): Meaning((name,)) for _, vocabulary, code, name in entries}
    return _complete_set(path.stem, classes, meanings)


def _resolve(token: str, vocabulary: str) -> list[tuple[str, str]]:
    """Return the (vocabulary, code) pairs that a token names.

    The short codes of AHA, CPSC 2018 and Challenge 2017 (1, 5, N) need their vocabulary: a number
    that happens to be in only one of the lists may be meant for another.

    Raises
    ------
    ValueError
        If it names none; the message says why, without the token.
    """
    prefix, colon, code = token.partition(":")
    if colon:
        vocabulary = prefix.strip().lower()
        code = code.strip()
    else:
        code = token
    if vocabulary or colon:
        known = (*VOCABULARIES, BEATS, RHYTHMS, OWN_NAMES)
        if vocabulary not in known:
            raise ValueError(f"vocabulary {vocabulary!r} is unknown: expected {', '.join(known)}")
        if not code:
            raise ValueError("expected a code after the colon")
        return [(vocabulary, code)]
    for row in load_crosswalk():
        if row.name == token:
            pairs = [(name, code) for name, codes in row.codes.items() for code in codes]
            return [(OWN_NAMES, token), *pairs]
    for name in _UNAMBIGUOUS:
        if token in known_codes(name):
            return [(name, token)]
    raise ValueError(
        "is no class, SCP-ECG or SNOMED CT code of the crosswalk: write its vocabulary "
        f"before it, as in aha:{token}"
    )


def _repeats(entries: Sequence[tuple[int, str, str, str]]) -> list[tuple[int, str]]:
    """Return the row and a text for each code that an earlier row has too."""
    first_rows: dict[tuple[str, str], int] = {}
    problems = []
    for number, vocabulary, code, _ in entries:
        first = first_rows.setdefault((vocabulary, code), number)
        if first != number:
            problems.append(
                (number, f"{vocabulary} code {code!r}: is repeated, also in row {first}")
            )
    return problems


# Translation --------------------------------------------------------------------------------------


def translate(
    codes: Iterable[str], vocabulary: str, target: str | Path | ClassSet = "crosswalk"
) -> Translation:
    """Translate the codes of one record.

    Parameters
    ----------
    codes
        Codes of one vocabulary. Repeats count, for codes that have no place in the set.
    vocabulary
        One of `VOCABULARIES`, or `OWN_NAMES`.
    target
        A label set, or an argument of `load_class_set`.

    Returns
    -------
    Translation
        Labels in the order of the set. Among the superclasses, a record with nothing but a sinus
        rhythm, of any rate and regularity, is NORM.

    Raises
    ------
    ValueError
        If the vocabulary or the target is unknown.
    """
    if not isinstance(target, ClassSet):
        target = load_class_set(target)
    codes = list(codes)
    known = known_codes(vocabulary)
    meanings = [target.meanings.get((vocabulary, code), Meaning()) for code in codes]
    is_single = len(set(codes)) == 1
    labels: set[str] = set()
    for meaning in meanings:
        labels.update(meaning.labels)
        if is_single:
            labels.update(meaning.alone)
    if target.by_superclass and codes:
        may_be_normal = ["NORM" in meaning.labels + meaning.possible for meaning in meanings]
        if all(may_be_normal):
            labels.add("NORM")
    unknown: Counter[str] = Counter()
    outside: Counter[str] = Counter()
    for code, meaning in zip(codes, meanings, strict=True):
        if meaning.labels or (is_single and meaning.alone):
            continue
        if code in known:
            # A known code may belong to no superclass; the set covers it all the same.
            if not target.by_superclass:
                outside[code] += 1
        elif (vocabulary, code) not in target.meanings:
            unknown[code] += 1
    return Translation(tuple(name for name in target.classes if name in labels), unknown, outside)
