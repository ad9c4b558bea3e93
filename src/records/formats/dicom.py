"""DICOM waveforms (12-lead, general and ambulatory ECG), read with the optional package pydicom.

Format: DICOM PS3.3, section C.10.9 (Waveform Module).
"""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from src.records.channels import Channel, find_ecg
from src.records.facts import millivolts_per_unit, parse_age, parse_sex
from src.records.formats.dicom_access import Budget, items_of, open_dicom, value_of
from src.records.formats.errors import package_error
from src.records.leads import canonical_lead, derive_limb_leads
from src.records.record import MAX_VALUES, ECGRecord, ReadingHints, RecordError, RecordRequest
from src.utils import Float32Array, Float64Array

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


# Characters of the name of a lead
_MAX_NAME = 200
# Class of the list of files on a medium, which is no recording.
_DIRECTORY = b"1.2.840.10008.1.3.10"
# Value representations that the first elements of a file have.
_FIRST_VRS = frozenset((b"UL", b"OB", b"UI", b"CS", b"DA", b"TM", b"SH", b"LO", b"DT", b"IS"))
# Groups of the first elements of a file without a preamble.
_FIRST_GROUPS = (0x0002, 0x0008)


def is_dicom(head: bytes) -> bool:
    """Return whether a file is DICOM, by its first bytes: with or without preamble."""
    if _DIRECTORY in head[:400]:
        return False
    return head[128:132] == b"DICM" or _begins_with_elements(head)


def _begins_with_elements(head: bytes) -> bool:
    """Return whether a file without preamble begins with two elements in the order of their tags.

    Older files are without it, and so are those saved from a network.
    """
    at, last = 0, (0, -1)
    for _ in range(2):
        if len(head) < at + 12:
            return False
        group, element, length = struct.unpack_from("<HHI", head, at)
        vr = head[at + 4 : at + 6]
        if vr in _FIRST_VRS:
            is_long = vr == b"OB"
            length = struct.unpack_from(
                "<I" if is_long else "<H", head, at + (8 if is_long else 6)
            )[0]
            at += 12 if is_long else 8
        else:
            at += 8
        if group not in _FIRST_GROUPS or (group, element) <= last or length % 2 or length > 1024:
            return False
        last = group, element
        at += length
    return True


def read_dicom(path: Path, request: RecordRequest) -> ECGRecord:
    """Read the multiplex group of the most leads times seconds; others are flagged.

    A median beat is short, and a rhythm strip has few leads, so neither is taken for the recording.

    Raises
    ------
    RecordError
        If pydicom is not installed, or the file is damaged or has no ECG waveform.
    """
    try:
        with warnings.catch_warnings():
            # The package warns of values that are not needed here.
            warnings.simplefilter("ignore")
            return _read(path, request.hints)
    except RecordError:
        raise
    # The package raises whatever a damaged file makes it meet.
    except Exception as error:  # noqa: BLE001
        raise package_error(path, error, "DICOM") from None


def _read(path: Path, hints: ReadingHints) -> ECGRecord:
    file = _File(path, Budget(path))
    dataset = open_dicom(path, _begins_with_elements, file.budget)
    groups = file.items(dataset, "WaveformSequence")
    if not groups:
        kind = file.value(dataset, "Modality") or "unknown"
        raise RecordError(
            path, f"holds no waveform (modality {kind}): expected the ECG of an electrocardiograph"
        )
    group = _read_fullest(file, dataset, groups, hints)
    flags = list(group.flags)
    # What was computed from the recording, such as a median beat, is no part of it.
    n_recorded = sum(
        str(file.value(item, "WaveformOriginality") or "") != "DERIVED" for item in groups
    )
    if n_recorded > 1:
        flags.append(f"waveform_groups:{n_recorded}")
    signal, leads, derived = derive_limb_leads(group.signal, group.names)
    return ECGRecord(
        record_id=path.stem,
        signal=signal,
        fs=group.fs,
        leads=leads,
        age=_age(str(file.value(dataset, "PatientAge") or "")),
        sex=parse_sex(file.value(dataset, "PatientSex") or ""),
        patient_id=str(file.value(dataset, "PatientID") or "") or None,
        flags=(*flags, *derived),
        unused=group.unused,
    )


class _File(NamedTuple):
    """A file that is read: its path, and the budget of its parser."""

    path: Path
    budget: Budget

    def value(self, item: Dataset, name: str) -> Any:
        """Return a value of an item, or None; see `value_of`."""
        return value_of(self.path, item, name)

    def items(self, item: Dataset, name: str) -> list[Dataset]:
        """Return the items of a sequence; see `items_of`."""
        return items_of(self.path, item, name, self.budget)


class _Group(NamedTuple):
    """A multiplex group: its signal in mV (n_leads, n_samples), leads, rate, flags, other names."""

    signal: Float32Array
    names: tuple[str, ...]
    fs: float
    flags: tuple[str, ...]
    unused: tuple[str, ...]


def _read_fullest(
    file: _File, dataset: Dataset, groups: list[Dataset], hints: ReadingHints
) -> _Group:
    """Read the group of the most leads times seconds that is not damaged."""
    amounts = [_amount(file, group, hints) for group in groups]
    problems = []
    for index in sorted(range(len(amounts)), key=lambda i: amounts[i], reverse=True):
        try:
            return _read_group(file, dataset, index, hints)
        except RecordError as error:
            problems.append(error)
    raise problems[0]


def _amount(file: _File, group: Dataset, hints: ReadingHints) -> tuple[bool, float]:
    """Return whether a group has a standard lead, and its leads times seconds."""
    channels = file.items(group, "ChannelDefinitionSequence")
    n_leads = sum(canonical_lead(_lead_name(file, channel)) is not None for channel in channels)
    fs = float(file.value(group, "SamplingFrequency") or hints.fs or 0)
    seconds = int(file.value(group, "NumberOfWaveformSamples") or 0) / max(fs, 1e-6)
    return n_leads > 0, (n_leads or len(channels)) * seconds


def _read_group(file: _File, dataset: Dataset, index: int, hints: ReadingHints) -> _Group:
    """Read the ECG channels of a group."""
    path = file.path
    group = dataset.WaveformSequence[index]
    fs = float(file.value(group, "SamplingFrequency") or hints.fs or 0)
    if not fs > 0:
        raise RecordError(path, "says no sampling rate: give --source-fs NAME=HZ (source_fs=)")
    channels = file.items(group, "ChannelDefinitionSequence")
    counts = _counts(file, dataset, index, len(channels))
    names = [_lead_name(file, channel) for channel in channels]
    scales = [_millivolts(file, channel, hints.gain_per_mv) for channel in channels]
    found = find_ecg(
        tuple(
            Channel(name, unit="mV" if scale else "none")
            for name, scale in zip(names, scales, strict=True)
        ),
        hints.leads,
    )
    rows: list[Float32Array] = []
    for column in found.rows:
        scale = scales[column]
        assert scale is not None
        row = (counts[:, column] * scale.per_count + scale.baseline).astype(np.float32)
        rows.append(_shifted(row, _delay(file, channels[column], fs)))
    if not rows:
        raise RecordError(path, "no channel is a voltage: expected a sensitivity in uV, mV or V")
    flags = [f"not_a_voltage:{names[i]}" for i in found.unused if scales[i] is None]
    return _Group(
        np.stack(rows),
        tuple(names[i] for i in found.rows),
        fs,
        tuple(flags),
        tuple(names[i] for i in found.unused),
    )


def _counts(file: _File, dataset: Dataset, index: int, n_listed: int) -> Float64Array:
    """Return the samples of a group, shape (n_samples, n_channels), NaN where one is padding."""
    from pydicom.waveforms.numpy_handler import multiplex_array

    group = dataset.WaveformSequence[index]
    n_channels = int(file.value(group, "NumberOfWaveformChannels") or 0)
    n_promised = int(file.value(group, "NumberOfWaveformSamples") or 0) * n_channels
    n_bits = len(group.get("WaveformData") or b"") * 8
    n_stored = n_bits // int(file.value(group, "WaveformBitsAllocated") or 8)
    is_plausible = 0 < n_promised <= min(n_stored, MAX_VALUES)
    if not is_plausible or n_listed != n_channels:
        raise RecordError(
            file.path,
            f"waveform promises {n_promised} samples of {n_channels} channels, {n_stored} are "
            "stored",
        )
    try:
        raw = multiplex_array(dataset, index, as_raw=True)
    except KeyError as error:
        raise RecordError(
            file.path, f"samples are of type {error}: expected 8, 16 or 32-bit integers"
        ) from None
    expand = _COMPANDED.get(str(file.value(group, "WaveformSampleInterpretation")))
    # A code of 8 bits stands for a number of 14 or 13.
    counts: Float64Array = (expand()[raw] if expand else raw).astype(np.float64)
    padding = file.value(group, "WaveformPaddingValue")
    if isinstance(padding, bytes) and len(padding) >= raw.dtype.itemsize:
        counts[raw == np.frombuffer(padding, raw.dtype, 1)[0]] = np.nan
    return counts


def _mu_law() -> Float64Array:
    """Return the numbers that the 256 codes of the mu-law stand for (ITU-T G.711), -32124 to 32124.

    A code is inverted, and has a sign, three bits of exponent and four of mantissa.
    """
    code = ~np.arange(256) & 0xFF
    size = ((((code & 0xF) << 3) + 0x84) << (code >> 4 & 7)) - 0x84
    return np.where(code & 0x80, -size, size).astype(np.float64)


def _a_law() -> Float64Array:
    """Return the numbers that the 256 codes of the A-law stand for (ITU-T G.711), -32256 to 32256.

    Every other bit of a code is inverted, and the smallest numbers have no exponent.
    """
    code = np.arange(256) ^ 0x55
    exponent, mantissa = code >> 4 & 7, (code & 0xF) << 4
    size = np.where(exponent, (mantissa + 0x108) << np.maximum(exponent - 1, 0), mantissa + 8)
    return np.where(code & 0x80, size, -size).astype(np.float64)


# Sample interpretation -> the numbers of its codes.
_COMPANDED: dict[str, Callable[[], Float64Array]] = {"MB": _mu_law, "AB": _a_law}


def _delay(file: _File, channel: Dataset, fs: float) -> int:
    """Return how many samples later than the others a channel was taken, rounded.

    Time skew and offset are in seconds, sample skew in samples (PS3.3, C.10.9.1.4).
    """
    samples = float(file.value(channel, "ChannelSampleSkew") or 0.0)
    seconds = float(file.value(channel, "ChannelTimeSkew") or 0.0)
    seconds += float(file.value(channel, "ChannelOffset") or 0.0)
    delay = samples + seconds * fs
    if not abs(delay) <= MAX_VALUES:
        raise RecordError(file.path, f"a channel has a skew of {delay:g} samples: expected few")
    return round(delay)


def _shifted(row: Float32Array, delay: int) -> Float32Array:
    """Return a channel in the time of the others; samples beyond its ends are NaN."""
    if not delay:
        return row
    shifted = np.full_like(row, np.nan)
    if 0 < delay < len(row):
        shifted[delay:] = row[:-delay]
    elif 0 < -delay < len(row):
        shifted[:delay] = row[-delay:]
    return shifted


def _lead_name(file: _File, channel: Dataset) -> str:
    """Return the lead by its code, else the meaning of its code without remarks in parentheses."""
    source = next(iter(file.items(channel, "ChannelSourceSequence")), None)
    if source is None:
        return str(file.value(channel, "ChannelLabel") or "")
    # An MDC or SCP-ECG code
    coded = canonical_lead(str(file.value(source, "CodeValue") or ""))
    if coded is not None:
        return coded
    meaning = str(file.value(source, "CodeMeaning") or "")[:_MAX_NAME]
    meaning = re.sub(r"\s*\(.*\)", "", meaning).strip()
    label = str(file.value(channel, "ChannelLabel") or "")
    return label if canonical_lead(meaning) is None and canonical_lead(label) else meaning


class _Scale(NamedTuple):
    """mV per count, and the baseline in mV."""

    per_count: float
    baseline: float


def _millivolts(file: _File, channel: Dataset, gain_per_mv: float | None) -> _Scale | None:
    """Return the scale of a channel, or None if it is not a voltage.

    A channel without sensitivity has the gain that is given.
    """
    units = file.items(channel, "ChannelSensitivityUnitsSequence")
    sensitivity = file.value(channel, "ChannelSensitivity")
    if sensitivity is None and not units and gain_per_mv:
        return _Scale(1 / gain_per_mv, 0.0)
    # An empty unit says nothing.
    unit = str(file.value(units[0], "CodeValue") or "?") if units else ""
    per_unit = millivolts_per_unit(unit) if unit else None
    if per_unit is None or sensitivity is None:
        return None
    correction = file.value(channel, "ChannelSensitivityCorrectionFactor")
    correction = 1.0 if correction is None else float(correction)
    # The baseline is in the unit of the channel.
    baseline = float(file.value(channel, "ChannelBaseline") or 0.0) * per_unit
    return _Scale(float(sensitivity) * correction * per_unit, baseline)


def _age(text: str) -> float | None:
    """Return years from an age string such as 055Y, 018M or 003W."""
    match = re.fullmatch(r"(\d{3})([DWMY])", text.strip())
    if match is None:
        return None
    per_year = {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}[match[2]]
    return parse_age(f"{int(match[1]) / per_year:.2f}")
