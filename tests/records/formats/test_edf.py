from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from wfdb.io.convert.edf import read_edf as wfdb_read_edf

from src.records.folders import index_folder
from src.records.reading import find_start, iter_records, read_record
from src.records.record import RecordError

RNG = np.random.default_rng(23)


@dataclass
class Column:
    """A channel to write: digital values, one row per data record."""

    label: str
    values: np.ndarray
    unit: str = "uV"
    low: str = "-3276.8"
    high: str = "3276.7"

    @property
    def physical(self) -> np.ndarray:
        low, high = float(self.low), float(self.high)
        return (self.values.reshape(-1) + 32768.0) * (high - low) / 65535 + low


def column(label: str, n: int, n_records: int = 5, **options: str) -> Column:
    return Column(label, RNG.integers(-9000, 9000, (n_records, n)), **options)


def times(*starts: float) -> Column:
    """An annotation channel with the time of each data record."""
    texts = [f"+{start:g}\x14\x14\0".encode().ljust(20, b"\0") for start in starts]
    return Column(
        "EDF Annotations", np.frombuffer(b"".join(texts), "<i2").reshape(-1, 10), "", "-1", "1"
    )


def write_edf(
    path: Path,
    *columns: Column,
    plus: str = "",
    duration: str = "1",
    promised: int | None = None,
    patient: str = "X X X X",
    recording: str = "Startdate X X X X",
) -> Path:
    def cell(text: object, width: int) -> bytes:
        return str(text).encode("latin-1").ljust(width)

    n_records = len(columns[0].values) if promised is None else promised
    main = [
        (0, 8),
        (patient, 80),
        (recording, 80),
        ("02.03.02", 8),
        ("10.11.12", 8),
        (256 * (len(columns) + 1), 8),
        (plus, 44),
        (n_records, 8),
        (duration, 8),
        (len(columns), 4),
    ]
    rows = [
        (c.label, "", c.unit, c.low, c.high, -32768, 32767, "", c.values.shape[1], "")
        for c in columns
    ]
    widths = (16, 80, 8, 8, 8, 8, 8, 80, 8, 32)
    head = b"".join(cell(*item) for item in main)
    head += b"".join(cell(row[i], width) for i, width in enumerate(widths) for row in rows)
    path.write_bytes(head + np.hstack([c.values for c in columns]).astype("<i2").tobytes())
    return path


def test_channels_in_millivolts_equal_the_wfdb_package(tmp_path: Path) -> None:
    columns = [column("I", 200), column("II", 200), column("V1", 200)]
    record = read_record(write_edf(tmp_path / "r.edf", *columns))
    assert (record.record_id, record.fs, record.leads, record.flags) == (
        "r",
        200.0,
        ("I", "II", "V1"),
        (),
    )
    np.testing.assert_allclose(record.signal, [c.physical / 1000 for c in columns], atol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = wfdb_read_edf(str(tmp_path / "r.edf"))
    np.testing.assert_allclose(record.signal, expected.p_signal.T / 1000, atol=2e-4)


@pytest.mark.parametrize(("unit", "factor"), [("uV", 1e-3), ("mV", 1.0), ("V", 1e3), ("µV", 1e-3)])
def test_units(tmp_path: Path, unit: str, factor: float) -> None:
    ecg = column("ECG", 100, unit=unit)
    record = read_record(write_edf(tmp_path / "r.edf", ecg))
    np.testing.assert_allclose(record.signal[0], ecg.physical * factor, rtol=1e-5, atol=1e-6)
    assert record.flags == ()


@pytest.mark.parametrize(("high", "factor"), [("3", 1.0), ("3000", 1e-3)])
def test_a_missing_unit_is_judged_by_amplitude(tmp_path: Path, high: str, factor: float) -> None:
    ecg = column("ECG", 100, unit="", low=f"-{high}", high=high)
    path = write_edf(tmp_path / "r.edf", ecg)
    record = read_record(path)
    np.testing.assert_allclose(record.signal[0], ecg.physical * factor, rtol=1e-4, atol=1e-5)
    assert record.flags == ("unit_assumed:ECG",)
    windows = [window.signal for window in iter_records(path, window_s=1.0)]
    np.testing.assert_array_equal(np.concatenate(windows, axis=1), record.signal)
    odd = column("ECG", 100, unit="", low="-1e9", high="1e9")
    with pytest.raises(RecordError, match="fits no voltage: give --source-gain"):
        read_record(write_edf(tmp_path / "odd.edf", odd))


@pytest.mark.parametrize(
    ("labels", "leads"),
    [
        (("EEG Fp1", "ECG II", "Resp"), ("ECG II",)),
        (("C3", "C4", "EKG"), ("EKG",)),
        (("C3", "V1", "aVR"), ("C3", "V1", "aVR")),  # beside other leads C3 is on the chest
        (("Lead I", "MLII", "SpO2"), ("Lead I", "MLII")),
        (("Ch1",), ("Ch1",)),
    ],
)
def test_which_channels_are_an_ecg(
    tmp_path: Path, labels: tuple[str, ...], leads: tuple[str, ...]
) -> None:
    path = write_edf(tmp_path / "r.edf", *(column(label, 50) for label in labels))
    assert read_record(path).leads == leads


def test_edf_plus_says_who_it_was_and_other_rates_stay_out(tmp_path: Path) -> None:
    columns = [
        column("ECG I", 200),
        times(0, 1, 2, 3, 4),
        column("ECG II", 200),
        column("ECG low", 50),
        column("ECG mmHg", 200, unit="mmHg"),
    ]
    path = write_edf(
        tmp_path / "r.edf",
        *columns,
        plus="EDF+C",
        patient="P-7 F 02-MAY-1951 Name",
        recording="Startdate 01-MAY-2002 X X X",
    )
    record = read_record(path)
    assert (record.patient_id, record.sex, record.age) == ("P-7", "female", 50.0)
    born = write_edf(
        tmp_path / "b.edf",
        column("ECG I", 200),
        times(0, 1, 2, 3, 4),
        plus="EDF+C",
        patient="P-7 F 02-MAR-1960 Name",
        recording="Startdate 02-MAR-2021 X X X",
    )
    assert read_record(born).age == 61.0
    assert (record.leads, record.flags) == (
        ("ECG I", "ECG II"),
        ("not_a_voltage:ECG mmHg", "other_rate:ECG low"),
    )
    np.testing.assert_allclose(record.signal[1], columns[2].physical / 1000, atol=1e-6)


def test_windows_are_the_slices_of_the_whole(tmp_path: Path) -> None:
    path = write_edf(
        tmp_path / "r.edf",
        column("I", 128, 40),
        column("Resp", 10, 40),
        column("II", 128, 40),
        duration="0.5",
    )
    whole = read_record(path)
    assert whole.fs == 256.0 and whole.n_samples == 5120
    for i, window in enumerate(iter_records(path, window_s=1.3, stride_s=0.7)):
        start = i * round(0.7 * 256)
        np.testing.assert_array_equal(window.signal, whole.signal[:, start : start + 333])
    assert i == 26
    record, n_samples = find_start(path, 2.0).read()
    np.testing.assert_array_equal(record.signal, whole.signal[:, :512])
    assert n_samples == 5120


def test_an_unfinished_and_a_continuous_recording(tmp_path: Path) -> None:
    assert (
        read_record(write_edf(tmp_path / "r.EDF", column("II", 100), promised=-1)).n_samples == 500
    )
    path = write_edf(tmp_path / "d.edf", column("II", 100), times(7, 8, 9, 10, 11), plus="EDF+D")
    assert read_record(path).n_samples == 500
    assert [record.relative for record in index_folder(tmp_path)] == ["d.edf", "r.EDF"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"promised": 6}, "holds 5 data records, the header promises 6"),
        ({"promised": 99_999_999}, "holds 5 data records, the header promises 99999999"),
        ({"duration": "0"}, "a data record lasts 0 s: give --source-fs"),
        ({"duration": "-1"}, "data records hold no samples"),
        ({"duration": "nan"}, "duration of a data record is 'nan': expected a finite number"),
        ({"duration": "x"}, "duration of a data record is 'x': expected a number"),
    ],
)
def test_broken_headers_give_one_clear_error(
    tmp_path: Path, options: dict[str, object], expected: str
) -> None:
    path = write_edf(tmp_path / "r.edf", column("II", 100), **options)  # type: ignore[arg-type]
    with pytest.raises(RecordError, match=expected):
        read_record(path)


def test_other_bad_files(tmp_path: Path) -> None:
    good = write_edf(tmp_path / "r.edf", column("II", 100)).read_bytes()
    for content, expected in (
        (b"", "expected an EDF header"),
        (b"\xffBIOSEMX" + good[8:], "expected an EDF header"),
        (b"\xffBIOSEMI" + good[8:], "holds 3 data records, the header promises 5"),
        (good[:300], "ends within the header of its 1 channels"),
        (good[:252] + b"999 " + good[256:], "ends within the header of its 999 channels"),
        (good[:252] + b"1001" + good[256:], "promises 1001 channels: expected 1 to 1000"),
        (good[:184] + b"999     " + good[192:], "header size is 999: expected 512 for 1 channels"),
        (good[:512], "holds 0 data records, the header promises 5"),
    ):
        (tmp_path / "r.edf").write_bytes(content)
        with pytest.raises(RecordError, match=expected):
            read_record(tmp_path / "r.edf")
    with pytest.raises(RecordError, match=r"no ECG channel: channels are C3 \(uV\), Resp \(uV\)"):
        read_record(write_edf(tmp_path / "r.edf", column("C3", 50), column("Resp", 50)))
    with pytest.raises(RecordError, match="no ECG channel"):
        read_record(write_edf(tmp_path / "r.edf", column("ECG", 50, low="5", high="5")))
    with pytest.raises(RecordError, match="data record 3 begins before the one before it"):
        read_record(
            write_edf(tmp_path / "r.edf", column("II", 100), times(0, 1, 1.5, 6, 7), plus="EDF+D")
        )


def test_gaps_are_missing_and_windows_begin_anew_after_each(tmp_path: Path) -> None:
    ecg = column("II", 100)
    path = write_edf(tmp_path / "r.edf", ecg, times(3, 4, 9.5, 10.5, 11.5), plus="EDF+D")
    record = read_record(path)
    assert record.flags == ("gap_after:2s",) and record.n_samples == 950
    np.testing.assert_allclose(record.signal[0, :200], ecg.physical[:200] / 1000, atol=1e-6)
    assert np.isnan(record.signal[0, 200:650]).all()
    np.testing.assert_allclose(record.signal[0, 650:], ecg.physical[200:] / 1000, atol=1e-6)
    windows = list(iter_records(path, window_s=2.0))
    assert [window.record_id for window in windows] == ["r__w00000", "r__w00001"]
    np.testing.assert_array_equal(windows[0].signal, record.signal[:, :200])
    np.testing.assert_array_equal(windows[1].signal, record.signal[:, 650:850])
    # A recording without a run of a window's length is one window: the longest run.
    (only,) = iter_records(path, window_s=4.0)
    np.testing.assert_array_equal(only.signal, record.signal[:, 650:])


@pytest.mark.parametrize(
    "unit", ["[uV]", "microV", "\u00c2\u00b5V", "\u00a6\u00ccV", "\u0083\u00caV", "?V"]
)
def test_microvolts_in_any_encoding(tmp_path: Path, unit: str) -> None:
    ecg = column("ECG", 100, unit=unit)
    record = read_record(write_edf(tmp_path / "r.edf", ecg))
    np.testing.assert_allclose(record.signal[0], ecg.physical / 1000, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("low", "high"), [("", "5"), ("nan", "5"), ("-1.#IND", "1.#INF")])
def test_a_broken_range_costs_its_channel_alone(tmp_path: Path, low: str, high: str) -> None:
    broken = column("ECG V1", 100, low=low, high=high)
    record = read_record(write_edf(tmp_path / "r.edf", column("ECG II", 100), broken))
    assert (record.leads, record.flags) == (("ECG II",), ("broken_scale:ECG V1",))
    other = column("-", 50, low=low, high=high)
    record = read_record(write_edf(tmp_path / "r.edf", column("ECG II", 100), other))
    assert (record.flags, record.unused) == ((), ("-",))


def test_the_highest_rate_of_the_ecg_channels_is_that_of_the_record(tmp_path: Path) -> None:
    slow = column("ECG I", 125)
    status = [column(f"ECG status {i}", 1, unit="") for i in range(4)]
    path = write_edf(tmp_path / "r.edf", *status, slow, column("ECG II", 250))
    record = read_record(path)
    assert (record.fs, record.leads, record.flags) == (
        250.0,
        ("ECG I", "ECG II"),
        ("upsampled:ECG I",),
    )
    np.testing.assert_allclose(record.signal[0, ::2], slow.physical / 1000, atol=1e-6)
    np.testing.assert_allclose(
        record.signal[0, 1:-1:2], (slow.physical[1:] + slow.physical[:-1]) / 2000, atol=1e-6
    )
    for i, window in enumerate(iter_records(path, window_s=0.7)):
        np.testing.assert_array_equal(window.signal, record.signal[:, i * 175 : (i + 1) * 175])


def test_given_gain_and_rate_are_used_where_a_file_is_silent(tmp_path: Path) -> None:
    ecg = column("ECG", 100, unit="")
    path = write_edf(tmp_path / "r.edf", ecg, duration="0")
    record = read_record(path, source_fs=360, source_gain_per_mv=1000)
    assert (record.fs, record.flags) == (360.0, ())
    np.testing.assert_allclose(record.signal[0], ecg.physical / 1000, atol=1e-6)
    stated = write_edf(tmp_path / "s.edf", column("ECG", 100))
    given = read_record(stated, source_fs=360, source_gain_per_mv=7)
    np.testing.assert_array_equal(given.signal, read_record(stated).signal)
    assert given.fs == 100.0


# BDF ----------------------------------------------------------------------------------------------


def write_bdf(path: Path, *columns: Column, plus: str = "24BIT") -> Path:
    """Write samples of 24 bits: the same header with another beginning and range."""
    raw = write_edf(path, *columns, plus=plus).read_bytes()
    n_head = 256 * (len(columns) + 1)
    head = (b"\xffBIOSEMI" + raw[8:n_head]).replace(b"-32768  ", b"-8388608")
    head = head.replace(b"32767   ", b"8388607 ")
    values = np.hstack([c.values for c in columns]).astype("<i4")
    path.write_bytes(head + values.reshape(-1, 1).view(np.uint8)[:, :3].tobytes())
    return path


def test_bdf_has_samples_of_24_bits(tmp_path: Path) -> None:
    values = np.array([[0, 1, -1, 8388607], [-8388608, 4194304, 70000, -70000]])
    wide = Column("ECG", values, "uV", "-8388608", "8388607")
    other = Column("C3", np.full((2, 4), -5), "uV", "-8388608", "8388607")
    path = write_bdf(tmp_path / "r.bdf", other, wide)
    record = read_record(path)
    # A unit is 1 uV
    np.testing.assert_allclose(record.signal, values.reshape(1, -1) * 1e-3, rtol=1e-6)
    assert (record.fs, record.leads, record.unused) == (4.0, ("ECG",), ("C3",))
    assert read_record(path.rename(tmp_path / "r.dat1")).n_samples == 8


def test_windows_and_gaps_of_bdf_are_those_of_edf(tmp_path: Path) -> None:
    ecg = Column("ECG", RNG.integers(-9000, 9000, (5, 100)), "uV", "-8388608", "8388607")
    path = write_bdf(tmp_path / "r.bdf", ecg)
    whole = read_record(path).signal
    np.testing.assert_allclose(whole, ecg.values.reshape(1, -1) / 1000, atol=1e-6)
    windows = list(iter_records(path, window_s=1.5))
    assert [window.n_samples for window in windows] == [150, 150, 150]
    np.testing.assert_array_equal(windows[2].signal, whole[:, 300:450])
    part, n_samples = find_start(path, 1.0).read()
    assert (part.n_samples, n_samples) == (100, 500)


def test_bdf_plus_states_the_times_of_its_data_records(tmp_path: Path) -> None:
    ecg = column("ECG", 100)
    texts = [f"+{start}\x14\x14\0".encode().ljust(30, b"\0") for start in (0, 1, 4, 5, 6)]
    marks = np.frombuffer(b"".join(texts), np.uint8).reshape(5, 10, 3).astype(np.int32)
    values = marks[..., 0] | marks[..., 1] << 8 | marks[..., 2] << 16
    notes = Column("BDF Annotations", values, "", "-1", "1")
    record = read_record(write_bdf(tmp_path / "r.bdf", ecg, notes, plus="BDF+D"))
    assert (record.n_samples, record.flags) == (700, ("gap_after:2s",))
    assert np.isnan(record.signal[0, 200:400]).all()
    assert np.isfinite(record.signal[0, 400:]).all()
