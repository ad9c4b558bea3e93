from __future__ import annotations

import builtins
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    TwelveLeadECGWaveformStorage,
    generate_uid,
)
from pydicom.waveforms.numpy_handler import multiplex_array

from src.config import STANDARD_LEADS
from src.records.folders import index_folder
from src.records.reading import read_record
from src.records.record import RecordError

RNG = np.random.default_rng(41)


def code(value: str, meaning: str = "") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "X", meaning
    return item


def channel(
    value: str,
    meaning: str = "",
    *,
    unit: str = "uV",
    sensitivity: float = 2.5,
    baseline: float = 0.0,
) -> Dataset:
    item = Dataset()
    item.ChannelSourceSequence = [code(value, meaning)]
    item.ChannelSensitivity, item.ChannelBaseline, item.ChannelSensitivityCorrectionFactor = (
        sensitivity,
        baseline,
        1,
    )
    item.ChannelSensitivityUnitsSequence = [code(unit)]
    item.WaveformBitsStored = 16
    return item


def group(counts: np.ndarray, *channels: Dataset, fs: float = 500.0, **fields: Any) -> Dataset:
    """A multiplex group of int16 samples (n_samples, n_channels)."""
    item = Dataset()
    item.NumberOfWaveformSamples, item.NumberOfWaveformChannels = counts.shape
    item.SamplingFrequency, item.WaveformBitsAllocated, item.WaveformSampleInterpretation = (
        fs,
        16,
        "SS",
    )
    item.ChannelDefinitionSequence = list(channels)
    item.WaveformData = counts.astype("<i2").tobytes()
    for name, value in fields.items():
        setattr(item, name, value)
    return item


def write_dicom(path: Path, *groups: Dataset, syntax: str = ExplicitVRLittleEndian) -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
        TwelveLeadECGWaveformStorage,
        generate_uid(),
    )
    meta.TransferSyntaxUID = syntax
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.PatientID, dataset.PatientSex, dataset.PatientAge, dataset.Modality = (
        "P3",
        "F",
        "018M",
        "ECG",
    )
    if groups:
        dataset.WaveformSequence = list(groups)
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_a_real_file_equals_the_package() -> None:
    path = get_testdata_file("waveform_ecg.dcm", download=False)
    record = read_record(path)
    expected = multiplex_array(pydicom.dcmread(path), 0, as_raw=False).T / 1000
    np.testing.assert_allclose(record.signal, expected, atol=1e-6)
    assert (record.fs, record.leads, record.age, record.sex, record.flags) == (
        1000.0,
        STANDARD_LEADS,
        42.0,
        "female",
        (),
    )


def test_units_names_missing_samples_and_other_channels(tmp_path: Path) -> None:
    counts = RNG.integers(-900, 900, (300, 4))
    counts[7, 0] = -(2**15)
    channels = (
        channel("2:1", baseline=20.0),
        channel("?", "Lead II (Einthoven)", unit="mV"),
        channel("?", "ABP", unit="mm[Hg]"),
        channel("5.6.3-9-3"),
    )
    record = read_record(
        write_dicom(tmp_path / "r.dcm", group(counts, *channels, WaveformPaddingValue=b"\x00\x80"))
    )
    expected = np.stack([counts[:, 0] * 0.0025 + 0.02, counts[:, 1] * 2.5, counts[:, 3] * 0.0025])
    expected[0, 7] = np.nan
    np.testing.assert_allclose(record.signal[:3], expected, rtol=1e-5)
    assert record.leads == ("I", "Lead II", "V1", "III", "aVR", "aVL", "aVF")
    assert record.flags == (
        "not_a_voltage:ABP",
        *(f"derived:{name}" for name in ("III", "aVR", "aVL", "aVF")),
    )
    assert (record.patient_id, record.age, record.sex) == ("P3", 1.5, "female")


def test_the_rhythm_is_taken_and_not_the_median_beat(tmp_path: Path) -> None:
    rhythm, beat = RNG.integers(-900, 900, (400, 1)), RNG.integers(-900, 900, (90, 1))
    path = write_dicom(
        tmp_path / "r.dcm", group(beat, channel("2:3")), group(rhythm, channel("2:3"), fs=250.0)
    )
    record = read_record(path)
    assert (record.n_samples, record.fs) == (400, 250.0)
    leads, strip = RNG.integers(-900, 900, (400, 3)), RNG.integers(-900, 900, (800, 1))
    path = write_dicom(
        tmp_path / "s.dcm",
        group(strip, channel("2:2"), fs=500.0),
        group(leads, channel("2:3"), channel("2:4"), channel("2:5"), fs=250.0),
    )
    record = read_record(path)
    assert (record.n_samples, record.fs, record.n_leads) == (400, 250.0, 3), (
        "a rhythm strip of more samples is not the record"
    )
    path.unlink()
    assert [found.relative for found in index_folder(tmp_path)] == ["r.dcm"]


COUNTS = RNG.integers(-9, 9, (30, 1))


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ((), r"holds no waveform \(modality ECG\)"),
        (
            (group(COUNTS, channel("2:1"), NumberOfWaveformSamples=2**31),),
            "promises 2147483648 samples of 1 channels, 30 are stored",
        ),
        ((group(COUNTS, channel("2:1"), channel("2:2")),), "promises 30 samples of 1 channels"),
        ((group(COUNTS, channel("2:1", unit="s")),), "no channel is a voltage"),
        (
            (group(COUNTS, channel("2:1"), WaveformSampleInterpretation="XX"),),
            "samples are of type",
        ),
        (
            (group(COUNTS, channel("2:1"), SamplingFrequency=None),),
            "says no sampling rate: give --source-fs",
        ),
    ],
)
def test_bad_waveforms_give_one_clear_error(
    tmp_path: Path, groups: tuple[Dataset, ...], expected: str
) -> None:
    with pytest.raises(RecordError, match=expected):
        read_record(write_dicom(tmp_path / "r.dcm", *groups))


def test_torn_and_hostile_files(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "r.dcm", group(COUNTS, channel("2:1")))
    good = path.read_bytes()
    for content in (b"", b"x" * 500, good[:400], good[:-40]):
        path.write_bytes(content)
        with pytest.raises(RecordError, match=r"r\.dcm"):
            read_record(path)


def test_a_length_that_lies_reserves_no_memory(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "r.dcm", group(COUNTS, channel("2:1")))
    good = path.read_bytes()
    at = good.index(b"\x00\x54\x10\x10") + 8  # the length of WaveformData
    path.write_bytes(good[:at] + b"\xf0\xff\xff\xff" + good[at + 4 :])
    tracemalloc.start()
    np.testing.assert_allclose(read_record(path).signal, COUNTS.T * 0.0025, atol=1e-6)
    assert tracemalloc.get_traced_memory()[1] < 2e7
    tracemalloc.stop()


# Codes of ITU-T G.711 and the numbers that they stand for there, in 16 bits (tables 1a to 2b).
MU_LAW = {0x00: -32124, 0x0F: -16764, 0x7E: -8, 0x7F: 0, 0x80: 32124, 0x8F: 16764, 0xFE: 8, 0xFF: 0}
A_LAW = {0x2A: -32256, 0xAA: 32256, 0x55: -8, 0xD5: 8, 0x45: -264, 0xC5: 264, 0x5A: -248}


@pytest.mark.parametrize(("kind", "numbers"), [("MB", MU_LAW), ("AB", A_LAW)])
def test_companded_samples_are_expanded(tmp_path: Path, kind: str, numbers: dict[int, int]) -> None:
    codes = np.array(list(numbers), np.uint8)
    item = group(COUNTS[: len(codes)], channel("2:2"), WaveformSampleInterpretation=kind)
    item.WaveformBitsAllocated, item.WaveformData = 8, codes.tobytes() + b"\0" * (len(codes) % 2)
    record = read_record(write_dicom(tmp_path / "r.dcm", item))
    np.testing.assert_allclose(record.signal[0], np.array(list(numbers.values())) * 0.0025)


@pytest.mark.parametrize(
    ("field", "value"),
    [("ChannelSampleSkew", "5"), ("ChannelTimeSkew", "0.01"), ("ChannelOffset", "0.01")],
)
def test_skews_are_undone(tmp_path: Path, field: str, value: str) -> None:
    late = channel("2:3")
    setattr(late, field, value)
    counts = RNG.integers(-900, 900, (300, 2))
    record = read_record(write_dicom(tmp_path / "r.dcm", group(counts, channel("2:1"), late)))
    # Sample 0 of the second channel was taken 5 samples (0.01 s at 500 Hz) after the first's.
    np.testing.assert_allclose(record.signal[1, 5:], counts[:-5, 1] * 0.0025, rtol=1e-6)
    assert np.isnan(record.signal[1, :5]).all() and np.isfinite(record.signal[0]).all()
    setattr(late, field, f"-{value}")
    record = read_record(write_dicom(tmp_path / "r.dcm", group(counts, channel("2:1"), late)))
    np.testing.assert_allclose(record.signal[1, :-5], counts[5:, 1] * 0.0025, rtol=1e-6)


def test_other_groups_are_flagged_and_damaged_ones_cost_nothing(tmp_path: Path) -> None:
    leads, strip = RNG.integers(-900, 900, (400, 3)), RNG.integers(-900, 900, (800, 1))
    full = group(leads, channel("2:3"), channel("2:4"), channel("2:5"))
    beat = group(strip[:90], channel("2:3"), WaveformOriginality="DERIVED")
    path = write_dicom(tmp_path / "r.dcm", group(strip, channel("2:2")), full, beat)
    record = read_record(path)
    assert (record.n_leads, record.flags) == (3, ("waveform_groups:2",))
    full.NumberOfWaveformSamples = 2**31
    path = write_dicom(tmp_path / "r.dcm", group(strip, channel("2:2")), full)
    record = read_record(path)
    assert (record.leads, record.flags) == (("II",), ("waveform_groups:2",))


def test_a_silent_file_takes_what_is_given(tmp_path: Path) -> None:
    silent = channel("2:2")
    del silent.ChannelSensitivity, silent.ChannelSensitivityUnitsSequence
    path = write_dicom(tmp_path / "r.dcm", group(COUNTS, silent, SamplingFrequency=None))
    record = read_record(path, source_fs=250, source_gain_per_mv=200)
    np.testing.assert_allclose(record.signal, COUNTS.T / 200, rtol=1e-6)
    assert record.fs == 250


def test_a_file_is_dicom_by_its_content(tmp_path: Path) -> None:
    good = write_dicom(tmp_path / "r.dcm", group(COUNTS, channel("2:1"))).read_bytes()
    (tmp_path / "r.dcm").unlink()
    data = good[good.index(b"\x08\0\x60\0CS") :]  # from Modality on
    (tmp_path / "IM0001").write_bytes(good)
    (tmp_path / "1.2.840.99.1").write_bytes(good)
    (tmp_path / "1.2.840.99.2").write_bytes(good[132:])
    (tmp_path / "ecg.bin").write_bytes(b"\x08\0\x16\0UI\x04\x001.2\0" + data)
    (tmp_path / "wrong.edf").write_bytes(good)
    (tmp_path / "DICOMDIR").write_bytes(
        good.replace(b"5.1.4.1.1.9.1.1", b"1.3.10\0\0\0\0\0\0\0\0\0")
    )
    found = index_folder(tmp_path)
    assert [(record.relative, record.stem) for record in found] == [
        ("1.2.840.99.1", "1.2.840.99.1"),
        ("1.2.840.99.2", "1.2.840.99.2"),
        ("IM0001", "IM0001"),
        ("ecg.bin", "ecg"),
        ("wrong.edf", "wrong"),
    ]
    for record in found:
        read = read_record(tmp_path / record.relative)
        np.testing.assert_allclose(read.signal, COUNTS.T * 0.0025, atol=1e-6)
        assert read.record_id == record.stem


def test_big_endian_is_refused(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "r.dcm", group(COUNTS, channel("2:1")))
    path.write_bytes(
        path.read_bytes().replace(
            ExplicitVRLittleEndian.encode() + b"\0", ExplicitVRBigEndian.encode() + b"\0"
        )
    )
    with pytest.raises(RecordError, match="is encoded as Explicit VR Big Endian"):
        read_record(path)


def test_without_the_package_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def absent(name: str, *args: Any) -> Any:
        if name.startswith("pydicom"):
            raise ImportError(name)
        return real(name, *args)

    path = write_dicom(tmp_path / "r.dcm", group(COUNTS, channel("2:1")))
    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(
        RecordError,
        match=r"DICOM files need the package pydicom: pip install -r requirements-formats\.txt",
    ):
        read_record(path)
