"""Philips Sierra XML (root ``restingecgdata``), versions 1.03, 1.04 and 1.04.01.

The samples of all leads are one text: numbers, 16-bit samples in base64, or these compressed by XLI
(`xli.py`). XLI stores four limb leads as their difference to what I and II predict. The layout is
that of exports and of sierra-ecg-tools (C. Watford, MIT licence).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from src.records.facts import parse_age, parse_sex
from src.records.formats.safe_xml import (
    MAX_LEADS,
    MAX_NUMBERS,
    NumberBudget,
    bytes_of,
    number_of,
    numbers_of,
    text_of,
)
from src.records.formats.xli import decode_xli
from src.records.formats.xml_leads import age_at, date_of
from src.records.leads import canonical_lead, derive_limb_leads
from src.records.record import ECGRecord, ReadingHints, RecordError

_TWELVE = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
# Acquisition types whose channels are the twelve leads in this order.
_TWELVE_LEAD_TYPES = ("STD-12", "10-WIRE")
_PULSE_MV = 1.0
_MIN_PULSE_S = 0.1
_MAX_PULSE_S = 2.0
# Years in the units of an age.
_YEARS = {"years": 1.0, "months": 1 / 12, "weeks": 1 / 52.18, "days": 1 / 365.25, "hours": 0.0}


class _Facts(NamedTuple):
    """What a file says about its samples: leads, rate, samples of a lead, and mV per unit."""

    leads: tuple[str, ...]
    fs: float
    n_samples: int
    mv_per_unit: float


def read_philips(path: Path, root: Element, hints: ReadingHints) -> ECGRecord:
    """Read the rhythm of all leads, without the calibration pulse that may end it.

    Representative beats are not part of the record.

    Raises
    ------
    RecordError
        If there are no samples, or they are damaged.
    """
    waves = next(root.iter("parsedwaveforms"), None)
    if waves is None:
        raise RecordError(path, "has no parsedwaveforms: expected the samples of the rhythm")
    facts = _facts(path, root, waves, hints)
    counts, flags = _counts(path, waves, facts)
    n_kept = _pulse_start(counts, facts)
    if n_kept < facts.n_samples:
        flags = (*flags, f"calibration_pulse_removed:{(facts.n_samples - n_kept) / facts.fs:.3g}s")
    signal = (counts[:, :n_kept] * facts.mv_per_unit).astype(np.float32)
    signal, leads, derived = derive_limb_leads(signal, facts.leads)
    person = next(root.iter("generalpatientdata"), None)
    return ECGRecord(
        record_id=path.stem,
        signal=signal,
        fs=facts.fs,
        leads=leads,
        codes=_statements(root),
        age=_age(root, person),
        sex=parse_sex(text_of(person, "sex")),
        patient_id=text_of(person, "patientid") or None,
        flags=(*flags, *derived),
    )


# Samples ------------------------------------------------------------------------------------------


def _facts(path: Path, root: Element, waves: Element, hints: ReadingHints) -> _Facts:
    """Return the facts that stand at the samples, else those of the acquisition."""
    acquisition = root.find("dataacquisition/signalcharacteristics")

    def stated(attribute: str, *elements: str) -> str:
        texts = [waves.get(attribute, ""), *(text_of(acquisition, name) for name in elements)]
        return next((text[:100].strip() for text in texts if text.strip()), "")

    fs_text = stated("samplespersecond", "samplingrate")
    fs = number_of(fs_text) if fs_text else hints.fs
    resolution = stated("resolution", "resolution", "signalresolution")
    mv_per_unit = (number_of(resolution) or 0.0) * 1e-3
    if not resolution and hints.gain_per_mv:
        mv_per_unit = 1 / hints.gain_per_mv
    if not fs or fs <= 0 or not mv_per_unit:
        raise RecordError(
            path, f"has rate {fs_text!r} and resolution {resolution!r}: expected Hz and microvolts"
        )
    for name, usual in (("bitspersample", "16"), ("signalsigned", "True"), ("signaloffset", "0")):
        if (text := stated(name, name) or usual).lower() != usual.lower():
            raise RecordError(path, f"has {name} {text}: expected {usual}")
    duration = number_of(stated("durationperchannel")) or 0.0
    n_samples = round(duration * fs / 1000)
    leads = _lead_names(path, waves, acquisition)
    if not 0 < n_samples * len(leads) <= MAX_NUMBERS:
        raise RecordError(
            path,
            f"has {len(leads)} leads of {duration:g} ms at {fs:g} Hz: expected one recording, of "
            f"at most {MAX_NUMBERS} samples",
        )
    return _Facts(leads, fs, n_samples, mv_per_unit)


def _lead_names(path: Path, waves: Element, acquisition: Element | None) -> tuple[str, ...]:
    """Return the names of the channels: as listed, or those of the acquisition type."""
    listed = waves.get("leadlabels", "").split()
    stated = waves.get("numberofleads") or text_of(acquisition, "numberchannelsallocated")
    n_leads = int(number_of(stated) or len(listed))
    if not 0 < n_leads <= MAX_LEADS:
        raise RecordError(path, f"has {n_leads} leads: expected 1 to {MAX_LEADS}")
    if listed and len(listed) < n_leads:
        raise RecordError(path, f"names {len(listed)} of its {n_leads} leads: expected each")
    if not listed and text_of(acquisition, "acquisitiontype") in _TWELVE_LEAD_TYPES:
        listed = list(_TWELVE)
    listed += [f"Channel {i + 1}" for i in range(len(listed), n_leads)]
    return tuple(listed[:n_leads])


def _counts(path: Path, waves: Element, facts: _Facts) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return the samples in their unit, shape (n_leads, n_samples), and flags."""
    encoding = waves.get("dataencoding", "")[:40]
    is_flagged = waves.get("compressflag", "True").lower() == "true"
    method = waves.get("compressmethod") or waves.get("compression") or "Uncompressed"
    method = method[:40] if is_flagged else "Uncompressed"
    if encoding == "Base64" and method == "XLI":
        raw = bytes_of(path, "parsedwaveforms", waves.text or "")
        counts = decode_xli(path, raw, len(facts.leads), facts.n_samples)
        return _restored(counts, facts.leads), ()
    if method != "Uncompressed" or encoding not in ("Base64", "Plain"):
        raise RecordError(
            path,
            f"its samples are {encoding or 'of no encoding'}, {method}: expected Base64 or Plain, "
            "and XLI or Uncompressed",
        )
    if encoding == "Base64":
        raw = bytes_of(path, "parsedwaveforms", waves.text or "")
        values = np.frombuffer(raw[: len(raw) // 2 * 2], "<i2").astype(np.int64)
    else:
        budget = NumberBudget(MAX_NUMBERS)
        values = _whole(path, numbers_of(path, "parsedwaveforms", waves.text or "", budget))
    n_values = len(facts.leads) * facts.n_samples
    if len(values) < n_values:
        raise RecordError(path, f"holds {len(values)} samples, its facts promise {n_values}")
    counts = values[:n_values].reshape(len(facts.leads), facts.n_samples)
    if not _holds_differences(counts, facts.leads):
        return counts, ()
    return _restored(counts, facts.leads), ("limb_leads_were_differences",)


def _whole(path: Path, numbers: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return numbers as integers of 16 bits."""
    if len(numbers) and not (np.abs(numbers) <= 2**15).all():
        raise RecordError(path, "has samples beyond 16 bits: expected ADC units")
    return numbers.astype(np.int64)


def _restored(counts: NDArray[np.int64], leads: tuple[str, ...]) -> NDArray[np.int64]:
    """Return the samples with the four limb leads that are stored as differences restored."""
    rows = {canonical_lead(name): row for row, name in enumerate(leads)}
    if "I" not in rows or "II" not in rows:
        return counts
    counts = counts.copy()
    i, ii = counts[rows["I"]], counts[rows["II"]]
    iii = ii - i
    if "III" in rows:
        iii = counts[rows["III"]] = iii - counts[rows["III"]]
    # Halves are rounded down, as the recorder does.
    predicted = {"aVR": -((i + ii) // 2), "aVL": (i - iii) // 2, "aVF": (ii + iii) // 2}
    for name, row in predicted.items():
        if name in rows:
            counts[rows[name]] = row - counts[rows[name]]
    return counts


def _holds_differences(counts: NDArray[np.int64], leads: tuple[str, ...]) -> bool:
    """Return whether lead III is the rest of II - I rather than III itself.

    III = II - I holds for every recording but for rounding, so one of both is near zero.
    """
    rows = {canonical_lead(name): row for row, name in enumerate(leads)}
    if not {"I", "II", "III"} <= rows.keys():
        return False
    stored = counts[rows["III"]]
    rest = counts[rows["II"]] - counts[rows["I"]] - stored
    return bool(np.abs(stored).sum() < np.abs(rest).sum())


def _pulse_start(counts: NDArray[np.int64], facts: _Facts) -> int:
    """Return the sample at which a calibration pulse begins that ends all leads, else their end.

    It is the same in all leads: zero, then 1 mV, then zero again.
    """
    tail = counts[:, -round(_MAX_PULSE_S * facts.fs) :]
    pulse = round(_PULSE_MV / facts.mv_per_unit)
    first = tail[0]
    is_pulse = ((first == 0) | (first == pulse)) & (tail == first).all(axis=0)
    others = np.flatnonzero(~is_pulse)
    begin = int(others[-1]) + 1 if len(others) else 0
    high = first[begin:] == pulse
    if len(facts.leads) < 2 or high.sum() < _MIN_PULSE_S * facts.fs:
        return facts.n_samples
    return facts.n_samples - int(tail.shape[1]) + begin


# Person and statements ----------------------------------------------------------------------------


def _statements(root: Element) -> tuple[str, ...]:
    """Return the statements of the latest interpretation, each once: their code, else their words.

    Statements that a reader deleted are left out.
    """
    found = list(root.iter("interpretation"))
    if not found:
        return ()
    latest = max(found, key=lambda item: (item.get("date", ""), item.get("time", "")))
    texts = [
        text_of(item, "statementcode") or text_of(item, "leftstatement")
        for item in latest.iter("statement")
    ]
    for item in latest.iter("codedstatement"):
        statement = item.find("unparsedstatement")
        if statement is not None and item.get("deleted", "").lower() != "true":
            code = statement.get("code", "")[:200].strip()
            texts.append(code or text_of(statement, "lhsstatement"))
    return tuple(dict.fromkeys(text for text in texts if text))


def _age(root: Element, person: Element | None) -> float | None:
    """Return the age in years, as stated or at the recording; a default age is none."""
    for unit, years in _YEARS.items():
        age = number_of(text_of(person, f"age/{unit}"))
        if age is not None:
            return parse_age(f"{age * years:.2f}")
    acquisition = root.find("dataacquisition")
    recorded = acquisition.get("date", "") if acquisition is not None else ""
    return age_at(date_of(text_of(person, "age/dateofbirth")), date_of(recorded))
