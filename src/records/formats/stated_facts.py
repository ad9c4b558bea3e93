"""What MAT and HDF5 files state about their signals: rate, scale, leads, under their many names.

Both hold values under names of the author's choice, beside the signals or in structures, groups and
attributes. A value may be one for the file, one for each lead or one for each record, as a number
or as text such as ``250 Hz``. Here are the names, their values, and the one rule for the scale of
the samples, stated or not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.config import STANDARD_LEADS
from src.records.channels import Channel, find_ecg
from src.records.facts import millivolts_per_unit
from src.records.leads import canonical_lead
from src.records.record import ReadingHints, RecordError
from src.utils import Float32Array, Float64Array

# Names without case and punctuation, in order of preference.
_NAMES = {
    "fs": (
        "fs fshz samplingrate samplingratehz samplerate sampleratehz samplingfrequency "
        "samplingfrequencyhz samplefrequency samplingfreq samplefreq sampfreq samprate srate sfreq "
        "fsamp fsample freq freqhz frequency hz"
    ),
    "interval": "samplinginterval sampleinterval samplingperiod sampleperiod dt",
    "gain": (
        "gain gains adcgain adcgains gainpermv adcgainpermv adupermv adcpermv unitspermv "
        "countspermv lsbpermv bitspermv siggain signalgain ecggain leadgain"
    ),
    "scale": (
        "scalefactor scalingfactor scaling scale conversion conversionfactor lsb resolution "
        "amplituderesolution adcresolution"
    ),
    "baseline": "baseline baselines adczero adcbaseline adcoffset digitaloffset zerolevel",
    "offset": "addoffset physicaloffset offset",
    "unit": (
        "unit units physunit physunits physicalunit physicalunits sigunit sigunits signalunit "
        "signalunits ecgunit ecgunits dataunit dataunits voltageunit voltageunits amplitudeunit "
        "amplitudeunits adcunit adcunits unitofmeasure unitofmeasurement physicaldimension "
        "leadunit leadunits channelunit channelunits"
    ),
    "leads": (
        "leads leadnames leadname leadlabels leadorder lead ecgleads signame signames signalname "
        "signalnames signallabels channelnames channelname channellabels chnames chname chlabels "
        "channels channel derivations labels label names name columns description descriptions "
        "desc"
    ),
    "age": "age patientage ageyears",
    "sex": "sex gender patientsex",
}
# mV per count under a name such as uV_per_bit.
_VOLTS_PER_COUNT = re.compile(r"([mun]?v)(?:olts?)?per(?:lsb|bit|unit|adu|count|digit)s?")
# Names that may speak of anything: they name leads only if they know some.
_VAGUE = {"labels", "label", "names", "name", "columns", "description", "descriptions", "desc"}
_PUNCTUATION = re.compile(r"[^a-z0-9]+")
# What separates names in a text, whichever of them is there.
_SEPARATORS = (",", ";", "|", "\t", "\n", None)
MIN_SAMPLES = 100
"""A matrix of a name that is not known must have at least this many samples to be a signal."""

# Structures within structures.
_MAX_DEPTH = 4
_BLANK = " \t\r\n\v\f\0"
# Letters of a rate or gain.
_MAX_TEXT = 64
# Letters of a text that is kept, such as a name or an id.
_MAX_VALUE = 10_000

_NUMBER = r"[+-]?(?:\d{1,20}(?:\.\d{0,20})?|\.\d{1,20})(?:e[+-]?\d{1,3})?"
_RATE = re.compile(
    rf"({_NUMBER})\s*(k?)(?:hz|hertz|sps|(?:samples?|s/s)?\s*(?:/|per)\s*s(?:ec(?:ond)?)?|s-1|"
    r"s\^-1)?",
    re.IGNORECASE,
)
_SECONDS = re.compile(rf"({_NUMBER})\s*(|s|sec|seconds?|ms|msec|us|µs)", re.IGNORECASE)
_PER_VOLT = re.compile(
    rf"({_NUMBER})\s*\(?(?:adu|adc|adc units?|units?|counts?|lsbs?|bits?|a\.?u\.?)?\)?"
    r"\s*(?:/|per)\s*([a-zµμ]{1,12})",
    re.IGNORECASE,
)
_VOLT_PER = re.compile(
    rf"({_NUMBER}\s*[a-zµμ]{{1,12}})(?:\s*(?:/|per)\s*[a-z. ]{{1,12}})?", re.IGNORECASE
)
# Units that say that the samples are those of the converter.
_COUNTS = re.compile(
    r"(?:adu|adc(?:units?|counts?)?|counts?|digits?|lsb|raw|au|arb(?:itrary)?|bits|nu|"
    r"none|na|n/a|unknown|nan|-)",
    re.IGNORECASE,
)
# Per count of the converter, in a unit such as uV/LSB
_PER_COUNT = re.compile(r"\s*(?:/|per)\s*(?:lsb|bit|adu|count|digit|unit)s?$", re.IGNORECASE)
_MAX_FS = 1e6

# Lowest amplitude, highest amplitude, and mV per unit. In mV the amplitude of an ECG (see
# `amplitude_of`) is near 1: single records of PTB-XL and the Challenges have 0.3 to 6.2, the median
# of several 0.9 to 1.2. Only the median of several tells units apart that differ by a factor of
# ten.
_RANGES_OF_MANY = ((3e-4, 3e-3, 1e3), (0.3, 3.0, 1.0), (3.0, 30.0, 0.1), (300.0, 3000.0, 1e-3))
_RANGES_OF_ONE = ((1e-4, 1e-2, 1e3), (0.03, 30.0, 1.0), (100.0, 10_000.0, 1e-3))
# In the layout of the CODE studies, samples are in mV or in tenths of mV.
_RANGES_OF_CODE = ((1e-4, 1e-2, 1e3), (0.03, 3.0, 1.0), (3.0, 60.0, 0.1), (100.0, 10_000.0, 1e-3))
_MANY = 8
_UNIT_OF = {1e3: "V", 1.0: "mV", 0.1: "0.1mV", 1e-3: "uV"}
# mV. The amplitude of whatever may be an ECG.
_PLAUSIBLE = (0.03, 30.0)


# Finding ------------------------------------------------------------------------------------------


class Statement(NamedTuple):
    """A fact as a file states it.

    Attributes
    ----------
    name
        Its name in the file.
    values
        Numbers as float64, or texts as objects, in the shape of the file.
    is_uniform
        Whether all values are the same.
    """

    name: str
    values: NDArray[Any]
    is_uniform: bool


@dataclass(frozen=True)
class Facts:
    """What a file states about its signals, for all of its records and leads.

    Attributes
    ----------
    fs, interval
        Sampling rate, or the time from a sample to the next.
    gain, scale
        Counts per unit of voltage, or units per count.
    baseline, offset
        Count at zero volts, or the voltage at count zero.
    unit
        Physical units.
    leads
        Names of leads.
    age, sex
        Of the patient.
    """

    fs: Statement | None = None
    interval: Statement | None = None
    gain: Statement | None = None
    scale: Statement | None = None
    baseline: Statement | None = None
    offset: Statement | None = None
    unit: Statement | None = None
    leads: Statement | None = None
    age: Statement | None = None
    sex: Statement | None = None


def fact_of(name: str) -> str | None:
    """Return which fact a name stands for, such as ``fs`` for ``Sampling Rate``, or None."""
    plain = _plain_name(name)
    if _VOLTS_PER_COUNT.fullmatch(plain):
        return "scale"
    return _FACT_OF_NAME.get(plain)


def _plain_name(name: str) -> str:
    return _PUNCTUATION.sub("", name[:_MAX_TEXT].lower())


_FACT_OF_NAME = {name: fact for fact, names in _NAMES.items() for name in names.split()}
_RANK = {name: rank for rank, name in enumerate(_FACT_OF_NAME)}


def find_facts(levels: Sequence[Mapping[str, object]]) -> Facts:
    """Return what is stated beside signals, the nearest statement first.

    Parameters
    ----------
    levels
        Names and values beside the signals, then those around these, and so on. A value is a
        number, text, array, list, or a structure as a dictionary. Structures are searched after
        what is beside them.
    """
    found: dict[str, Statement] = {}
    for level in levels:
        for stated in _nested(level):
            for name in sorted(stated, key=lambda name: _RANK.get(_plain_name(name), 0)):
                fact = fact_of(name)
                values = as_values(stated[name]) if fact and fact not in found else None
                if fact and values is not None and _may_state(fact, name, values):
                    is_uniform = bool((values == values.flat[0]).all())
                    found[fact] = Statement(name, values, is_uniform)
    return Facts(**found)


def _nested(level: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    """Yield a structure, then those in it, those on top first."""
    current = [level]
    for _ in range(_MAX_DEPTH):
        yield from current
        structures = [as_structure(value) for stated in current for value in stated.values()]
        # What is beside other signals is said of those.
        current = [
            structure
            for structure in structures
            if structure is not None and not _has_signals(structure)
        ]


def _has_signals(stated: Mapping[str, object]) -> bool:
    """Return whether a structure holds signals, as far as names and sizes tell."""
    return any(
        isinstance(value, np.ndarray)
        and value.dtype.kind in "iuf"
        and max(value.shape, default=0) >= MIN_SAMPLES
        and fact_of(name) is None
        for name, value in stated.items()
    )


def as_structure(value: object) -> Mapping[str, object] | None:
    """Return a structure, or an array of structures as one whose fields are lists; else None."""
    if isinstance(value, Mapping):
        return value
    elements = value
    if isinstance(value, np.ndarray) and value.dtype.kind == "O":
        elements = value.ravel().tolist()
    if not isinstance(elements, list) or not elements:
        return None
    if not all(isinstance(element, Mapping) for element in elements):
        return None
    return {name: [element.get(name) for element in elements] for name in elements[0]}


def _may_state(fact: str, name: str, values: NDArray[Any]) -> bool:
    """Return whether values are of the kind that a fact has."""
    is_text = values.dtype.kind == "O"
    if fact == "leads":
        known = [canonical_lead(str(text)[:_MAX_TEXT]) for text in values.ravel()[:1000]]
        listed = _split(str(values.flat[0])) if values.size == 1 else ()
        known += [canonical_lead(text) for text in listed] if len(listed) > 1 else []
        return is_text and (_plain_name(name) not in _VAGUE or any(known))
    if fact == "unit":
        return is_text
    if fact in ("baseline", "offset"):
        return not is_text
    if fact == "scale" and _plain_name(name).endswith("resolution"):
        # Otherwise the bits of the converter.
        return is_text
    return True


def as_values(value: object) -> NDArray[Any] | None:
    """Return a number, text, or list of these as an array of float64 or of texts.

    Empty matrices, empty texts and anything else give None.
    """
    if isinstance(value, (str, bytes)):
        text = as_text(value)
        return np.array([text], object) if text else None
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        numbers = value.astype(np.float64)
        return numbers if numbers.size and not np.isnan(numbers).all() else None
    if isinstance(value, (bool, int, float, np.number)):
        return None if math.isnan(value) else np.array([value], np.float64)
    if isinstance(value, np.ndarray) and value.dtype.kind in "OSU":
        held = _elements(value.ravel().tolist())
        return None if held is None else held.reshape(value.shape)
    return _elements(value) if isinstance(value, (list, tuple)) else None


def _elements(values: Sequence[object]) -> NDArray[Any] | None:
    """Return the elements of a list as float64, or as texts if any is text; None if all empty."""
    plain: list[float | str] = []
    for value in values:
        # The usual case first, as collections have an id or name for each of their records.
        held: object = value if isinstance(value, (str, bytes)) else _only_element(value)
        if isinstance(held, (str, bytes)):
            plain.append(as_text(held))
        elif isinstance(held, (int, float, np.number)):
            plain.append(float(held))
        elif held is None:
            plain.append("")
        else:
            return None
    if not any(plain):
        return None
    if all(isinstance(value, float) or not value for value in plain):
        return np.array([value if value != "" else math.nan for value in plain], np.float64)
    return np.array([_spelled(value) for value in plain], object)


def _only_element(value: object) -> object:
    """Return the element of a list or array of one, None for an empty one, else what it is."""
    while isinstance(value, (list, tuple, np.ndarray)) and len(np.shape(value)) > 0:
        if len(value) > 1:
            return value
        value = value[0] if len(value) else None
    return value.item() if isinstance(value, np.ndarray) else value


def _spelled(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def as_text(value: str | bytes) -> str:
    """Return text without spaces and zero bytes around it, cut where it is absurdly long."""
    if isinstance(value, bytes):
        return _decoded(value).strip(_BLANK)[:_MAX_VALUE]
    return value.strip(_BLANK)[:_MAX_VALUE]


def _decoded(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _split(text: str) -> tuple[str, ...]:
    """Return the parts of a list in a text, such as ``I, II, III``."""
    text = text[:1000]
    separator = next(mark for mark in _SEPARATORS if mark is None or mark in text)
    return tuple(part.strip() for part in text.split(separator) if part.strip())


# Values of one record -----------------------------------------------------------------------------


class Place(NamedTuple):
    """Which record of a file is read, and which of its leads.

    Attributes
    ----------
    row
        Its row, or None if the file has one record.
    n_records
        Number of records in the file.
    n_leads
        Number of leads in the file.
    kept
        Rows of the leads that are read.
    """

    row: int | None
    n_records: int
    n_leads: int
    kept: tuple[int, ...]


def values_at(path: Path, statement: Statement | None, place: Place) -> list[Any] | None:
    """Return what is stated for a record: one value, or one for each lead of the file, or None.

    Parameters
    ----------
    path
        The file, for error messages.
    statement
        The statement, or None.
    place
        The record.

    Raises
    ------
    RecordError
        If values may be those of records as well as those of leads.
    """
    if statement is None:
        return None
    values = statement.values
    if values.size == 1 or statement.is_uniform:
        return [values.flat[0]]
    n_records, n_leads = place.n_records, place.n_leads
    if place.row is not None:
        if values.size == n_records * n_leads and values.shape[0] == n_records:
            return list(values.reshape(n_records, n_leads)[place.row].tolist())
        if values.size == n_records:
            if n_records == n_leads and values.ndim == 1:
                raise RecordError(
                    path,
                    f"{statement.name} has {n_leads} values for as many records of as many leads: "
                    f"expected the shape ({n_records}, 1) for records or (1, {n_leads}) for leads",
                )
            if values.shape[0] == n_records:
                return [values.ravel()[place.row]]
    return list(values.ravel().tolist()) if values.size == n_leads else None


def count_of_leads(facts: Facts, sides: tuple[int, int]) -> int | None:
    """Return which side of a matrix counts leads, by the number of names, gains and units.

    Parameters
    ----------
    facts
        What the file states.
    sides
        Rows and columns of the matrix.

    Returns
    -------
    int or None
        0 for rows, 1 for columns, None if the file does not tell.
    """
    for statement in (facts.leads, facts.gain, facts.unit, facts.baseline):
        if statement is None:
            continue
        values = statement.values
        n_named = len(_split(str(values.flat[0]))) if values.size == 1 else values.shape[-1]
        n_named = values.size if values.ndim > 1 and n_named == 1 else n_named
        if n_named > 1 and (n_named in sides) and sides[0] != sides[1]:
            return sides.index(n_named)
    return None


def values_kept(path: Path, statement: Statement | None, place: Place) -> list[Any] | None:
    """Return what is stated for a record: a value for each lead that is read, or None."""
    held = values_at(path, statement, place)
    if held is None:
        return None
    return [held[row if len(held) > 1 else 0] for row in place.kept]


def lead_names(path: Path, facts: Facts, place: Place) -> tuple[str, ...]:
    """Return the names of the leads of a record, or nothing if the file does not name them all."""
    statement = facts.leads
    if statement is None:
        return ()
    n_leads = place.n_leads
    values = statement.values
    # As many records as leads: names are those of leads.
    if values.size == n_leads and values.ndim == 1:
        return tuple(map(str, values.tolist()))
    held = values_at(path, statement, place)
    if held is None:
        return ()
    names = tuple(map(str, held))
    if len(names) == 1 and n_leads > 1:
        names = _split(names[0])
    return names if len(names) == n_leads else ()


def names_or_standard(
    names: tuple[str, ...], n_leads: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return lead names and flags: twelve unnamed leads are in the standard order.

    All known sources store them so.
    """
    if names:
        return names, ()
    if n_leads == len(STANDARD_LEADS):
        return STANDARD_LEADS, ("lead_names_assumed",)
    return ("",) * n_leads, ()


class Choice(NamedTuple):
    """The ECG among the channels of a matrix.

    Attributes
    ----------
    kept
        Rows of the ECG channels.
    flags
        One for each channel that is no voltage.
    unused
        Names of the other channels.
    """

    kept: tuple[int, ...]
    flags: tuple[str, ...]
    unused: tuple[str, ...]


def choose_channels(
    path: Path, names: tuple[str, ...], units: tuple[str, ...], named: tuple[str, ...]
) -> Choice:
    """Return which channels of a matrix are its ECG; see `src.records.channels.find_ecg`.

    Parameters
    ----------
    path
        The file, for error messages.
    names
        Names of the channels, or nothing.
    units
        The unit of each, empty where none is stated.
    named
        The leads that the user named.

    Raises
    ------
    RecordError
        If none is an ECG.
    """
    names = names or ("",) * len(units)
    channels = tuple(map(Channel, names, ("",) * len(units), units))
    kept = find_ecg(channels, named).rows
    taken = set(kept)
    others = [row for row in range(len(units)) if row not in taken]
    flags = [
        f"not_a_voltage:{names[row]}" for row in others if millivolts_per_unit(units[row]) is None
    ]
    if kept:
        return Choice(kept, tuple(flags), tuple([names[row] for row in others]))
    if len(flags) == len(units):
        listed = ", ".join(sorted(set(units)))
        raise RecordError(path, f"no lead is a voltage: its unit is {listed}: expected mV, uV or V")
    raise RecordError(
        path,
        f"no ECG signal: signals are {', '.join(map(repr, names[:20]))}, expected a name such as "
        "ECG or II; name others with --leads NAME=SIGNAL:LEAD",
    )


# Rate ---------------------------------------------------------------------------------------------


def sampling_rate(
    path: Path, facts: Facts, place: Place, hints: ReadingHints, published: float | None
) -> tuple[float, tuple[str, ...]]:
    """Return the sampling rate in Hz, and flags: that of the file, given, or published.

    Raises
    ------
    RecordError
        If the rate is unknown, or the file states one that cannot be understood and none is given.
    """
    rates, stated = stated_rates(path, facts, place)
    if rates:
        if len(set(rates)) > 1:
            raise RecordError(
                path,
                f"states rates of {min(rates):g} to {max(rates):g} Hz for the leads of one record: "
                "expected one",
            )
        return rates[0], ()
    if hints.fs:
        return float(hints.fs), (f"fs_not_understood:{stated}",) if stated else ()
    if stated:
        raise RecordError(
            path,
            f"its sampling rate is {stated}: expected Hz, or give --source-fs NAME=HZ (source_fs=)",
        )
    if published is None:
        raise RecordError(path, "says no sampling rate: give --source-fs NAME=HZ (source_fs=)")
    return published, ("fs_assumed",)


def stated_rates(path: Path, facts: Facts, place: Place) -> tuple[list[float], str]:
    """Return the rates in Hz that a file states for a record, and a text that is no rate."""
    stated = ""
    for statement, read in ((facts.fs, _parse_rate), (facts.interval, _parse_interval)):
        if statement is None:
            continue
        # Records that are as many as leads: rates are those of records.
        per_record = statement.values.size == place.n_records and place.row is not None
        values = (
            [statement.values.flat[place.row]]
            if per_record and place.row is not None
            else values_kept(path, statement, place)
        )
        held = [value for value in values or [] if not _is_void(value)]
        rates = [read(value) for value in held]
        if rates and all(0 < rate <= _MAX_FS for rate in rates):
            return rates, ""
        stated = stated or (f"{statement.name}={held[0]}" if held else "")
    return [], stated[:_MAX_TEXT]


def _is_void(value: object) -> bool:
    """Return whether a value says that it is not known."""
    if isinstance(value, float):
        return math.isnan(value) or value == 0
    return not value or str(value).lower() in {"unknown", "none", "na", "n/a", "nan", "-", "0"}


def _parse_rate(value: object) -> float:
    """Return Hz of a number or of text such as ``250 Hz``, ``0.5 kHz`` or ``500 samples/s``."""
    if isinstance(value, float):
        return value
    match = _RATE.fullmatch(_comma_to_point(str(value)))
    return float(match[1]) * (1000 if match[2] else 1) if match else math.nan


def _parse_interval(value: object) -> float:
    """Return Hz for the time between samples: ``4 ms``, or a number of seconds or milliseconds."""
    match = _SECONDS.fullmatch(_comma_to_point(str(value)))
    seconds = float(match[1]) if match else 0.0
    if seconds <= 0 or match is None:
        return math.nan
    unit = match[2].lower()
    # No ECG has a sample every 50 ms or less often.
    if unit.startswith("ms") or (not unit and seconds >= 0.05):
        seconds /= 1e3
    elif unit in ("us", "µs"):
        seconds /= 1e6
    return 1 / seconds


def _comma_to_point(text: str) -> str:
    return text.strip()[:_MAX_TEXT].replace(",", ".") if text.count(",") == 1 else text[:_MAX_TEXT]


# Scale --------------------------------------------------------------------------------------------


class Probe(NamedTuple):
    """A look at the samples of a file.

    Attributes
    ----------
    amplitude
        Median over records and leads of the range from the 1st to the 99th percentile.
    n_records
        Number of records in the median.
    is_whole
        Whether all samples are whole numbers.
    """

    amplitude: float
    n_records: int
    is_whole: bool


class Scale(NamedTuple):
    """How samples become mV: (sample - baseline) x factor + offset, each one or one for a lead."""

    factor: Float64Array
    baseline: Float64Array
    offset: Float64Array
    flags: tuple[str, ...]

    def apply(self, samples: NDArray[Any]) -> Float32Array:
        """Return samples of shape (n_leads, n_samples) in mV."""
        if self.baseline.any() or self.offset.any():
            shifted = samples - self.baseline[:, None]
            return (shifted * self.factor[:, None] + self.offset[:, None]).astype(np.float32)
        if (self.factor == 1).all():
            return np.asarray(samples, np.float32)
        if samples.dtype == np.float32:
            return np.asarray(samples * self.factor.astype(np.float32)[:, None], np.float32)
        return (samples * self.factor[:, None]).astype(np.float32)


class SignalKind(NamedTuple):
    """What the name and type of a matrix say of its samples.

    Attributes
    ----------
    is_physical
        Whether its name says that gain and baseline are applied already (``p_signal``).
    is_integer
        Whether samples are integers by type.
    is_code
        Whether it has the layout of the CODE studies, which is in mV or tenths of mV.
    """

    is_physical: bool = False
    is_integer: bool = False
    is_code: bool = False


def voltage_scale(
    path: Path,
    facts: Facts,
    place: Place,
    kind: SignalKind,
    gain_per_mv: float | None,
    probe: Callable[[], Probe],
) -> Scale:
    """Return the scale of a record: stated, given, or the one that explains the amplitude.

    Parameters
    ----------
    path
        The file, for error messages.
    facts
        What the file states.
    place
        The record.
    kind
        What the matrix is.
    gain_per_mv
        Units per mV as the user gave them, or None.
    probe
        Looks at the samples, if that is needed.

    Raises
    ------
    RecordError
        If the scale is neither stated nor given, and cannot be told from the amplitude.
    """
    n_leads = len(place.kept)
    per_unit, is_stated, unit_flags = _unit_factors(path, facts, place)
    per_count, counted_in, gain_flags = _count_factors(path, facts, place, gain_per_mv)
    baseline = _numbers(path, facts.baseline, place, 0.0)
    offset = _numbers(path, facts.offset, place, 0.0)
    if counted_in == "gain" and offset.any() and not baseline.any():
        # Beside a gain, an offset is one of the converter.
        baseline, offset = offset, np.zeros(n_leads)
    if per_count is not None and kind.is_physical:
        per_count, baseline = None, np.zeros(n_leads)
    elif per_count is not None and not kind.is_integer and counted_in == "gain":
        physical = per_unit if is_stated else np.ones(n_leads)
        if _is_physical_already(probe(), physical, per_count):
            per_count, baseline = None, np.zeros(n_leads)
            gain_flags = ("gain_not_applied",)
    flags = (*unit_flags, *gain_flags)
    if per_count is not None:
        if counted_in == "mV":
            return Scale(per_count, baseline, offset * per_unit, flags)
        if is_stated or counted_in == "gain":
            return Scale(per_count * per_unit, baseline, offset * per_unit, flags)
    elif is_stated:
        return Scale(per_unit, baseline, offset * per_unit, flags)
    if gain_per_mv:
        return Scale(np.full(n_leads, 1 / gain_per_mv), baseline, np.zeros(n_leads), flags)
    step = np.ones(n_leads) if per_count is None else per_count
    factor = _factor_by_amplitude(path, kind, probe(), float(np.median(step)))
    flags = (*flags, f"unit_assumed:{_UNIT_OF[factor]}")
    return Scale(step * factor, baseline, offset * factor, flags)


def _unit_factors(
    path: Path, facts: Facts, place: Place
) -> tuple[Float64Array, bool, tuple[str, ...]]:
    """Return mV per unit of each lead, whether the file states any, and flags."""
    stated = stated_units(path, facts, place)
    units = [stated[row] for row in place.kept]
    factors = np.ones(len(units))
    if not any(units):
        return factors, False, ()
    known = [millivolts_per_unit(unit) if unit else None for unit in units]
    for unit, factor in zip(units, known, strict=True):
        if unit and factor is None:
            raise RecordError(path, f"its unit is {unit}: expected mV, uV or V")
    usual = next(factor for factor in known if factor is not None)
    factors[:] = [usual if factor is None else factor for factor in known]
    flags = () if all(units) else (f"unit_assumed:{_UNIT_OF.get(usual, f'{usual:g}mV')}",)
    return factors, True, flags


def stated_units(path: Path, facts: Facts, place: Place) -> tuple[str, ...]:
    """Return the unit of each lead of the file, empty where the file states none.

    A unit such as ``adu`` says that the samples are those of a converter, which is no unit.
    """
    held = values_at(path, facts.unit, place)
    if held is None:
        return ("",) * place.n_leads
    texts = [str(value) for value in held]
    if len(texts) == 1 and place.n_leads > 1:
        listed = _split(texts[0])
        texts = list(listed) if len(listed) == place.n_leads else texts * place.n_leads
    texts = [_PER_COUNT.sub("", text[:_MAX_TEXT]) for text in texts]
    return tuple("" if _COUNTS.fullmatch(text.replace(" ", "")) else text for text in texts)


def _count_factors(
    path: Path, facts: Facts, place: Place, gain_per_mv: float | None
) -> tuple[Float64Array | None, str, tuple[str, ...]]:
    """Return what a count is for each lead, how it is stated, and flags.

    It is stated in ``mV``, or in the unit of the file by a ``gain`` or ``scale``. None and empty
    text stand for a file that says nothing.
    """
    for statement, is_gain in ((facts.gain, True), (facts.scale, False)):
        if statement is None:
            continue
        held = values_kept(path, statement, place)
        if held is None:
            if gain_per_mv or not is_gain:
                continue
            raise RecordError(
                path,
                f"{statement.name} has {statement.values.size} values for {place.n_leads} leads: "
                "expected one, or one for each; or give --source-gain NAME=ADU_PER_MV "
                "(source_gain_per_mv=)",
            )
        counts = [_parse_count(value, is_gain, statement.name) for value in held]
        known = [count for count in counts if count is not None]
        if not known:
            continue
        factors = [_factor_of(path, count, statement, gain_per_mv) for count in counts]
        flags = ("gain_negative",) if min(factors) < 0 else ()
        counted_in = "gain" if is_gain else "scale"
        return np.array(factors), "mV" if known[0].is_millivolts else counted_in, flags
    return None, "", ()


class _Count(NamedTuple):
    """What a count of the converter is, and whether that is in mV or in the unit of the file."""

    size: float
    is_millivolts: bool


def _factor_of(
    path: Path, count: _Count | None, statement: Statement, gain_per_mv: float | None
) -> float:
    """Return the size of a count; a lead without a gain has the one that is given."""
    if count is not None:
        return count.size
    if gain_per_mv:
        return 1 / gain_per_mv
    raise RecordError(
        path,
        f"{statement.name} is missing for some leads: give --source-gain NAME=ADU_PER_MV "
        "(source_gain_per_mv=)",
    )


def _parse_count(value: object, is_gain: bool, name: str) -> _Count | None:
    """Return what a count is, from a gain such as 1000 or ``1000/mV``, or a scale as ``4.88 uV``.

    None stands for a value that says nothing.
    """
    if isinstance(value, float):
        if not math.isfinite(value) or value == 0:
            return None
        volts = _VOLTS_PER_COUNT.fullmatch(_plain_name(name))
        if volts is not None:
            return _Count(value * (millivolts_per_unit(volts[1]) or 1.0), True)
        return _Count(1 / value if is_gain else value, False)
    text = _comma_to_point(str(value)).strip()
    if re.fullmatch(_NUMBER, text, re.IGNORECASE):
        return _parse_count(float(text), is_gain, name)
    per_volt = _PER_VOLT.fullmatch(text)
    if per_volt is not None and millivolts_per_unit(per_volt[2]) is not None:
        size = float(per_volt[1])
        return _Count((millivolts_per_unit(per_volt[2]) or 1.0) / size, True) if size else None
    volt_per = _VOLT_PER.fullmatch(text)
    size = (millivolts_per_unit(volt_per[1]) or 0.0) if volt_per else 0.0
    return _Count(size, True) if size else None


def _numbers(path: Path, statement: Statement | None, place: Place, default: float) -> Float64Array:
    """Return a number for each lead."""
    held = values_kept(path, statement, place)
    numbers = np.full(len(place.kept), default)
    if held is not None:
        numbers[:] = held
    return np.where(np.isfinite(numbers), numbers, default)


def _is_physical_already(probe: Probe, per_unit: Float64Array, per_count: Float64Array) -> bool:
    """Return whether samples are voltages as they are, and the gain is that of the recorder.

    That is so if they are no whole numbers, and only without the gain of a plausible amplitude.
    """
    if probe.is_whole or not probe.amplitude:
        return False
    plain = probe.amplitude * float(np.median(per_unit))
    scaled = plain * abs(float(np.median(per_count)))
    low, high = _PLAUSIBLE
    return low <= plain <= high and not low <= scaled <= high


def _factor_by_amplitude(path: Path, kind: SignalKind, probe: Probe, step: float) -> float:
    """Return mV per unit, or refuse samples of a converter and amplitudes that no unit explains."""
    amplitude = probe.amplitude * abs(step)
    # Integers are ADC values, and the gains of converters are of any size. MATLAB stores them as
    # floats.
    is_counts = kind.is_integer or (probe.is_whole and probe.amplitude > _PLAUSIBLE[1])
    if is_counts and step == 1:
        raise RecordError(
            path,
            "holds whole numbers and says no unit and no gain: give --source-gain NAME=ADU_PER_MV "
            "(source_gain_per_mv=), 1 if it is in mV",
        )
    factor = unit_by_amplitude(amplitude, probe.n_records, is_code=kind.is_code)
    if factor is None:
        raise RecordError(
            path,
            f"says no unit, and an amplitude of {amplitude:.3g} fits no voltage: give "
            "--source-gain NAME=UNITS_PER_MV (source_gain_per_mv=)",
        )
    return factor


def unit_by_amplitude(amplitude: float, n_records: int, *, is_code: bool = False) -> float | None:
    """Return mV per unit for signals of a typical amplitude, or None if no unit explains it.

    Parameters
    ----------
    amplitude
        As of `Probe`.
    n_records
        Number of records in the median. Only the median of several tells mV from tenths of mV.
    is_code
        Whether the file has the layout of the CODE studies, whose unit is one of these. A few
        records then are enough.
    """
    # Flat signals look the same in any unit.
    if not amplitude or math.isnan(amplitude):
        return 1.0
    ranges = _RANGES_OF_MANY if n_records >= _MANY else _RANGES_OF_ONE
    if is_code and n_records < _MANY:
        ranges = _RANGES_OF_CODE
    for low, high, factor in ranges:
        if low <= amplitude < high:
            return factor
    return None


def amplitude_of(values: NDArray[Any]) -> float:
    """Return the median over leads of the range from the 1st to the 99th percentile.

    Flat leads do not count. The amplitude is 0 if all leads are flat.

    Parameters
    ----------
    values
        Shape (n_leads, n_samples).
    """
    # About two thousand samples are enough.
    thinned = np.nan_to_num(values[:, :: max(1, values.shape[1] // 2000)])
    thinned = thinned[:, (thinned != 0).any(axis=0)]
    if not thinned.shape[1]:
        return 0.0
    # Damaged floats may be as large as floats get.
    with np.errstate(all="ignore"):
        low, high = np.percentile(thinned, (1, 99), axis=1)
        ranges = (high - low)[high > low]
    return float(np.median(ranges)) if ranges.size else 0.0


def is_whole(values: NDArray[Any]) -> bool:
    """Return whether all samples of a signal are whole numbers; missing ones do not count."""
    thinned = np.nan_to_num(values[:, :: max(1, values.shape[1] // 2000)])
    with np.errstate(all="ignore"):
        return bool((thinned == np.rint(thinned)).all())
