"""Facts that headers state as text: units of voltage, age and sex."""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache

_MILLIVOLTS_PER_PREFIX = {"": 1e3, "m": 1.0, "u": 1e-3, "mc": 1e-3, "n": 1e-6}
# A number may come first, as in "0.1mV". Whatever is not ASCII before the V is a micro sign, in the
# encoding of the file, of another one, or a mark for what could not be decoded. In Big5 it ends
# with a g.
_UNIT = re.compile(
    r"(?P<number>\d+(?:\.\d+)?|\.\d+)?[ *]?"
    r"(?P<prefix>m|u|mc|n|milli|micro|nano|\?+|[^\x00-\x7f]+g?|)"
    r"[ \-]?(?:v|volts?)\.?"
)
_LONG_PREFIXES = {"milli": "m", "micro": "u", "nano": "n"}
_AGE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:y|yr|yrs|years?)?\s*", re.IGNORECASE)
_MAX_AGE = 120  # years


@lru_cache(maxsize=256)
def millivolts_per_unit(unit: str) -> float | None:
    """Return how many mV a unit is; None if it is no voltage. An empty unit is mV.

    Any case, brackets, ``/mV``, whole words, a number such as ``0.1mV``, and a micro sign in any
    encoding are understood.
    """
    text = re.sub(r"\s+", " ", unit.strip(" \t\r\n\0/[](){}<>\"'")).lower()
    if not text:
        return 1.0
    match = _UNIT.fullmatch(text)
    if match is None:
        return None
    prefix = _LONG_PREFIXES.get(match["prefix"], match["prefix"])
    per_prefix = _MILLIVOLTS_PER_PREFIX.get(prefix, _MILLIVOLTS_PER_PREFIX["u"])
    return float(match["number"] or 1) * per_prefix or None


def parse_age(text: object) -> float | None:
    """Return an age in years, or None for an unknown one, such as NaN, -1, 300 or Unknown."""
    match = _AGE.fullmatch(str(text))
    if match is None:
        return None
    age = float(match[1])
    return age if age <= _MAX_AGE else None


def years_between(born: date, at: date) -> int:
    """Return the whole years from a birth to a day."""
    has_birthday_ahead = (at.month, at.day) < (born.month, born.day)
    return at.year - born.year - has_birthday_ahead


def parse_sex(text: object) -> str | None:
    """Return ``female``, ``male`` or None, from the spellings that sources use."""
    word = str(text).strip().lower()
    if word in {"f", "female", "w", "woman"}:
        return "female"
    if word in {"m", "male", "man"}:
        return "male"
    return None
