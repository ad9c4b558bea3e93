"""GE CardioSoft and CASE XML (root ``CardiologyXML``): numbers separated by commas, lead by lead.

A stress test has several strips, and all of it as full disclosure. The layout is that of exports.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element

from src.records.facts import millivolts_per_unit, parse_age, parse_sex
from src.records.formats.safe_xml import (
    MAX_LEADS,
    MAX_NUMBERS,
    NumberBudget,
    number_of,
    numbers_of,
    text_of,
)
from src.records.formats.xml_leads import XmlWave, age_at, date_of, stack_leads, to_millivolts
from src.records.leads import derive_limb_leads
from src.records.record import ECGRecord, ReadingHints, RecordError
from src.utils import Float64Array

_MAX_STRIPS = 1000
# Years in the units of an age.
_YEARS = {"": 1.0, "years": 1.0, "months": 1 / 12, "weeks": 1 / 52.18, "days": 1 / 365.25}


# Elements that state something about the waveforms beside them.
_FACTS = (
    "SampleRate",
    "Resolution",
    "LeadOrder",
    "NumberOfChannels",
    "NumberOfLeads",
    "ChannelSampleCountTotal",
)


class _Strip(NamedTuple):
    """An element with waveforms, and the elements that state facts about it, by name."""

    waves: Element
    facts: dict[str, Element]

    def stated(self, name: str) -> str:
        """Return the text of a fact, empty if it is not stated."""
        return text_of(self.facts.get(name))


def read_cardiosoft(path: Path, root: Element, hints: ReadingHints) -> ECGRecord:
    """Read the strip or full disclosure of the most leads times seconds; others are flagged.

    Median beats are not part of the record.

    Raises
    ------
    RecordError
        If there is none, or all are damaged.
    """
    strips = list(_strips(root))
    if not 0 < len(strips) <= _MAX_STRIPS:
        raise RecordError(
            path, f"has {len(strips)} strips: expected StripData or FullDisclosure with waveforms"
        )
    waves = []
    problems = []
    budget = NumberBudget(MAX_NUMBERS)
    for strip in strips:
        # A damaged strip does not cost another one.
        try:
            waves.append(_read_strip(path, strip, hints, budget))
        except RecordError as error:
            problems.append(error)
    if not waves:
        raise problems[0]
    wave = max(waves, key=lambda wave: wave.signal.size / wave.fs)
    flags = wave.flags if len(strips) == 1 else (*wave.flags, f"strips:{len(strips)}")
    signal, leads, derived = derive_limb_leads(wave.signal, wave.names)
    person = root.find("PatientInfo")
    return ECGRecord(
        record_id=path.stem,
        signal=signal,
        fs=wave.fs,
        leads=leads,
        codes=_statements(root),
        age=_age(root, person),
        sex=parse_sex(text_of(person, "Gender")),
        patient_id=text_of(person, "PID") or None,
        flags=(*flags, *derived),
    )


def _strips(root: Element) -> Iterator[_Strip]:
    """Yield the strips of a file, and its full disclosure."""
    for name in ("StripData", "FullDisclosure"):
        for outer in root.iter(name):
            shared = _facts(outer)
            for waves in (outer, *outer.findall("Strip")):
                has_waves = waves.find("WaveformData") is not None
                if has_waves or waves.find("FullDisclosureData") is not None:
                    yield _Strip(waves, shared | _facts(waves))


def _facts(element: Element) -> dict[str, Element]:
    """Return the facts right below an element, in one pass over its waveforms."""
    return {child.tag: child for child in element if child.tag in _FACTS}


def _read_strip(path: Path, strip: _Strip, hints: ReadingHints, budget: NumberBudget) -> XmlWave:
    """Read the leads of a strip: one after another, or sample by sample in full disclosure."""
    fs = number_of(strip.stated("SampleRate")) or hints.fs
    if not fs or fs <= 0:
        raise RecordError(path, f"SampleRate is {strip.stated('SampleRate')!r}: expected Hz")
    per_unit = _mv_per_unit(path, strip, hints)
    interleaved = strip.waves.find("FullDisclosureData")
    if interleaved is not None:
        names = [name.strip() for name in strip.stated("LeadOrder").split(",")][: MAX_LEADS + 1]
        stated = int(number_of(strip.stated("NumberOfChannels")) or len(names))
        if not 0 < len(names) == stated <= MAX_LEADS:
            raise RecordError(
                path, f"LeadOrder names {len(names)} of {stated} channels: expected each"
            )
        values = numbers_of(path, "FullDisclosureData", interleaved.text or "", budget)
        if len(values) % len(names):
            raise RecordError(path, f"holds {len(values)} values of {len(names)} leads")
        rows = to_millivolts(values.reshape(-1, len(names)).T, per_unit)
        return stack_leads(path, list(zip(names, rows, strict=True)), fs)
    elements = strip.waves.findall("WaveformData")
    stated = int(number_of(strip.stated("NumberOfLeads")) or len(elements))
    if len(elements) != stated or len(elements) > MAX_LEADS:
        raise RecordError(path, f"holds {len(elements)} leads, NumberOfLeads promises {stated}")
    leads = []
    for element in elements:
        name = element.get("lead", "")[:200].strip()
        values = numbers_of(path, f"lead {name}", element.text or "", budget)
        leads.append((name, to_millivolts(_promised(path, strip, name, values), per_unit)))
    return stack_leads(path, leads, fs)


def _promised(path: Path, strip: _Strip, name: str, values: Float64Array) -> Float64Array:
    """Return the samples of a lead that its strip promises; none if it has none."""
    n_promised = int(number_of(strip.stated("ChannelSampleCountTotal")) or len(values))
    if len(values) and not 0 < n_promised <= len(values):
        raise RecordError(
            path,
            f"lead {name} holds {len(values)} samples, ChannelSampleCountTotal promises "
            f"{n_promised}",
        )
    return values[:n_promised]


def _mv_per_unit(path: Path, strip: _Strip, hints: ReadingHints) -> float:
    """Return mV per unit from the resolution, in uVperLsb where it says no unit."""
    text = strip.stated("Resolution")
    if not text and hints.gain_per_mv:
        return 1 / hints.gain_per_mv
    element = strip.facts.get("Resolution")
    unit = (element.get("units", "") if element is not None else "")[:40] or "uVperLsb"
    per_unit = millivolts_per_unit(unit.lower().removesuffix("perlsb"))
    resolution = number_of(text)
    if not resolution or per_unit is None:
        raise RecordError(path, f"Resolution is {text!r} {unit}: expected uVperLsb")
    return resolution * per_unit


def _statements(root: Element) -> tuple[str, ...]:
    """Return the statements of the interpretation in words, each once."""
    found = root.find("Interpretation")
    if found is None:
        return ()
    texts = [text_of(e) for name in ("DiagnosisText", "ConclusionText") for e in found.iter(name)]
    return tuple(dict.fromkeys(text for text in texts if text))


def _age(root: Element, person: Element | None) -> float | None:
    """Return the age in years, as stated or at the recording."""
    age = person.find("Age") if person is not None else None
    value = number_of(text_of(age))
    if age is not None and value is not None:
        years = _YEARS.get(age.get("units", "").lower())
        return parse_age(f"{value * years:.2f}") if years else None
    born = _date(person.find("BirthDateTime")) if person is not None else None
    return age_at(born, _date(root.find("ObservationDateTime")))


def _date(element: Element | None) -> date | None:
    """Return a date whose year, month and day are elements."""
    parts = [number_of(text_of(element, name)) for name in ("Year", "Month", "Day")]
    return date_of("-".join(f"{int(part or 0):02d}" for part in parts))
