"""GE MUSE XML (root ``RestingECG``): the rhythm strip of a resting ECG, 16-bit samples in base64.

MUSE stores I, II and V1 to V6; the other limb leads follow from I and II. GE's description of the
format is not public, so the layout here is taken from exports.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element

import numpy as np

from src.records.facts import millivolts_per_unit, parse_age, parse_sex
from src.records.formats.safe_xml import MAX_LEADS, bytes_of, number_of, samples_of, text_of
from src.records.leads import derive_limb_leads
from src.records.record import ECGRecord, ReadingHints, RecordError
from src.utils import Float32Array

# ADC value that marks a missing sample.
_MISSING = -(2**15)
# Years in the units of an age.
_YEARS = {"YEARS": 1.0, "MONTHS": 1 / 12, "WEEKS": 1 / 52.18, "DAYS": 1 / 365.25, "HOURS": 0.0}


class _Wave(NamedTuple):
    """A waveform: its signal in mV (n_leads, n_samples), names of its leads, rate and flags."""

    signal: Float32Array
    names: tuple[str, ...]
    fs: float
    flags: tuple[str, ...]


def read_muse(path: Path, root: Element, hints: ReadingHints) -> ECGRecord:
    """Read the rhythm waveform of the most leads times seconds; others are flagged.

    Raises
    ------
    RecordError
        If there is none, or all are damaged.
    """
    rhythms = _rhythms(path, root)
    waves = []
    problems = []
    for rhythm in rhythms:
        # A damaged waveform does not cost another one.
        try:
            waves.append(_read_wave(path, rhythm, hints))
        except RecordError as error:
            problems.append(error)
    if not waves:
        raise problems[0]
    wave = max(waves, key=lambda wave: wave.signal.size / wave.fs)
    flags = wave.flags
    if len(rhythms) > 1:
        flags = (*flags, f"rhythm_waveforms:{len(rhythms)}")
    signal, leads, derived = derive_limb_leads(wave.signal, wave.names)
    person = root.find("PatientDemographics")
    return ECGRecord(
        record_id=path.stem,
        signal=signal,
        fs=wave.fs,
        leads=leads,
        codes=_statements(root),
        age=_age(person),
        sex=parse_sex(text_of(person, "Gender")),
        patient_id=text_of(person, "PatientID") or None,
        flags=(*flags, *derived),
    )


def _rhythms(path: Path, root: Element) -> list[Element]:
    """Return the waveforms of type Rhythm; one of type Median is an averaged beat."""
    waveforms = list(root.iter("Waveform"))
    kinds = [text_of(waveform, "WaveformType") for waveform in waveforms]
    rhythms = [
        waveform
        for waveform, kind in zip(waveforms, kinds, strict=True)
        if kind.lower() == "rhythm"
    ]
    if not rhythms:
        raise RecordError(
            path, f"waveforms are {', '.join(kinds) or 'none'}: expected one of type Rhythm"
        )
    return rhythms


def _read_wave(path: Path, waveform: Element, hints: ReadingHints) -> _Wave:
    """Read a waveform; a lead without samples is absent."""
    base = number_of(text_of(waveform, "SampleBase"))
    exponent = number_of(text_of(waveform, "SampleExponent") or "0")
    if not text_of(waveform, "SampleBase") and hints.fs:
        base, exponent = hints.fs, 0
    if not base or exponent is None or abs(exponent) > 6:
        raise RecordError(
            path, f"SampleBase is {text_of(waveform, 'SampleBase')!r}: expected a rate in Hz"
        )
    listed = waveform.findall("LeadData")
    if len(listed) > MAX_LEADS:
        raise RecordError(path, f"has {len(listed)} leads: expected {MAX_LEADS} at most")
    names: list[str] = []
    rows: list[Float32Array] = []
    flags: list[str] = []
    for lead in listed:
        name = text_of(lead, "LeadID")
        row = _samples(path, name, lead, hints.gain_per_mv)
        if not len(row):
            flags.append(f"no_samples:{name}")
            continue
        names.append(name)
        rows.append(row)
        if text_of(lead, "LeadOff").upper() == "TRUE":
            flags.append(f"lead_off:{name}")
    lengths = {len(row) for row in rows}
    if len(lengths) != 1:
        raise RecordError(
            path, f"leads have {sorted(lengths)} samples: expected the same number in each"
        )
    return _Wave(np.stack(rows), tuple(names), base * 10.0**exponent, tuple(flags))


def _samples(path: Path, name: str, lead: Element, gain_per_mv: float | None) -> Float32Array:
    """Return the samples of a lead in mV, shape (n_samples,), NaN where one is missing."""
    if text_of(lead, "LeadSampleSize") not in ("", "2"):
        raise RecordError(
            path, f"lead {name} has {text_of(lead, 'LeadSampleSize')} bytes per sample: expected 2"
        )
    raw = bytes_of(path, f"lead {name}", samples_of(lead, "WaveFormData"))
    n_stored = len(raw) // 2
    if not n_stored:
        return np.empty(0, np.float32)
    n_promised = int(number_of(text_of(lead, "LeadSampleCountTotal")) or n_stored)
    if n_promised > n_stored or n_promised < 0:
        raise RecordError(
            path,
            f"lead {name} holds {n_stored} samples, LeadSampleCountTotal promises {n_promised}",
        )
    per_bit = number_of(text_of(lead, "LeadAmplitudeUnitsPerBit"))
    unit = text_of(lead, "LeadAmplitudeUnits") or "MICROVOLTS"
    per_unit = millivolts_per_unit(unit)
    if not text_of(lead, "LeadAmplitudeUnitsPerBit") and gain_per_mv:
        per_bit, per_unit = 1 / gain_per_mv, 1.0
    if not per_bit or per_unit is None:
        raise RecordError(path, f"lead {name} has {per_bit} {unit} per bit: expected a voltage")
    counts = np.frombuffer(raw, "<i2", n_promised)
    return np.where(counts == _MISSING, np.nan, counts * (per_bit * per_unit)).astype(np.float32)


def _statements(root: Element) -> tuple[str, ...]:
    """Return the statements of the diagnosis, each once.

    ``Diagnosis`` is the current one, which may have been edited. ``OriginalDiagnosis`` is not read.
    """
    diagnosis = root.find("Diagnosis")
    if diagnosis is None:
        return ()
    texts = [text_of(item) for item in diagnosis.iter("StmtText")]
    return tuple(dict.fromkeys(text for text in texts if text))


def _age(person: Element | None) -> float | None:
    """Return the age in years."""
    age = number_of(text_of(person, "PatientAge"))
    factor = _YEARS.get(text_of(person, "AgeUnits").upper() or "YEARS")
    if age is None or factor is None:
        return None
    return parse_age(f"{age * factor:.2f}")
