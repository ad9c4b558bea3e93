"""The PhysioNet Challenges: SNOMED CT codes in the headers of 2020 and 2021, and the four rhythms
of 2017.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from src.labels.collections.annotation import (
    RecordLabels,
    Source,
    find_source,
    label_record,
    load_sources,
)
from src.labels.collections.rows import (
    CodeReport,
    Request,
    Row,
    age_text,
    build_frame,
    find_table,
    index_stems,
    list_files,
    report_missing,
    sex_text,
)
from src.labels.crosswalk import SUPERCLASSES, ClassSet, known_codes, load_class_set
from src.labels.text_tables import read_text
from src.records.formats.wfdb_header import parse_comments

if TYPE_CHECKING:
    import pandas as pd


TASKS = ("scored", "all")
TASKS_2017 = ("rhythm",)
_SETS = {"scored": "challenge2021", "all": "crosswalk"}
_NO_CODE = {"", "unknown", "nan", "none"}
_RHYTHMS = {"N": "NSR", "A": "AF", "O": "OTHER_RHYTHM", "~": "NOISE"}


def build_challenge(request: Request) -> pd.DataFrame:
    """PhysioNet/CinC Challenge 2020 and 2021: SNOMED CT codes of every header below the root."""
    classes = request.classes or load_class_set(_SETS[request.task])
    headers, unreadable, silent = _read_headers(request.root)
    sources = _find_sources(headers)
    report = CodeReport(request.dataset, "snomed", classes.name)
    ids = _record_ids(list(headers))
    rows = [
        _row(
            ids[path],
            path,
            facts,
            report.add(label_record(split_codes(facts["dx"]), sources[path], classes)),
        )
        for path, facts in headers.items()
    ]
    report_missing(
        request.dataset, unreadable, "have a header that cannot be read and are left out"
    )
    report_missing(request.dataset, silent, "have no #Dx code in their header and are left out")
    report.log()
    return build_frame(request.dataset, rows)


def _row(record_id: str, path: str, facts: Mapping[str, str], result: RecordLabels) -> Row:
    return Row(
        record_id=record_id,
        labels=result.labels,
        annotated=result.annotated,
        path=path,
        age=age_text(facts.get("age")),
        sex=sex_text(facts.get("sex")),
    )


def split_codes(text: str) -> list[str]:
    """Split a ``#Dx`` line into codes, each once; words for none are none."""
    parts = (part.strip("[]()'\"").removesuffix(".0") for part in re.split(r"[,;|\s]+", text))
    return list(dict.fromkeys(part for part in parts if part.lower() not in _NO_CODE))


def _read_headers(root: Path) -> tuple[dict[str, dict[str, str]], list[str], list[str]]:
    """Return relative path without suffix -> facts of its comments; the unreadable headers, and
    those without a code.
    """
    headers, unreadable, silent = {}, [], []
    for path in list_files(root, (".hea",)):
        try:
            facts = parse_comments(_read_comments(root / path))
        except OSError:
            unreadable.append(path)
            continue
        if split_codes(facts.get("dx", "")):
            headers[path[:-4]] = facts
        else:
            silent.append(path)
    return headers, unreadable, silent


def _read_comments(path: Path) -> tuple[str, ...]:
    """Return the comment lines of a header; its signal lines, which take most of the time, are left
    to the reader.
    """
    lines = path.read_bytes().decode("utf-8", errors="replace").splitlines()
    return tuple(text[1:].strip() for line in lines if (text := line.strip()).startswith("#"))


def _record_ids(paths: Sequence[str]) -> dict[str, str]:
    """Return path -> its last part, or the whole path where several end alike."""
    counts = Counter(path.rsplit("/", 1)[-1] for path in paths)
    return {path: stem if counts[stem := path.rsplit("/", 1)[-1]] == 1 else path for path in paths}


def _find_sources(headers: Mapping[str, Mapping[str, str]]) -> dict[str, Source]:
    """Return path -> source; records of no known one form a source that used the codes which occur
    among them.

    Its sinus rhythms count as normal ECGs only where it also has findings of repolarization and
    conduction.
    """
    sources = {path: find_source(path.rsplit("/", 1)[-1]) for path in headers}
    strangers = [path for path, source in sources.items() if source is None]
    used = dict.fromkeys(code for path in strangers for code in split_codes(headers[path]["dx"]))
    rows = [known_codes("snomed")[code] for code in used if code in known_codes("snomed")]
    seen = {name for row in rows for name in row.superclasses}
    seen |= {"NORM"} if {"STTC", "CD"} <= seen else set()
    other = Source(
        "unknown", "snomed", tuple(used), tuple(name for name in SUPERCLASSES if name in seen)
    )
    return {path: source or other for path, source in sources.items()}


def build_challenge2017(request: Request) -> pd.DataFrame:
    """PhysioNet/CinC Challenge 2017: one lead; normal rhythm, atrial fibrillation, other rhythm,
    noise.
    """
    table = find_table(request.root, "REFERENCE-v3.csv", "REFERENCE.csv")
    found = index_stems(request.root, (".hea", ".mat"))
    rows, missing = [], []
    for number, line in enumerate(read_text(table).splitlines(), start=1):
        name, _, letter = (part.strip() for part in line.partition(","))
        if not line.strip() or (number == 1 and name.lower() in {"record", "recording"}):
            continue
        if letter not in _RHYTHMS:
            raise ValueError(
                f"{table}: row {number}, label {letter!r}: expected one of {', '.join(_RHYTHMS)}"
            )
        if name not in found:
            missing.append(name)
            continue
        result = _label_rhythm(letter, request.classes)
        rows.append(Row(name, result.labels, result.annotated, path=found[name]))
    report_missing(request.dataset, missing)
    return build_frame(request.dataset, rows)


def _label_rhythm(letter: str, classes: ClassSet | None) -> RecordLabels:
    """Return the rhythm, or its place in a label set; of a noisy recording nothing is known
    there.
    """
    if classes is None:
        return RecordLabels((_RHYTHMS[letter],), tuple(_RHYTHMS.values()))
    if letter == "~":
        return RecordLabels((), ())
    return label_record(
        [letter] if letter in {"N", "A"} else [], load_sources()["challenge2017"], classes
    )
