"""DICOM waveforms (12-lead, general and ambulatory ECG), read with the optional package pydicom.

Format: DICOM PS3.3, section C.10.9 (Waveform Module).
"""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from src.records.facts import millivolts_per_unit, parse_age, parse_sex
from src.records.formats.errors import missing_extra, package_error, read_whole
from src.records.leads import canonical_lead, derive_limb_leads
from src.records.record import MAX_VALUES, ECGRecord, RecordError, RecordRequest
from src.utils import Float32Array, Float64Array

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


_MAX_BYTES = 2**30
# UID of the transfer syntax Deflated Explicit VR Little Endian.
_DEFLATED = "1.2.840.10008.1.2.1.99"
# The last number of a lead's code is the same in ISO/IEEE 11073 (MDC 2:1) and in SCP-ECG
# (5.6.3-9-1).
_LEAD_OF_CODE = {
    1: "I",
    2: "II",
    **{i: f"V{i - 2}" for i in range(3, 9)},
    61: "III",
    62: "aVR",
    63: "aVL",
    64: "aVF",
}


def read_dicom(path: Path, request: RecordRequest) -> ECGRecord:
    """Read the multiplex group of the most leads times seconds.

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
            return _read(path)
    except RecordError:
        raise
    # The package raises whatever a damaged file makes it meet.
    except Exception as error:  # noqa: BLE001
        raise package_error(path, error, "DICOM") from None


def _read(path: Path) -> ECGRecord:
    dataset = _load(path)
    groups = dataset.get("WaveformSequence") or []
    if not groups:
        kind = dataset.get("Modality") or "unknown"
        raise RecordError(
            path, f"holds no waveform (modality {kind}): expected the ECG of an electrocardiograph"
        )
    index = max(range(len(groups)), key=lambda i: _amount(groups[i]))
    signal, names, flags = _read_group(path, dataset, index)
    signal, leads, derived = derive_limb_leads(signal, names)
    return ECGRecord(
        record_id=path.stem,
        signal=signal,
        fs=float(groups[index].SamplingFrequency),
        leads=leads,
        age=_age(str(dataset.get("PatientAge") or "")),
        sex=parse_sex(dataset.get("PatientSex") or ""),
        patient_id=str(dataset.get("PatientID") or "") or None,
        flags=(*flags, *derived),
    )


def _load(path: Path) -> Dataset:
    """Parse a file from memory.

    pydicom allocates the length that an element of a file on disk claims, even if it is not there.
    """
    try:
        import pydicom
    except ImportError:
        raise missing_extra(path, "pydicom", "DICOM") from None
    content = io.BytesIO(read_whole(path, _MAX_BYTES, "one recording"))
    # The encoding is in the first elements. Others are not parsed before it is known to be safe:
    # deflated content may inflate to any size.
    meta = pydicom.filereader.read_partial(
        content, stop_when=lambda tag, vr, length: tag.group > 2
    ).file_meta
    syntax = meta.get("TransferSyntaxUID")
    if syntax is not None and (str(syntax) == _DEFLATED or not syntax.is_little_endian):
        raise RecordError(
            path, f"is encoded as {syntax.name}: expected little endian, not deflated"
        )
    content.seek(0)
    return pydicom.dcmread(content)


def _amount(group: Dataset) -> tuple[bool, float]:
    """Return whether a group has a standard lead, and its leads times seconds."""
    channels = group.get("ChannelDefinitionSequence") or []
    n_leads = sum(canonical_lead(_lead_name(channel)) is not None for channel in channels)
    seconds = int(group.NumberOfWaveformSamples) / max(float(group.SamplingFrequency), 1e-6)
    return n_leads > 0, n_leads * seconds


def _read_group(
    path: Path, dataset: Dataset, index: int
) -> tuple[Float32Array, tuple[str, ...], list[str]]:
    """Return a group's voltages in mV, shape (n_leads, n_samples), their leads, and flags."""
    group = dataset.WaveformSequence[index]
    counts = _counts(path, dataset, index)
    rows: list[Float32Array] = []
    names: list[str] = []
    flags: list[str] = []
    for column, channel in enumerate(group.ChannelDefinitionSequence):
        name = _lead_name(channel)
        factors = _millivolts(channel)
        if factors is None:
            flags.append(f"not_a_voltage:{name}")
            continue
        per_count, per_unit = factors
        # The baseline is in the unit of the channel.
        baseline = float(channel.get("ChannelBaseline") or 0.0) * per_unit
        rows.append((counts[:, column] * per_count + baseline).astype(np.float32))
        names.append(name)
    if not rows:
        raise RecordError(path, "no channel is a voltage: expected a sensitivity in uV, mV or V")
    return np.stack(rows), tuple(names), flags


def _counts(path: Path, dataset: Dataset, index: int) -> Float64Array:
    """Return the samples of a group, shape (n_samples, n_channels), NaN where one is padding."""
    from pydicom.waveforms.numpy_handler import multiplex_array

    group = dataset.WaveformSequence[index]
    n_channels = group.NumberOfWaveformChannels
    n_promised = int(group.NumberOfWaveformSamples) * int(n_channels)
    n_bits = len(group.get("WaveformData") or b"") * 8
    n_stored = n_bits // int(group.get("WaveformBitsAllocated") or 8)
    is_plausible = 0 < n_promised <= min(n_stored, MAX_VALUES)
    if not is_plausible or len(group.ChannelDefinitionSequence) != n_channels:
        raise RecordError(
            path,
            f"waveform promises {n_promised} samples of {n_channels} channels, {n_stored} are "
            "stored",
        )
    try:
        raw = multiplex_array(dataset, index, as_raw=True)
    except KeyError as error:
        raise RecordError(
            path, f"samples are of type {error}: expected 8, 16 or 32-bit integers"
        ) from None
    counts: Float64Array = raw.astype(np.float64)
    padding = group.get("WaveformPaddingValue")
    if isinstance(padding, bytes) and len(padding) >= raw.dtype.itemsize:
        counts[raw == np.frombuffer(padding, raw.dtype, 1)[0]] = np.nan
    return counts


def _lead_name(channel: Dataset) -> str:
    """Return the lead by its code, else the meaning of its code without remarks in parentheses."""
    source = (channel.get("ChannelSourceSequence") or [None])[0]
    if source is None:
        return str(channel.get("ChannelLabel") or "")
    coded = re.fullmatch(r"(?:2:|5\.6\.3-9-)(\d+)", str(source.get("CodeValue") or ""))
    if coded and int(coded[1]) in _LEAD_OF_CODE:
        return _LEAD_OF_CODE[int(coded[1])]
    return re.sub(r"\s*\(.*\)", "", str(source.get("CodeMeaning") or "")).strip()


def _millivolts(channel: Dataset) -> tuple[float, float] | None:
    """Return mV per count and mV per unit of a channel, or None if it is not a voltage."""
    units = channel.get("ChannelSensitivityUnitsSequence") or []
    per_unit = millivolts_per_unit(str(units[0].get("CodeValue") or "?")) if units else None
    sensitivity = channel.get("ChannelSensitivity")
    if per_unit is None or sensitivity is None:
        return None
    correction = channel.get("ChannelSensitivityCorrectionFactor")
    correction = 1.0 if correction is None else float(correction)
    return float(sensitivity) * correction * per_unit, per_unit


def _age(text: str) -> float | None:
    """Return years from an age string such as 055Y, 018M or 003W."""
    match = re.fullmatch(r"(\d{3})([DWMY])", text.strip())
    if match is None:
        return None
    per_year = {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}[match[2]]
    return parse_age(f"{int(match[1]) / per_year:.2f}")
