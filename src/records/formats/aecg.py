"""HL7 annotated ECG (root ``AnnotatedECG``): sequences of digits with an origin and a scale.

Format: HL7 aECG Implementation Guide, final of 21 March 2005.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element

import numpy as np

from src.records.facts import millivolts_per_unit, parse_age, parse_sex, years_between
from src.records.formats.safe_xml import (
    MAX_LEADS,
    MAX_NUMBERS,
    NumberBudget,
    number_of,
    numbers_of,
    samples_of,
)
from src.records.leads import canonical_lead, derive_limb_leads
from src.records.record import ECGRecord, ReadingHints, RecordError
from src.utils import Float32Array

_MAX_TEXT = 1000  # characters of an attribute
# Seconds in the units of a time increment.
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


def read_aecg(path: Path, root: Element, hints: ReadingHints) -> ECGRecord:
    """Read the sequence set of the most leads times seconds; other sets and series are flagged.

    Raises
    ------
    RecordError
        If there is none, or a sequence is damaged.
    """
    series = _rhythms(path, root)
    sets = [item for one in series for item in one.findall("component/sequenceSet")]
    if not sets:
        raise RecordError(path, "series has no sequenceSet: expected sequences of samples")
    candidates = []
    problems = []
    budget = NumberBudget(MAX_NUMBERS)
    for item in sets:
        # A set may hold other things, such as heart rates.
        try:
            candidates.append(_read_set(path, item, hints, budget))
        except RecordError as error:
            problems.append(error)
    if not candidates:
        raise problems[0]
    fullest = max(candidates, key=lambda candidate: candidate.signal.size / candidate.fs)
    signal, leads, derived = derive_limb_leads(fullest.signal, fullest.names)
    flags = (*fullest.flags, *derived)
    if len(series) > 1:
        flags = (*flags, f"rhythm_series:{len(series)}")
    elif len(sets) > 1:
        flags = (*flags, f"sequence_sets:{len(sets)}")
    person = next(root.iter("subjectDemographicPerson"), None)
    return ECGRecord(
        record_id=path.stem,
        signal=signal,
        fs=fullest.fs,
        leads=leads,
        age=_age(root, person),
        sex=parse_sex(_attribute(person, "administrativeGenderCode", "code")),
        patient_id=_attribute(next(root.iter("trialSubject"), None), "id", "extension") or None,
        flags=flags,
    )


class _Set(NamedTuple):
    """A sequence set: its signal in mV (n_leads, n_samples), names of its leads, rate and flags."""

    signal: Float32Array
    names: tuple[str, ...]
    fs: float
    flags: tuple[str, ...]


def _rhythms(path: Path, root: Element) -> list[Element]:
    """Return the series of type RHYTHM, or of no type.

    Series derived from them, such as a median beat, are deeper in the file.
    """
    series = root.findall("component/series")
    kinds = [_attribute(item, "code", "code") for item in series]
    found = [
        item for item, kind in zip(series, kinds, strict=True) if kind.upper() in ("RHYTHM", "")
    ]
    if not found:
        raise RecordError(path, f"series are {', '.join(kinds) or 'none'}: expected one of RHYTHM")
    return found


def _read_set(path: Path, sequences: Element, hints: ReadingHints, budget: NumberBudget) -> _Set:
    """Read a sequence set; a lead without samples is absent."""
    fs = None
    rows: dict[str, Float32Array] = {}
    for sequence in sequences.findall("component/sequence"):
        code = _attribute(sequence, "code", "code")
        value = sequence.find("value")
        if value is None:
            continue
        is_lead = canonical_lead(code) is not None or code.startswith("MDC_ECG_LEAD")
        if code.startswith("TIME_"):
            fs = fs or _rate(path, value)
        elif is_lead and value.find("digits") is not None:
            rows[code] = _samples(path, code, value, hints.gain_per_mv, budget)
    fs = fs or hints.fs
    if len(rows) > MAX_LEADS:
        raise RecordError(path, f"has {len(rows)} leads: expected {MAX_LEADS} at most")
    empty = [code for code, row in rows.items() if not len(row)]
    rows = {code: row for code, row in rows.items() if len(row)}
    if fs is None or not rows:
        raise RecordError(
            path,
            f"a sequenceSet has {len(rows)} leads and {'a' if fs else 'no'} time: expected both",
        )
    lengths = {len(row) for row in rows.values()}
    if len(lengths) != 1:
        raise RecordError(
            path, f"leads have {sorted(lengths)} samples: expected the same number in each"
        )
    flags = tuple(f"no_samples:{code}" for code in empty)
    return _Set(np.stack(list(rows.values())), tuple(rows), fs, flags)


def _rate(path: Path, value: Element) -> float:
    """Return the rate in Hz from the increment of a time sequence."""
    step = number_of(_attribute(value, "increment", "value"))
    unit = _attribute(value, "increment", "unit") or "s"
    if not step or step <= 0 or unit not in _SECONDS:
        raise RecordError(
            path, f"time increment is {step} {unit}: expected a positive number of s, ms or us"
        )
    # Rounding removes the noise of the division.
    return round(1.0 / (step * _SECONDS[unit]), 6)


def _samples(
    path: Path, code: str, value: Element, gain_per_mv: float | None, budget: NumberBudget
) -> Float32Array:
    """Return origin + scale x digits in mV, shape (n_samples,)."""
    origin, origin_unit = _quantity(value, "origin")
    scale, scale_unit = _quantity(value, "scale")
    # An origin without a unit is in that of the scale.
    origin_mv = millivolts_per_unit(origin_unit or scale_unit)
    scale_mv = millivolts_per_unit(scale_unit)
    if value.find("scale") is None and gain_per_mv:
        scale, scale_unit, scale_mv = 1 / gain_per_mv, "mV", 1.0
    # A scale without a unit may be that of anything.
    if not scale or not scale_unit or scale_mv is None or origin_mv is None:
        raise RecordError(
            path,
            f"lead {code} has origin {(origin, origin_unit)} and scale {(scale, scale_unit)}: "
            "expected voltages",
        )
    digits = numbers_of(path, f"lead {code}", samples_of(value, "digits"), budget)
    return ((origin or 0.0) * origin_mv + digits * (scale * scale_mv)).astype(np.float32)


def _quantity(value: Element, name: str) -> tuple[float | None, str]:
    """Return the number and the unit of an element below `value`."""
    return number_of(_attribute(value, name, "value")), _attribute(value, name, "unit")


def _attribute(element: Element | None, path: str, name: str) -> str:
    """Return an attribute of the element at `path`, empty if there is none."""
    target = element.find(path) if element is not None else None
    return target.get(name, "")[:_MAX_TEXT].strip() if target is not None else ""


def _age(root: Element, person: Element | None) -> float | None:
    """Return the whole years from birth to the recording."""
    born = _date(_attribute(person, "birthTime", "value"))
    # A recording has the time of its beginning, or that of its middle.
    recorded = _date(_attribute(root, "effectiveTime/low", "value"))
    if recorded is None:
        recorded = _date(_attribute(root, "effectiveTime/center", "value"))
    if born is None or recorded is None:
        return None
    return parse_age(years_between(born, recorded))


def _date(text: str) -> datetime | None:
    """Return the date at the beginning of a time such as 20031112101112, or None."""
    try:
        return datetime.strptime(text[:8], "%Y%m%d")
    except ValueError:
        return None
