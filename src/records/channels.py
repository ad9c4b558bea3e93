"""The channels of a file: which of them are the ECG, and which leads they are.

One rule for all formats. A reader describes the channels of its file as `Channel`, and `find_ecg`
returns those to read. `name_leads` says which of the twelve leads the channels read are.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from src.config import STANDARD_LEADS
from src.records.facts import millivolts_per_unit
from src.records.leads import MAX_NAME, canonical_lead, has_ecg_word, is_other_lead, is_unnamed
from src.records.record import ECGRecord
from src.utils import Float32Array

# C3 is an ECG lead on the chest and an electrode of an EEG, D1 lead I and an electrode in a brain.
_AMBIGUOUS = re.compile(r"[CD]?\d", re.IGNORECASE)
# Quantities computed from an ECG, which sleep studies store beside it
_NUMERICS = re.compile(
    r"HR|BPM|RATE|RR|IBI|STATUS|STAT|QUALITY|SQI|OFF|IMP|IMPEDANCE|EVENTS?|MARKERS?|TRIG(?:GER)?|"
    r"PACER?|RESP(?:IRATION)?|EDR|ST\d?|QRS|BEATS?|ANN(?:OTATIONS?)?"
)
# Words of names and transducers of other signals
_OTHER_SIGNALS = re.compile(
    r"EEG\w*|E[OMGD]G\w*|EOG\w*|MEG|PCG|BCG|SCG|ICG|EDA|GSR|EGG|ERG|"
    r"RESP\w*|BREATH\w*|AIR\w*|FLOW\w*|NASAL\w*|ORAL\w*|SNOR\w*|THOR\w*|ABD\w*|CHEST|EFFORT|RIP|"
    r"PLETH\w*|PPG\w*|PULSE\w*|[SP][PA]?A?O2|O2|ET?CO2|CO2|SAT|OX\w*|"
    r"[AN]?I?BP\w*|ART\w*|ABP\w*|CVP|PAP|ICP|CPP|UAP|PRESS\w*|CPAP|"
    r"TEMP\w*|ACC\w*|GYR\w*|POS\w*|BODY\w*|MOVE\w*|LEG\w*|TIB\w*|LAT|RAT|CHIN\w*|"
    r"LOC|ROC|E[12]|M[12]|A[12]|DC\d*|LIGHT\w*|SOUND\w*|MIC\w*|AUDIO|PHONO\w*|STIM\w*|"
    r"BATT\w*|VOLT|TIME\w*|COUNT\w*|SYNC\w*|STAGE\w*|HYPNO\w*|"
    r"(?:FP|AF|FC|FT|CP|TP|PO|F|T|P|O|N)(?:Z|\d{1,2})|[CFO]Z"
)
_SEPARATORS = re.compile(r"[\W_]+")


class Channel(NamedTuple):
    """A channel as its file describes it.

    Attributes
    ----------
    name
        Its name or code.
    transducer
        The sensor, empty where the format has no such field.
    unit
        Physical unit; empty if the file states none.
    fs
        Sampling rate in Hz.
    """

    name: str
    transducer: str = ""
    unit: str = ""
    fs: float = 0.0


class EcgChannels(NamedTuple):
    """The ECG among the channels of a file, as indices of these.

    Attributes
    ----------
    rows
        ECG channels that are voltages, in the order of the file.
    not_voltages
        ECG channels whose unit is that of something else.
    unused
        All channels but `rows`.
    """

    rows: tuple[int, ...]
    not_voltages: tuple[int, ...]
    unused: tuple[int, ...]


# Records of a collection share their channels.
@lru_cache(maxsize=1024)
def find_ecg(channels: tuple[Channel, ...], named: tuple[str, ...] = ()) -> EcgChannels:
    """Return the ECG channels: by their name, their transducer, or for want of any other.

    A channel is an ECG if its name or transducer says so, or if its name is that of a lead. If
    there is none, all voltages that are not known to be another signal are taken.

    Parameters
    ----------
    channels
        The channels in the order of the file, without annotations.
    named
        The leads that the user named (see `LeadNames`). A channel named there is an ECG.
    """
    names = LeadNames.parse(named)
    ecg = [i for i, channel in enumerate(channels) if _says_ecg(channel) or names.has(channel.name)]
    ecg = sorted({*ecg, *_bare_leads(channels, has_ecg=bool(ecg))})
    voltages = [i for i in ecg if _is_voltage(channels[i])]
    if not voltages:
        voltages = [
            i
            for i, channel in enumerate(channels)
            if _is_voltage(channel) and not is_other_signal(channel)
        ]
    kept = set(voltages)
    return EcgChannels(
        tuple(voltages),
        tuple(i for i in ecg if i not in kept),
        tuple(i for i in range(len(channels)) if i not in kept),
    )


def _is_voltage(channel: Channel) -> bool:
    return millivolts_per_unit(channel.unit) is not None


def _says_ecg(channel: Channel) -> bool:
    """Return whether the name or the transducer of a channel says that it is an ECG."""
    if any(_NUMERICS.fullmatch(word) for word in _words(channel.name)):
        return False
    if has_ecg_word(channel.name):
        return True
    return has_ecg_word(channel.transducer) and not is_other_signal(Channel(channel.name))


def _bare_leads(channels: Sequence[Channel], has_ecg: bool) -> list[int]:
    """Return the channels whose name is only that of a lead.

    Names such as C3 count only where no channel is called ECG and another has a plainer name, since
    they may be electrodes of an EEG.
    """
    leads = [
        i
        for i, channel in enumerate(channels)
        if (canonical_lead(channel.name) or is_other_lead(channel.name))
        and not (channel.transducer and is_other_signal(Channel("", channel.transducer)))
    ]
    plain = [i for i in leads if not _AMBIGUOUS.fullmatch(channels[i].name.strip())]
    return leads if plain and not has_ecg else plain


def is_other_signal(channel: Channel) -> bool:
    """Return whether a channel is known to be something else than an ECG."""
    words = [*_words(channel.name), *_words(channel.transducer)]
    return any(_OTHER_SIGNALS.fullmatch(word) or _NUMERICS.fullmatch(word) for word in words) or (
        re.fullmatch(r"C\d", channel.name.strip(), re.IGNORECASE) is not None
    )


# Hz. Slower channels called ECG are qualities and other trends, not leads.
MIN_LEAD_FS = 100.0


def at_rate(values: Float32Array, first: float, step: float, n_samples: int) -> Float32Array:
    """Return a channel's samples at the rate of the record, shape (n_samples,).

    Parameters
    ----------
    values
        The channel's own samples, shape (n,).
    first
        Position of the first sample to return among these.
    step
        Own samples per sample of the record. Between them the signal is a line.
    n_samples
        How many to return.

    Returns
    -------
    Float32Array
        NaN for samples that lie beyond the channel's.
    """
    signal = np.full(n_samples, np.nan, np.float32)
    if step == 1 and first == int(first):
        found = values[int(first) : int(first) + n_samples]
        signal[: len(found)] = found
        return signal
    positions = first + step * np.arange(n_samples)
    is_stored = positions < len(values)
    signal[is_stored] = np.interp(positions[is_stored], np.arange(len(values)), values)
    return signal


def _words(text: str) -> list[str]:
    return [word for word in _SEPARATORS.split(text[:MAX_NAME].upper()) if word]


# Leads ------------------------------------------------------------------------------------------


def name_leads(names: tuple[str, ...]) -> tuple[tuple[str | None, ...], tuple[str, ...]]:
    """Return which of the twelve leads the ECG channels of a record are, and flags of assumptions.

    If no channel says its lead, twelve are taken for the standard order (``lead_names_assumed``),
    a single one for lead I (``single_lead_as_I``), and of several the first
    (``first_lead_as_I``).

    Parameters
    ----------
    names
        Names as in the source.

    Returns
    -------
    leads
        Standard names; None where a channel is none of the twelve, or not known to be.
    flags
        The assumptions.
    """
    leads = tuple(canonical_lead(name) for name in names)
    if len(names) == 1 and leads[0] is None and _may_be_any_lead(names[0]):
        return ("I",), ("single_lead_as_I",)
    if any(leads) or not names or not all(map(is_unnamed, names)):
        return leads, ()
    if len(names) == len(STANDARD_LEADS):
        return STANDARD_LEADS, ("lead_names_assumed",)
    return ("I", *[None] * (len(names) - 1)), ("first_lead_as_I",)


def _may_be_any_lead(name: str) -> bool:
    """Return whether a name speaks neither of a lead nor of another signal."""
    return is_unnamed(name) or not (is_other_lead(name) or is_other_signal(Channel(name)))


def name_channels(record: ECGRecord, named: tuple[str, ...]) -> ECGRecord:
    """Return a record with the leads that its user names; see `LeadNames`.

    Names by place are used where not every channel says its lead.

    Raises
    ------
    ValueError
        If the number of channels is another than that of the names, or two have a name that is to
        be a lead.
    """
    names = LeadNames.parse(named)
    if names.by_name:
        leads = [names.by_name.get(_folded(channel), channel) for channel in record.leads]
        twice = [lead for lead in names.by_name.values() if lead != "-" and leads.count(lead) > 1]
        if twice:
            raise ValueError(
                f"has {leads.count(twice[0])} channels that --leads or the file calls {twice[0]}: "
                f"its channels are {', '.join(record.leads)}, name them by place (--leads "
                "NAME=II,V5)"
            )
    elif _says_all_leads(record):
        return record
    else:
        leads = list(names.by_place)
        if len(leads) != record.n_leads:
            raise ValueError(
                f"has {record.n_leads} ECG channels ({', '.join(map(repr, record.leads))}), "
                f"--leads names {len(leads)}: expected one name for each, - for one not to be used"
            )
    kept = [row for row, lead in enumerate(leads) if lead != "-"]
    unused = [channel for channel, lead in zip(record.leads, leads, strict=True) if lead == "-"]
    return dataclasses.replace(
        record,
        signal=record.signal[kept] if unused else record.signal,
        leads=tuple(leads[row] for row in kept),
        flags=tuple(flag for flag in record.flags if flag != "lead_names_assumed"),
        unused=(*record.unused, *unused),
    )


def _says_all_leads(record: ECGRecord) -> bool:
    """Return whether the file of a record says which lead each channel is."""
    leads = {canonical_lead(name) for name in record.leads}
    is_distinct = None not in leads and len(leads) == record.n_leads
    return is_distinct and "lead_names_assumed" not in record.flags


class LeadNames(NamedTuple):
    """The leads of a collection as its user names them.

    Attributes
    ----------
    by_place
        Lead of each ECG channel in the order of the file, ``-`` for one that is not to be used.
    by_name
        Lead of a channel by its name without regard to case.
    """

    by_place: tuple[str, ...]
    by_name: dict[str, str]

    @classmethod
    def parse(cls, texts: Sequence[str]) -> LeadNames:
        """Parse names such as ``("II", "V5")`` or ``("ECG1:II", "ECG2:V5")``.

        Raises
        ------
        ValueError
            If a name is no lead, a lead is named twice, or both ways are mixed.
        """
        by_name: dict[str, str] = {}
        by_place: list[str] = []
        for text in texts:
            channel, separator, lead = text.rpartition(":")
            known = "-" if lead.strip() == "-" else canonical_lead(lead)
            if known is None:
                raise ValueError(
                    f"{text!r}: expected one of {', '.join(STANDARD_LEADS)}, or - for a channel "
                    "that is not to be used"
                )
            if separator:
                by_name[_folded(channel)] = known
            else:
                by_place.append(known)
        used = [lead for lead in (*by_place, *by_name.values()) if lead != "-"]
        if len(set(used)) < len(used) or (by_place and by_name) or len(texts) > 1000:
            raise ValueError(
                f"{','.join(texts)!r}: expected each lead once, all by place (II,V5) or all by "
                "name (ECG1:II,ECG2:V5)"
            )
        return cls(tuple(by_place), by_name)

    def has(self, channel: str) -> bool:
        """Return whether a channel is named as a lead."""
        return self.by_name.get(_folded(channel), "-") != "-"


def _folded(name: str) -> str:
    return " ".join(name.split()).casefold()
