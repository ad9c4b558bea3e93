"""PhysioNet/CinC Challenges 2020, 2021, 2024 and 2025: labels in the headers.

The headers of 2020 and 2021 give SNOMED CT codes (``#Dx``), those of 2024 names of classes
(``# Labels``), and those of 2025 whether Chagas disease was found (``# Chagas label``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from src.labels.cells import read_flag, split_labels
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
    list_files,
    name_records,
    read_comments,
    report_missing,
    sex_text,
)
from src.labels.crosswalk import OWN_NAMES, SUPERCLASSES, ClassSet, known_codes, load_class_set
from src.labels.ids import is_empty_cell
from src.records.formats.wfdb_header import parse_comments

if TYPE_CHECKING:
    import pandas as pd


TASKS = ("scored", "all")
_SETS = {"scored": "challenge2021", "all": "crosswalk"}
_NO_CODE = {"", "unknown", "nan", "none"}
_NAME_KEYS = ("labels", "label")
_CHAGAS_KEY = "chagas label"
CHAGAS = "Chagas"
# All that the Challenge 2024 looked for, from its description
_CLASSES_2024 = (
    "NORM",
    "Acute MI",
    "Old MI",
    "STTC",
    "CD",
    "HYP",
    "PAC",
    "PVC",
    "AFIB/AFL",
    "TACHY",
    "BRADY",
)


def build_challenge(request: Request) -> pd.DataFrame:
    """Build the rows of the Challenges from every header below the root."""
    return _build_rows(request, *_read_headers(request.root))


def class_set_of(request: Request) -> ClassSet:
    """Return the label set of a request: the one that is given, or that of its task."""
    return request.classes or load_class_set(_SETS[request.task])


def build_sources(request: Request, names: Sequence[str]) -> pd.DataFrame:
    """Build the rows of the headers whose names are those of some sources; skip others.

    Raises
    ------
    ValueError
        If there is none.
    """
    headers, unreadable, without_code = _read_headers(request.root)
    own: dict[str, dict[str, str]] = {}
    others: list[str] = []
    for path, comments in headers.items():
        source = find_source(path.rsplit("/", 1)[-1])
        if source is not None and source.name in names:
            own[path] = comments
        else:
            others.append(path)
    report_missing(request.dataset, others, "are of other collections and are skipped")
    if not own:
        kept = [load_sources()[name] for name in names]
        examples = ", ".join(dict.fromkeys(f"{source.prefix}00001.hea" for source in kept))
        raise ValueError(
            f"{request.root}: no header of the collection with #Dx: expected names such as "
            f"{examples}"
        )
    return _build_rows(request, own, unreadable, without_code)


def build_chagas(request: Request, patients: Mapping[str, str]) -> pd.DataFrame:
    """Build the rows of the headers with a Chagas label; `patients` are those of CODE-15%."""
    headers, unreadable, without_code = _read_headers(request.root)
    own = {path: held for path, held in headers.items() if _find_chagas(held) is not None}
    without_code += [path for path in headers if path not in own]
    frame = _build_rows(replace(request, task=TASKS[0]), own, unreadable, without_code)
    of_code = {
        path: patients.get(path.rsplit("/", 1)[-1], "")
        for path, comments in own.items()
        if "code" in comments.get("source", "").lower()
    }
    frame["patient_id"] = [of_code.get(path, "") for path in frame["path"]]
    return frame


def _build_rows(
    request: Request,
    headers: Mapping[str, Mapping[str, str]],
    unreadable: Sequence[str],
    without_code: Sequence[str],
) -> pd.DataFrame:
    """Build a row for each header, and report those that are skipped."""
    classes = class_set_of(request)
    sources = _find_sources(headers)
    report = CodeReport(request.dataset, "snomed", classes.name)
    ids = name_records(list(headers))
    rows = []
    for path, comments in headers.items():
        if path in sources:
            codes = split_codes(comments["dx"])
            result = report.add(label_record(codes, sources[path], classes))
        else:
            result = _label_by_name(comments, request)
        rows.append(
            Row(
                record_id=ids[path],
                labels=result.labels,
                annotated=result.annotated,
                path=path,
                age=age_text(comments.get("age")),
                sex=sex_text(comments.get("sex")),
            )
        )
    report_missing(request.dataset, unreadable, "have an unreadable header and are skipped")
    report_missing(
        request.dataset,
        without_code,
        "have no #Dx code, # Labels or # Chagas label in their header, skipped",
    )
    report.log()
    return build_frame(request.dataset, rows)


def split_codes(text: str) -> list[str]:
    """Split a ``#Dx`` line into codes, each once, without words for no code."""
    parts = (part.strip("[]()'\"").removesuffix(".0") for part in re.split(r"[,;|\s]+", text))
    return list(dict.fromkeys(part for part in parts if part.lower() not in _NO_CODE))


def split_names(comments: Mapping[str, str]) -> tuple[str, ...]:
    """Return the classes that a header of the Challenge 2024 names, each once."""
    text = next((comments[key] for key in _NAME_KEYS if comments.get(key)), "")
    return split_labels(text, ",")


def _has_names(comments: Mapping[str, str]) -> bool:
    """Return whether a header has labels of the Challenge 2024 or 2025, also an empty list."""
    return _find_chagas(comments) is not None or any(key in comments for key in _NAME_KEYS)


def _find_chagas(comments: Mapping[str, str]) -> bool | None:
    """Return whether a header of the Challenge 2025 says Chagas disease; None if it does not say.

    An empty value says nothing.
    """
    text = comments.get(_CHAGAS_KEY, "")
    return None if is_empty_cell(text) else read_flag(text)


def _label_by_name(comments: Mapping[str, str], request: Request) -> RecordLabels:
    """Return the labels of a header without codes, and the classes that its source looked for."""
    labels: tuple[str, ...] = ()
    looked_for: tuple[str, ...] = ()
    if any(key in comments for key in _NAME_KEYS):
        labels, looked_for = split_names(comments), _CLASSES_2024
    if (has_chagas := _find_chagas(comments)) is not None:
        labels += (CHAGAS,) if has_chagas else ()
        looked_for += (CHAGAS,)
    looked_for = tuple(dict.fromkeys((*looked_for, *labels)))
    if request.classes is None:
        return RecordLabels(labels, looked_for)
    return label_record(labels, Source("names", OWN_NAMES, looked_for), request.classes)


def _read_headers(root: Path) -> tuple[dict[str, dict[str, str]], list[str], list[str]]:
    """Read the comments of all headers below a folder.

    Returns
    -------
    headers
        Relative path without suffix -> the values of its comments.
    unreadable, without_code
        Paths of the headers that cannot be read, and of those without a code.
    """
    headers: dict[str, dict[str, str]] = {}
    unreadable: list[str] = []
    without_code: list[str] = []
    for path in list_files(root, (".hea",)):
        try:
            comments = parse_comments(read_comments(root / path))
        except (OSError, ValueError):
            # Such as a pipe, a link to a device, or a file that is far too large for a header.
            unreadable.append(path)
            continue
        if split_codes(comments.get("dx", "")) or _has_names(comments):
            headers[path[:-4]] = comments
        else:
            without_code.append(path)
    return headers, unreadable, without_code


def _find_sources(headers: Mapping[str, Mapping[str, str]]) -> dict[str, Source]:
    """Return path -> source of the headers with codes.

    Records of no known source share one, of the codes among them.

    Sinus rhythms of that source count as normal ECGs only if it also has findings of repolarization
    and conduction.
    """
    coded = [path for path, comments in headers.items() if split_codes(comments.get("dx", ""))]
    sources = {path: find_source(path.rsplit("/", 1)[-1]) for path in coded}
    codes: dict[str, None] = {}
    for path, source in sources.items():
        if source is None:
            codes |= dict.fromkeys(split_codes(headers[path]["dx"]))
    superclasses: set[str] = set()
    for code in codes:
        if code in known_codes("snomed"):
            superclasses.update(known_codes("snomed")[code].superclasses)
    if {"STTC", "CD"} <= superclasses:
        superclasses.add("NORM")
    looked_for = tuple(name for name in SUPERCLASSES if name in superclasses)
    shared = Source("unknown", "snomed", tuple(codes), looked_for)
    return {path: source or shared for path, source in sources.items()}
