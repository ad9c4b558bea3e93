"""HL7 annotated ECG (root ``AnnotatedECG``): sequences of digits with origin and scale.

Format: HL7 aECG Implementation Guide, final of 21 March 2005.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from src.records.facts import millivolts_per_unit, parse_age, parse_sex, years_between
from src.records.formats.safe_xml import number_of, text_of
from src.records.leads import canonical_lead, derive_limb_leads
from src.records.record import ECGRecord, RecordError
from src.utils import Float32Array

_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


def read_aecg(path: Path, root: Element) -> ECGRecord:
    """Read the first rhythm series, its set of sequences with the most samples.

    Raises
    ------
    RecordError
        If there is none, or a sequence is broken.
    """
    series = _rhythm(path, root)
    sets = series.findall("component/sequenceSet")
    if not sets:
        raise RecordError(path, "series has no sequenceSet: expected sequences of samples")
    read, problems = [], []
    for item in sets:
        try:
            read.append(_read_set(path, item))
        except RecordError as error:  # such as a set of heart rates
            problems.append(error)
    if not read:
        raise problems[0]
    signal, names, fs = max(read, key=lambda item: item[0].size)
    signal, leads, flags = derive_limb_leads(signal, names)
    flags = (*flags, f"sequence_sets:{len(sets)}") if len(sets) > 1 else flags
    person = next(root.iter("subjectDemographicPerson"), None)
    return ECGRecord(
        record_id=path.stem,
        signal=signal,
        fs=fs,
        leads=leads,
        age=_age(root, person),
        sex=parse_sex(_attribute(person, "administrativeGenderCode", "code")),
        patient_id=_attribute(next(root.iter("trialSubject"), None), "id", "extension") or None,
        flags=flags,
    )


def _rhythm(path: Path, root: Element) -> Element:
    """Return the first series of rhythm; series derived from it, such as a median beat, lie
    deeper.
    """
    series = root.findall("component/series")
    for item in series:
        if _attribute(item, "code", "code").upper() in ("RHYTHM", ""):
            return item
    kinds = ", ".join(_attribute(item, "code", "code") for item in series) or "none"
    raise RecordError(path, f"series are {kinds}: expected one of RHYTHM")


def _read_set(path: Path, sequences: Element) -> tuple[Float32Array, tuple[str, ...], float]:
    """Return the signal in mV, the names of its leads and the rate of a sequence set."""
    fs = None
    rows: dict[str, Float32Array] = {}
    for sequence in sequences.findall("component/sequence"):
        code, value = _attribute(sequence, "code", "code"), sequence.find("value")
        if value is None:
            continue
        if code.startswith("TIME_"):
            fs = fs or _rate(path, value)
        elif value.find("digits") is not None and (
            canonical_lead(code) or code.startswith("MDC_ECG_LEAD")
        ):
            rows[code] = _samples(path, code, value)
    if fs is None or not rows:
        raise RecordError(
            path,
            f"a sequenceSet has {len(rows)} leads and {'a' if fs else 'no'} time: expected both",
        )
    lengths = {len(row) for row in rows.values()}
    if len(lengths) != 1 or lengths == {0}:
        raise RecordError(
            path, f"leads have {sorted(lengths)} samples: expected the same number in each"
        )
    return np.stack(list(rows.values())), tuple(rows), fs


def _rate(path: Path, value: Element) -> float:
    """Return the rate in Hz from the increment of a time sequence."""
    step, unit = (
        number_of(_attribute(value, "increment", "value")),
        _attribute(value, "increment", "unit") or "s",
    )
    if not step or step <= 0 or unit not in _SECONDS:
        raise RecordError(
            path, f"time increment is {step} {unit}: expected a positive number of s, ms or us"
        )
    return round(1.0 / (step * _SECONDS[unit]), 6)


def _samples(path: Path, code: str, value: Element) -> Float32Array:
    """Return origin + scale x digits in mV."""
    parts = {
        name: (number_of(_attribute(value, name, "value")), _attribute(value, name, "unit"))
        for name in ("origin", "scale")
    }
    factors = {name: (number, millivolts_per_unit(unit)) for name, (number, unit) in parts.items()}
    (origin, origin_unit), (scale, scale_unit) = factors["origin"], factors["scale"]
    if (
        not scale
        or not parts["scale"][1]
        or scale_unit is None
        or origin_unit is None
        or not np.isfinite(scale)
    ):
        raise RecordError(
            path,
            f"lead {code} has origin {parts['origin']} and scale {parts['scale']}: "
            "expected voltages",
        )
    try:
        digits = np.array(text_of(value, "digits").split(), np.float64)
    except ValueError as error:
        raise RecordError(path, f"lead {code} has digits that are no numbers ({error})") from None
    return ((origin or 0.0) * origin_unit + digits * (scale * scale_unit)).astype(np.float32)


def _attribute(element: Element | None, path: str, name: str) -> str:
    found = element.find(path) if element is not None else None
    return found.get(name, "").strip() if found is not None else ""


def _age(root: Element, person: Element | None) -> float | None:
    """Return the whole years from birth to the recording."""
    born = _date(_attribute(person, "birthTime", "value"))
    at = next(
        (
            date
            for name in ("low", "center")
            if (date := _date(_attribute(root, f"effectiveTime/{name}", "value")))
        ),
        None,
    )
    return parse_age(years_between(born, at)) if born and at else None


def _date(text: str) -> datetime | None:
    try:
        return datetime.strptime(text[:8], "%Y%m%d")
    except ValueError:
        return None
