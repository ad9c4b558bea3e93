"""Facts that headers state as text: age, sex and units of voltage."""

from __future__ import annotations

import math
import re
from datetime import date
from functools import lru_cache

_MILLIVOLTS_PER_UNIT = {
    "": 1.0,
    "mv": 1.0,
    "millivolt": 1.0,
    "millivolts": 1.0,
    "uv": 1e-3,
    "µv": 1e-3,
    "μv": 1e-3,
    "microvolt": 1e-3,
    "microvolts": 1e-3,
    "nv": 1e-6,
    "v": 1e3,
    "volt": 1e3,
    "volts": 1e3,
}


@lru_cache(maxsize=64)
def millivolts_per_unit(unit: str) -> float | None:
    """Return how many mV one `unit` is, or None when it is no voltage; ``/mv`` and other case are
    understood.
    """
    return _MILLIVOLTS_PER_UNIT.get(unit.strip().lstrip("/").lower())


def parse_age(text: object) -> float | None:
    """Return an age in years, or None for what sources write when they do not know it (NaN, -1,
    300, Unknown).
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:y|yr|yrs|years?)?\s*", str(text), re.IGNORECASE)
    age = float(match.group(1)) if match else math.nan
    return age if 0 <= age <= 120 else None


def years_between(born: date, at: date) -> int:
    """Return the whole years from a birth to a day."""
    return at.year - born.year - ((at.month, at.day) < (born.month, born.day))


def parse_sex(text: object) -> str | None:
    """Return ``female``, ``male`` or None from the spellings that sources use."""
    word = str(text).strip().lower()
    if word in {"f", "female", "w", "woman"}:
        return "female"
    return "male" if word in {"m", "male", "man"} else None
