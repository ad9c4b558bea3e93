"""Mortara ELI XML (root ``ECG``): the samples of a channel in base64, in an attribute.

mV = (sample + OFFSET) / UNITS_PER_MV. The layout is that of exports; OFFSET is understood as in
BRAVEHEART (H. F. Stabenau and J. W. Waks).
"""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from src.records.facts import parse_age, parse_sex
from src.records.formats.safe_xml import MAX_LEADS, bytes_of, number_of
from src.records.formats.xml_leads import age_at, date_of, stack_leads, to_millivolts
from src.records.leads import derive_limb_leads
from src.records.record import ECGRecord, ReadingHints, RecordError
from src.utils import Float32Array

_BITS = ("8", "16", "32")
_LABELS = {"id": "patient", "idid": "patient", "age": "age", "ageyr": "age", "sex": "sex"}


def read_mortara(path: Path, root: Element, hints: ReadingHints) -> ECGRecord:
    """Read the channels of the rhythm; the typical cycle is not part of the record.

    Raises
    ------
    RecordError
        If there is no channel, or one is damaged.
    """
    channels = root.findall("CHANNEL")
    if not 0 < len(channels) <= MAX_LEADS:
        raise RecordError(path, f"has {len(channels)} CHANNEL: expected 1 to {MAX_LEADS}")
    leads = [(_fact(channel, "NAME"), _samples(path, channel, hints)) for channel in channels]
    rates = {number_of(_fact(channel, "SAMPLE_FREQ")) or hints.fs or 0.0 for channel in channels}
    if len(rates) != 1 or min(rates) <= 0:
        raise RecordError(path, f"channels have SAMPLE_FREQ {sorted(rates)}: expected one, in Hz")
    wave = stack_leads(path, leads, rates.pop())
    signal, names, derived = derive_limb_leads(wave.signal, wave.names)
    person = _person(root)
    born, recorded = date_of(person.get("born", "")), date_of(_fact(root, "ACQUISITION_TIME"))
    age = parse_age(person["age"]) if "age" in person else age_at(born, recorded)
    return ECGRecord(
        record_id=path.stem,
        signal=signal,
        fs=wave.fs,
        leads=names,
        age=age,
        sex=parse_sex(person.get("sex", "")),
        patient_id=person.get("patient"),
        flags=(*wave.flags, *derived),
    )


def _fact(element: Element | None, name: str) -> str:
    return element.get(name, "")[:200].strip() if element is not None else ""


def _samples(path: Path, channel: Element, hints: ReadingHints) -> Float32Array:
    """Return the samples of a channel in mV, shape (n_samples,)."""
    name = _fact(channel, "NAME")
    bits = _fact(channel, "BITS") or "16"
    form = _fact(channel, "FORMAT").upper() or "SIGNED"
    encoding = _fact(channel, "ENCODING").upper() or "BASE64"
    if bits not in _BITS or form not in ("SIGNED", "UNSIGNED") or encoding != "BASE64":
        raise RecordError(
            path,
            f"channel {name} is {form} {encoding} of {bits} bits: expected SIGNED or UNSIGNED "
            f"BASE64 of {', '.join(_BITS)} bits",
        )
    units = number_of(_fact(channel, "UNITS_PER_MV"))
    if not _fact(channel, "UNITS_PER_MV"):
        units = hints.gain_per_mv
    zero = number_of(_fact(channel, "OFFSET") or "0")
    if not units or zero is None:
        raise RecordError(
            path,
            f"channel {name} has UNITS_PER_MV {_fact(channel, 'UNITS_PER_MV')!r} and OFFSET "
            f"{_fact(channel, 'OFFSET')!r}: expected numbers",
        )
    raw = bytes_of(path, f"channel {name}", channel.get("DATA") or channel.text or "")
    width = int(bits) // 8
    values = np.frombuffer(raw[: len(raw) // width * width], f"<{'iu'[form == 'UNSIGNED']}{width}")
    n_promised = int(number_of(_fact(channel, "DURATION")) or len(values))
    if not 0 <= n_promised <= len(values):
        raise RecordError(
            path, f"channel {name} holds {len(values)} samples, DURATION promises {n_promised}"
        )
    counts = values[:n_promised].astype(np.float64)
    return to_millivolts(counts, 1 / units, zero, n_bits=8 * width)


def _person(root: Element) -> dict[str, str]:
    """Return what is known of the patient: ``patient``, ``age``, ``sex`` and ``born``.

    It is in the attributes of SUBJECT, or in labelled fields.
    """
    subject = root.find("SUBJECT")
    names = {"patient": "ID", "age": "AGE", "sex": "GENDER", "born": "DOB"}
    known = {fact: _fact(subject, name) for fact, name in names.items()}
    for field in root.iter("DEMOGRAPHIC_FIELD"):
        label = "".join(filter(str.isalpha, _fact(field, "LABEL").lower()))
        if label in _LABELS and not known[_LABELS[label]]:
            known[_LABELS[label]] = _fact(field, "VALUE")
    return {fact: text for fact, text in known.items() if text}
