"""Ids of records, patients and folds: one rule for when two spellings are one id.

Ids are compared in one Unicode form (NFC), without invisible marks and surrounding spaces. Numbers
are compared as numbers: a table of floats makes 3.0 of 3, and a spreadsheet 3 of 0003. Words such
as *unknown* name nobody. The spelling that a table gives is kept wherever it is the only one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from src.utils import UNSEEN_MARKS

_NUMBER = re.compile(r"([0-9]+)(?:\.0*)?")
_SIGNS = re.compile(r"[\W_]+")
# Cells that stand for no value, without signs and in lower case.
_EMPTY_WORDS = frozenset({"na", "nan", "none", "null", "nil", "nat"})
_DASHES = frozenset({"", "-", "--", "---", "\N{EN DASH}", "\N{EM DASH}", "."})
_NOBODY_WORDS = _EMPTY_WORDS | {
    "",
    "unknown",
    "unk",
    "unkn",
    "notknown",
    "unknownpatient",
    "patientunknown",
    "missing",
    "anonymous",
    "anonymized",
    "anonymised",
    "anon",
    "undefined",
    "unidentified",
    "unspecified",
    "notavailable",
    "notapplicable",
    "nopatient",
    "noid",
}
# Numbers that tables write for a missing one.
_NO_NUMBER = re.compile(r"-(?:1|9+)(?:\.0*)?")


def clean_id(text: str) -> str:
    """Return an id in one Unicode form, without invisible marks and surrounding spaces."""
    if text.isascii() and text.isprintable():
        return text.strip()
    seen = [mark for mark in text if not _is_invisible(mark)]
    return " ".join(unicodedata.normalize("NFC", "".join(seen)).split())


def _is_invisible(mark: str) -> bool:
    """Return whether a character has no glyph and no width."""
    if unicodedata.category(mark) in ("Cf", "Cc"):
        return mark not in "\t\n\r"
    return UNSEEN_MARKS.match(mark) is not None


@lru_cache(maxsize=65536)
def id_key(text: str) -> str:
    """Return what two spellings of one id have in common: 3 for ``0003``, ``3.0`` and `` 3``."""
    cleaned = clean_id(text)
    number = _NUMBER.fullmatch(cleaned)
    return number[1].lstrip("0") or "0" if number else cleaned


def id_text(text: str) -> str:
    """Return an id without the ``.0`` that a table of floats adds, and without invisible marks.

    Zeros in front stay, because they may be part of a file's name.
    """
    cleaned = clean_id(text)
    if re.fullmatch(r"-?[0-9]+\.0*", cleaned):
        return cleaned.partition(".")[0]
    return cleaned


def is_empty_cell(text: str) -> bool:
    """Return whether a cell is blank, holds a dash, or a word for a missing value such as nan."""
    cleaned = clean_id(text)
    return cleaned in _DASHES or _word(cleaned) in _EMPTY_WORDS


@lru_cache(maxsize=65536)
def is_nobody(text: str) -> bool:
    """Return whether a cell names no patient: it is blank, or says nan, unknown, NA or -1."""
    cleaned = clean_id(text)
    if _NO_NUMBER.fullmatch(cleaned):
        return True
    return _word(cleaned) in _NOBODY_WORDS


def _word(text: str) -> str:
    return _SIGNS.sub("", clean_id(text).casefold())


def name_patients(datasets: Iterable[str], patients: Iterable[str]) -> list[str]:
    """Return the patient id of each record, in one spelling a patient of a dataset.

    It is the first spelling in the order of texts, so that it does not depend on the order of
    records. A patient who is spelled in one way keeps that id. An empty text names nobody.
    """
    pairs = list(zip(datasets, patients, strict=True))
    spellings: dict[tuple[str, str], str] = {}
    for dataset, patient in set(pairs):
        cleaned = clean_id(patient)
        key = (dataset, id_key(patient))
        spellings[key] = min(spellings.get(key, cleaned), cleaned)
    return ["" if is_nobody(name) else spellings[dataset, id_key(name)] for dataset, name in pairs]


def file_key(text: str) -> str:
    """Return what two names have in common that some file systems take for one.

    These tell neither case nor Unicode form apart, and some pass over invisible marks.
    """
    folded = unicodedata.normalize("NFD", clean_id(text)).casefold()
    return unicodedata.normalize("NFD", folded)
