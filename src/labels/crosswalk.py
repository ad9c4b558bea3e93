"""One vocabulary for the collections: the crosswalk table, the label sets made from it, and the
translation of codes.

The table is ``src/tables/crosswalk.csv``, a row per diagnosis with its SCP-ECG, SNOMED CT and AHA
codes; ``docs/crosswalk.md`` says how to read it, where it comes from and what was decided.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from src.labels.text_tables import read_table, split_list

TABLES = Path(__file__).resolve().parent / "tables"
VOCABULARIES = ("scp", "snomed", "aha", "cpsc2018", "challenge2017")
_TELLING = ("scp", "snomed")  # vocabularies whose codes are clear without their name
OWN_NAMES = "csv"
"""The vocabulary of a user's own label names: any of them, class names, SCP-ECG and SNOMED CT
codes.
"""
SUPERCLASSES = ("NORM", "MI", "STTC", "CD", "HYP")
SET_NAMES = ("ptbxl_superclass", "challenge2021", "crosswalk")


class CrosswalkError(ValueError):
    """A code table with problems; the message lists them with row number (the header is row 1),
    column and value.
    """

    def __init__(self, path: str | Path, problems: list[str]) -> None:
        noun = "problem" if len(problems) == 1 else "problems"
        super().__init__(
            f"{path}: {len(problems)} {noun} in the code table\n  " + "\n  ".join(problems)
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
        Classes that a record of this diagnosis has as well when it has no other.
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
    """What a code says in a label set: the labels it gives, those it leaves open, and those it
    gives when it stands alone.
    """

    labels: tuple[str, ...] = ()
    possible: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClassSet:
    """A label set: its classes in order, and what each (vocabulary, code) means in it.

    With `by_superclass`, a code of the set may mean no class at all, and a normal ECG excludes the
    other classes.
    """

    name: str
    classes: tuple[str, ...]
    meanings: Mapping[tuple[str, str], Meaning]
    by_superclass: bool = False

    def annotated(self, vocabulary: str, codes: Iterable[str]) -> tuple[str, ...]:
        """Return the classes, in their order, that a source with these codes at hand can give."""
        found = {
            label
            for code in codes
            if (m := self.meanings.get((vocabulary, code)))
            for label in m.labels
        }
        return tuple(name for name in self.classes if name in found)


@dataclass(frozen=True)
class Translation:
    """Labels of a set, without repeats, and the codes that have no place in it with their counts.

    `unknown` codes are in no row of the crosswalk (or of the user's table); `outside` ones are, but
    the set leaves them out.
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
        If a class or a code stands twice, or a superclass is unknown; lists every problem.
    ValueError
        If it cannot be read or a column is missing.
    """
    return _load_crosswalk(TABLES / "crosswalk.csv" if path is None else Path(path))


@lru_cache(maxsize=8)
def _load_crosswalk(path: Path) -> tuple[Diagnosis, ...]:
    table = read_table(path, ("class", "name", "superclass", "alone", *VOCABULARIES, "scored2021"))
    rows = list(zip(table.numbers, table.rows, strict=True))
    problems: list[tuple[int, str]] = []
    seen: dict[tuple[str, str], int] = {}
    for number, row in rows:
        problems += [(number, text) for text in _row_problems(row)]
        for column in ("class", *VOCABULARIES):
            for code in _cell(row[column]):
                first = seen.setdefault((column, code), number)
                where = "in this row" if first == number else f"in row {first}"
                if first != number or _cell(row[column]).count(code) > 1:
                    problems.append(
                        (number, f"column {column}, value {code!r}: stands twice, also {where}")
                    )
    names = {row["class"] for _, row in rows}
    problems += [
        (n, f"column alone, value {c!r}: is no class")
        for n, row in rows
        for c in _cell(row["alone"])
        if c not in names
    ]
    if problems:
        unique = dict.fromkeys(f"row {number}, {text}" for number, text in sorted(problems))
        raise CrosswalkError(path, list(unique))
    return tuple(_diagnosis(row) for _, row in rows)


def _cell(text: str) -> list[str]:
    """Split a cell, repeats kept."""
    return [part for item in text.split(";") if (part := item.strip())]


def _row_problems(row: Mapping[str, str]) -> Iterator[str]:
    if not row["class"] or ";" in row["class"]:
        yield f"column class, value {row['class']!r}: expected one name"
    for name in _cell(row["superclass"]):
        if name.removesuffix("?") not in SUPERCLASSES:
            yield (
                f"column superclass, value {name!r}: expected {', '.join(SUPERCLASSES)}, with "
                "? where it is open"
            )
    if not any(_cell(row[vocabulary]) for vocabulary in VOCABULARIES):
        yield f"column scp, value '': no code in any of {', '.join(VOCABULARIES)}"
    for code in _cell(row["scored2021"]):
        if code not in _cell(row["snomed"]):
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
    """Return code -> diagnosis of a vocabulary of the crosswalk; for `OWN_NAMES` class names,
    SCP-ECG and SNOMED CT codes.

    Raises
    ------
    ValueError
        If there is no such vocabulary.
    """
    if vocabulary == OWN_NAMES:
        return (
            known_codes("snomed") | known_codes("scp") | {row.name: row for row in load_crosswalk()}
        )
    if vocabulary not in VOCABULARIES:
        raise ValueError(
            f"vocabulary {vocabulary!r} is unknown: expected "
            f"{', '.join((*VOCABULARIES, OWN_NAMES))}"
        )
    return {code: row for row in load_crosswalk() for code in row.codes[vocabulary]}


# Label sets ---------------------------------------------------------------------------------------


def load_class_set(name_or_path: str | Path) -> ClassSet:
    """Return a label set: ``ptbxl_superclass``, ``challenge2021``, ``crosswalk``, or one from a CSV
    table.

    Parameters
    ----------
    name_or_path
        A name, or a CSV with the columns ``class`` and ``codes`` (or ``code``): codes separated by
        ``;``, each a crosswalk class, an SCP-ECG or SNOMED CT code, or any ``vocabulary:code``. A
        column ``vocabulary`` may stand for the prefix.

    Raises
    ------
    CrosswalkError
        If the table has problems; lists them with their rows.
    ValueError
        If it is neither a name nor a file, or no table.
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
    rows = load_crosswalk()
    if name == "ptbxl_superclass":
        return _class_set(
            name,
            SUPERCLASSES,
            _meanings(rows, lambda row: Meaning(row.superclasses, row.possible)),
            True,
        )
    if name == "crosswalk":
        classes = tuple(row.name for row in rows)
        return _class_set(
            name, classes, _meanings(rows, lambda row: Meaning((row.name,), (), row.alone))
        )
    classes = tuple(row.name for row in rows if row.scored)
    meanings = _meanings(
        rows, lambda row: Meaning(_within([row.name], classes), (), _within(row.alone, classes))
    )
    unscored = {
        ("snomed", code) for row in rows for code in row.codes["snomed"] if code not in row.scored
    }
    return _class_set(
        name,
        classes,
        {key: m for key, m in meanings.items() if key not in unscored and m != Meaning()},
    )


def _within(names: Iterable[str], classes: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name in classes)


def _meanings(
    rows: Iterable[Diagnosis], meaning: Callable[[Diagnosis], Meaning]
) -> dict[tuple[str, str], Meaning]:
    """Give every code of the rows, and their class names, a meaning."""
    table: dict[tuple[str, str], Meaning] = {}
    for row in rows:
        table[OWN_NAMES, row.name] = meaning(row)
        table |= {
            (vocabulary, code): meaning(row)
            for vocabulary, codes in row.codes.items()
            for code in codes
        }
    return table


def _class_set(
    name: str,
    classes: tuple[str, ...],
    meanings: dict[tuple[str, str], Meaning],
    by_superclass: bool = False,
) -> ClassSet:
    """Complete the user's own label names: SNOMED CT and SCP-ECG codes, and the classes themselves,
    mean there what they say.
    """
    codes = {
        (OWN_NAMES, code): meaning
        for (vocabulary, code), meaning in meanings.items()
        if vocabulary in _TELLING
    }
    themselves = {(OWN_NAMES, label): Meaning((label,)) for label in classes}
    return ClassSet(name, classes, codes | themselves | meanings, by_superclass)


def _user_set(path: Path) -> ClassSet:
    table = read_table(path, ("class",))
    column = "codes" if "codes" in table.header else "code"
    entries: list[tuple[int, str, str, str]] = []  # row, vocabulary, code, class
    problems: list[tuple[int, str]] = []
    for number, row in zip(table.numbers, read_table(path, (column,)).rows, strict=True):
        tokens = split_list(row[column])
        if not row["class"] or ";" in row["class"]:
            problems.append((number, f"column class, value {row['class']!r}: expected one name"))
        if not tokens:
            problems.append((number, f"column {column}, value '': expected codes separated by ;"))
        for token in tokens:
            found = _resolve(token, row.get("vocabulary", "").lower())
            if isinstance(found, str):
                problems.append((number, f"column {column}, value {token!r}: {found}"))
            else:
                entries += [(number, vocabulary, code, row["class"]) for vocabulary, code in found]
    problems += _repeats(entries)
    if problems or not entries:
        texts = [f"row {number}, {text}" for number, text in sorted(problems)]
        raise CrosswalkError(path, texts or ["has no rows: expected one per class"])
    classes = tuple(dict.fromkeys(name for *_, name in entries))
    meanings = {(vocabulary, code): Meaning((name,)) for _, vocabulary, code, name in entries}
    return _class_set(path.stem, classes, meanings)


def _resolve(token: str, vocabulary: str) -> list[tuple[str, str]] | str:
    """Return the (vocabulary, code) pairs that a token names, or what is wrong with it.

    The short codes of AHA, CPSC 2018 and Challenge 2017 (1, 5, N) say nothing without their
    vocabulary: a number that only one of the lists in use happens to hold may be meant for another.
    """
    prefix, colon, code = token.partition(":")
    vocabulary, code = (prefix.strip().lower(), code.strip()) if colon else (vocabulary, token)
    if vocabulary or colon:
        if vocabulary not in (*VOCABULARIES, OWN_NAMES):
            return (
                f"vocabulary {vocabulary!r} is unknown: expected "
                f"{', '.join((*VOCABULARIES, OWN_NAMES))}"
            )
        return [(vocabulary, code)] if code else "expected a code after the colon"
    for row in load_crosswalk():
        if row.name == token:
            return [
                (OWN_NAMES, token),
                *((name, code) for name, codes in row.codes.items() for code in codes),
            ]
    for name in _TELLING:
        if token in known_codes(name):
            return [(name, token)]
    return (
        "is no class, SCP-ECG or SNOMED CT code of the crosswalk: write its vocabulary "
        f"before it, as in aha:{token}"
    )


def _repeats(entries: Sequence[tuple[int, str, str, str]]) -> list[tuple[int, str]]:
    seen: dict[tuple[str, str], int] = {}
    problems = []
    for number, vocabulary, code, _ in entries:
        first = seen.setdefault((vocabulary, code), number)
        if first != number:
            problems.append(
                (number, f"{vocabulary} code {code!r}: stands twice, also in row {first}")
            )
    return problems


def translate(
    codes: Iterable[str], vocabulary: str, target: str | Path | ClassSet = "crosswalk"
) -> Translation:
    """Translate the codes of one record.

    Parameters
    ----------
    codes
        Codes of one vocabulary; repeats are counted where they have no place in the set.
    vocabulary
        One of `VOCABULARIES`, or `OWN_NAMES`.
    target
        A label set, or what `load_class_set` makes one from.

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
    known, codes = known_codes(vocabulary), list(codes)
    meanings = [target.meanings.get((vocabulary, code), Meaning()) for code in codes]
    labels = {label for meaning in meanings for label in meaning.labels}
    single = len(set(codes)) == 1
    if single:
        labels.update(meanings[0].alone)
    if (
        target.by_superclass
        and codes
        and all("NORM" in meaning.labels + meaning.possible for meaning in meanings)
    ):
        labels.add("NORM")
    silent = [
        code
        for code, meaning in zip(codes, meanings, strict=True)
        if not (meaning.labels or (single and meaning.alone))
    ]
    return Translation(
        labels=tuple(name for name in target.classes if name in labels),
        unknown=Counter(
            code
            for code in silent
            if code not in known and (vocabulary, code) not in target.meanings
        ),
        outside=Counter(code for code in silent if code in known and not target.by_superclass),
    )
