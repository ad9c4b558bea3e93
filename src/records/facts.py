"""Facts that headers state as text: units of voltage, age and sex."""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache

_MILLIVOLTS_PER_UNIT = {
    "": 1.0,
    "mv": 1.0,
    "millivolt": 1.0,
    "millivolts": 1.0,
    "uv": 1e-3,
    "µv": 1e-3,  # micro sign
    "μv": 1e-3,  # Greek letter mu
    "microvolt": 1e-3,
    "microvolts": 1e-3,
    "nv": 1e-6,
    "v": 1e3,
    "volt": 1e3,
    "volts": 1e3,
}
_AGE = re.compile(
    r"(>=?|\u2265|over )? ?(\d+(?:\.\d+)?) ?(\+?) ?(?:y|yr|yrs|years?)?", re.IGNORECASE
)
_MAX_AGE_TEXT = 40  # characters
_MAX_AGE = 120  # years


@lru_cache(maxsize=64)
def millivolts_per_unit(unit: str) -> float | None:
    """Return how many mV a unit is, in any case or as ``/mV``; None if it is no voltage."""
    return _MILLIVOLTS_PER_UNIT.get(unit.strip().lstrip("/").lower())


def parse_age(text: object) -> float | None:
    """Return an age in years, or None for an unknown one, such as NaN, -1, 300 or Unknown.

    Ages that are hidden to protect old people are the lowest that they may be: 90 for ``>89`` and
    for ``90+``.
    """
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
    word = str(text).strip().lower()
    if word in {"f", "female", "w", "woman"}:
        return "female"
    if word in {"m", "male", "man"}:
        return "male"
    return None
