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
    r"(?:10(?:\^|\*\*)(?P<power>[+-]?\d{1,2})|"
    r"(?P<number>(?:\d{1,20}(?:\.\d{0,20})?|\.\d{1,20})(?:e[+-]?\d{1,2})?))?[ *]?"
    r"(?P<prefix>m|u|mc|n|milli|micro|nano|\?+|[^\x00-\x7f]+g?|)"
    r"[ \-]?(?:v|volts?)\.?"
)
_LONG_PREFIXES = {"milli": "m", "micro": "u", "nano": "n"}
_AGE = re.compile(
    r"(>=?|\u2265|over )? ?(\d+(?:\.\d+)?) ?(\+?) ?(?:y|yr|yrs|years?)?", re.IGNORECASE
)
_MAX_AGE_TEXT = 40  # characters
_MAX_UNIT_TEXT = 100
_MAX_AGE = 120  # years


def millivolts_per_unit(unit: str) -> float | None:
    """Return how many mV a unit is; None if it is no voltage. An empty unit is mV.

    Any case, brackets, ``/mV``, whole words, a number such as in ``0.1mV``, ``1e-4V`` and
    ``10^-3 V``, and a micro sign in any encoding are understood.
    """
    # Neither a pattern nor the cache sees a text of any length.
    return _millivolts_per_unit(unit) if len(unit) <= _MAX_UNIT_TEXT else None


@lru_cache(maxsize=256)
def _millivolts_per_unit(unit: str) -> float | None:
    text = re.sub(r"\s+", " ", unit.strip(" \t\r\n\0/[](){}<>\"'")).lower()
    if not text:
        return 1.0
    match = _UNIT.fullmatch(text)
    if match is None:
        return None
    prefix = _LONG_PREFIXES.get(match["prefix"], match["prefix"])
    per_prefix = _MILLIVOLTS_PER_PREFIX.get(prefix, _MILLIVOLTS_PER_PREFIX["u"])
    number = 10.0 ** int(match["power"]) if match["power"] else float(match["number"] or 1)
    return number * per_prefix or None


def parse_age(text: object) -> float | None:
    """Return an age in years, or None for an unknown one, such as NaN, -1, 300 or Unknown.

    Ages that are hidden to protect old people are the lowest that they may be: 90 for ``>89`` and
    for ``90+``.
    """
    if isinstance(text, int):
        # Python writes no number of thousands of digits.
        return float(text) if 0 <= text <= _MAX_AGE else None
    text = str(text)
    # Runs of spaces become one, so that the pattern has one way to match each text.
    match = _AGE.fullmatch(" ".join(text.split())) if len(text) <= _MAX_AGE_TEXT else None
    if match is None:
        return None
    sign, number, plus = match.groups()
    is_above = (sign or "").strip().lower() in (">", "over") and not plus
    age = float(number) + is_above
    return age if age <= _MAX_AGE else None


def years_between(born: date, at: date) -> int:
    """Return the whole years from a birth to a day."""
    has_birthday_ahead = (at.month, at.day) < (born.month, born.day)
    return at.year - born.year - has_birthday_ahead


def parse_sex(text: object) -> str | None:
    """Return ``female``, ``male`` or None, from the spellings that sources use."""
    word = str(text)[:_MAX_AGE_TEXT].strip().lower()
    if word in {"f", "female", "w", "woman"}:
        return "female"
    if word in {"m", "male", "man"}:
        return "male"
    return None
