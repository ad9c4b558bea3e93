"""Labels from statements in words, by a table of phrases.

A row of the table is a phrase and the class that it means. The longest phrase counts, each word of
a statement once. After words such as *possible* a phrase says nothing certain: its class is neither
present nor absent. After *no* or *without* it says nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from src.labels.collections.annotation import RecordLabels, Source, label_record
from src.labels.crosswalk import OWN_NAMES, ClassSet, translate
from src.labels.text_tables import read_table
from src.utils import printable

ABNORMAL = "ABNORMAL"
"""The class of a machine's verdict that an ECG is not normal."""
_WORDS = re.compile(r"[^a-z0-9]+")
_MAX_STATEMENT = 500  # characters
_MAX_KEPT = 100_000  # statements whose meaning is kept, as machines repeat them
_DOUBTS = (
    *("possible", "possibly", "probable", "probably", "consider", "may be", "might be", "suspect"),
    *("cannot rule out", "rule out", "cannot be excluded", "suggests", "suggestive of", "suggest"),
    *("questionable", "borderline", "equivocal", "or"),
)
_DENIALS = ("no", "not", "without", "absence of", "negative for")


class Meaning(NamedTuple):
    """The classes that statements name, those that they leave open, and whether they are known."""

    present: tuple[str, ...]
    in_doubt: tuple[str, ...]
    is_known: bool


@dataclass
class PhraseTable:
    """Phrases and their classes.

    Attributes
    ----------
    class_of
        Phrase in lower case, its words separated by one blank -> its class; empty for a phrase that
        is known and means none.
    """

    class_of: dict[str, str]
    _pattern: re.Pattern[str] = field(init=False, repr=False)
    _kept: dict[str, Meaning] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        signals = {*self.class_of, *_DOUBTS, *_DENIALS}
        longest = sorted(signals, key=len, reverse=True)
        self._pattern = re.compile(r"(?<= )(?:" + "|".join(map(re.escape, longest)) + r")(?= )")

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes in the order of the table, each once."""
        return tuple(dict.fromkeys(name for name in self.class_of.values() if name))

    def read(self, statement: str) -> Meaning:
        """Return the meaning of a statement."""
        meaning = self._kept.get(statement)
        if meaning is None:
            meaning = self._read(statement)
            if len(self._kept) < _MAX_KEPT:
                self._kept[statement] = meaning
        return meaning

    def _read(self, statement: str) -> Meaning:
        text = f" {_plain(statement[:_MAX_STATEMENT])} "
        present: list[str] = []
        in_doubt: list[str] = []
        is_known = is_doubtful = is_denied = False
        for match in self._pattern.finditer(text):
            name = self.class_of.get(match[0])
            if name is None:
                is_doubtful |= match[0] in _DOUBTS
                is_denied |= match[0] in _DENIALS
                continue
            is_known = True
            if name and not is_denied:
                (in_doubt if is_doubtful else present).append(name)
        return Meaning(tuple(present), tuple(in_doubt), is_known)

    def read_all(self, statements: Iterable[str]) -> tuple[Meaning, Counter[str]]:
        """Return the meaning of all statements of a record, and those that no phrase knows."""
        meanings = {statement: self.read(statement) for statement in statements if statement}
        present = dict.fromkeys(name for held in meanings.values() for name in held.present)
        in_doubt = dict.fromkeys(name for held in meanings.values() for name in held.in_doubt)
        unknown = Counter(text for text, held in meanings.items() if not held.is_known)
        open_names = tuple(name for name in in_doubt if name not in present)
        return Meaning(tuple(present), open_names, bool(meanings)), unknown


def load_phrases(path: Path, task: str = "") -> PhraseTable:
    """Read a table with the columns phrase and class, and task where only some rows are wanted.

    Raises
    ------
    ValueError
        If it cannot be read, or a phrase is empty or stands twice; the message names the row.
    """
    table = read_table(path, ("phrase", "class"))
    class_of: dict[str, str] = {}
    for number, row in zip(table.numbers, table.rows, strict=True):
        phrase = _plain(row["phrase"])
        if not phrase or phrase in class_of or ";" in row["class"]:
            raise ValueError(
                f"{path}: row {number}, phrase {printable(repr(row['phrase']), 80)}, class "
                f"{printable(repr(row['class']), 80)}: expected a phrase of its own in words, and "
                "one class"
            )
        if not task or row.get("task", "") in (task, ""):
            class_of[phrase] = row["class"]
    if not any(class_of.values()):
        raise ValueError(f"{path}: names no class: expected rows of a phrase and its class")
    return PhraseTable(class_of)


def _plain(text: str) -> str:
    return _WORDS.sub(" ", text.lower()).strip()


def label_meaning(
    meaning: Meaning, looked_for: Sequence[str], classes: ClassSet | None, source: Source
) -> RecordLabels:
    """Return the labels of a record: those of the table, or their translation into a label set.

    Parameters
    ----------
    meaning
        What its statements mean.
    looked_for
        The classes of the table that its source looked for in this record.
    classes
        A label set, or None for the classes of the table.
    source
        The source, whose codes are class names.
    """
    annotated = tuple(name for name in looked_for if name not in meaning.in_doubt)
    if classes is None:
        annotated = tuple(dict.fromkeys((*annotated, *meaning.present)))
        return RecordLabels(meaning.present, annotated)
    names = [name for name in meaning.present if name != ABNORMAL]
    result = label_record(names, source, classes)
    if ABNORMAL in meaning.present and "NORM" in result.labels and "NORM" not in names:
        # A sinus rhythm alone, which the machine calls abnormal for another reason
        labels = tuple(name for name in result.labels if name != "NORM")
        return RecordLabels(labels, labels, result.unknown, result.outside)
    in_doubt = set(translate(meaning.in_doubt, OWN_NAMES, classes).labels) - set(result.labels)
    kept = tuple(name for name in result.annotated if name not in in_doubt)
    return RecordLabels(result.labels, kept, result.unknown, result.outside)
