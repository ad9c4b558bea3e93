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
# A factor before a unit, such as 0.1mV, 4.88 uV, 1e-4V or 10^-3 V
_SCALED_UNIT = re.compile(
    r"(?:(10)\s*(?:\^|\*\*)\s*([+-]?\d{1,2})|(\d{0,12}\.?\d{1,12}(?:e[+-]?\d{1,2})?))"
    r"\s*[*x×·]?\s*([a-zµμ]{1,12})"
)
_LONGEST_UNIT = 40
_AGE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:y|yr|yrs|years?)?\s*", re.IGNORECASE)
_MAX_AGE = 120  # years


@lru_cache(maxsize=64)
def millivolts_per_unit(unit: str) -> float | None:
    """Return how many mV a unit is, in any case, as ``/mV`` or ``0.1mV``; None if no voltage."""
    plain = unit.strip().lstrip("/").lower()
    factor = _MILLIVOLTS_PER_UNIT.get(plain)
    if factor is not None or len(plain) > _LONGEST_UNIT:
        return factor
    match = _SCALED_UNIT.fullmatch(plain)
    base = _MILLIVOLTS_PER_UNIT.get(match[4]) if match else None
    if match is None or base is None:
        return None
    multiple = 10.0 ** int(match[2]) if match[1] else float(match[3])
    return multiple * base if multiple > 0 else None


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
