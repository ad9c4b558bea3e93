from __future__ import annotations

import errno
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import wfdb

from src.config import STANDARD_LEADS
from src.records.formats import wfdb as wfdb_format
from src.records.formats.errors import package_error
from src.records.reading import iter_records, read_record
from src.records.record import ECGRecord, RecordError

RNG = np.random.default_rng(3)


def write_header(folder: Path, text: str, name: str = "r") -> Path:
    path = folder / f"{name}.hea"
    path.write_text(text)
    return path


def write_int16(
    folder: Path, adc: np.ndarray, header: str, name: str = "r", suffix: str = ".dat"
) -> Path:
    """Write int16 samples (n_samples, n_leads) and a header."""
    adc.astype("<i2").tofile(folder / f"{name}{suffix}")
    return write_header(folder, header, name)


# WFDB against the wfdb package --------------------------------------------------------------------


@pytest.mark.parametrize("fmt", ["16", "24", "32", "80", "212", "508", "516", "524"])
@pytest.mark.parametrize("n_leads", [1, 2, 3])
def test_storage_formats_equal_the_wfdb_package(tmp_path: Path, fmt: str, n_leads: int) -> None:
    signal = np.clip(RNG.normal(size=(501, n_leads)) * 0.2, -0.6, 0.6)
    gain = 200.0 if fmt in ("80", "508") else 1000.0
    wfdb.wrsamp(
        "r",
        257,
        ["mV"] * n_leads,
        list(STANDARD_LEADS[:n_leads]),
        signal,
        fmt=[fmt] * n_leads,
        adc_gain=[gain] * n_leads,
        baseline=[3] * n_leads,
        write_dir=str(tmp_path),
    )
    expected = wfdb.rdrecord(str(tmp_path / "r"))
    record = read_record(tmp_path / "r.hea")
    assert (record.fs, record.leads, record.record_id) == (257.0, STANDARD_LEADS[:n_leads], "r")
    assert record.signal.dtype == np.float32
    np.testing.assert_allclose(record.signal, expected.p_signal.T, atol=1e-6)
    assert not any(flag.startswith("checksum") for flag in record.flags)


@pytest.mark.parametrize("fmt", ["16", "212"])
def test_a_file_that_gives_little_at_a_time_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fmt: str
) -> None:
    class Slow(io.FileIO):
        def readinto(self, buffer: Any, /) -> int:
            return super().readinto(memoryview(buffer)[:7]) or 0

    wfdb.wrsamp(
        "r",
        257,
        ["mV"] * 2,
        ["I", "II"],
        np.clip(RNG.normal(size=(501, 2)) * 0.2, -0.6, 0.6),
        fmt=[fmt] * 2,
        write_dir=str(tmp_path),
    )
    at_once = read_record(tmp_path / "r.hea").signal
    with monkeypatch.context() as patch:
        patch.setattr(
            wfdb_format, "open", lambda path, mode, buffering: Slow(path, mode), raising=False
        )
        np.testing.assert_array_equal(read_record(tmp_path / "r.hea").signal, at_once)


@pytest.mark.parametrize(
    ("fmt", "encode"),
    [
        ("61", lambda v: v.astype(">i2").tobytes()),
        ("160", lambda v: (v.astype(np.int32) + 2**15).astype("<u2").tobytes()),
        ("310", lambda v: encode_310(v)),
        ("311", lambda v: encode_311(v)),
        ("8", lambda v: np.diff(v, prepend=v[:1]).astype(np.int8).tobytes()),
    ],
)
def test_rarer_formats_equal_the_wfdb_package(
    tmp_path: Path, fmt: str, encode: Callable[[np.ndarray], bytes]
) -> None:
    adc = RNG.integers(-50, 50, 300).cumsum() % 100 if fmt == "8" else RNG.integers(-500, 500, 300)
    if fmt == "8":
        adc = np.cumsum(RNG.integers(-9, 9, 300))
    (tmp_path / "r.dat").write_bytes(encode(adc))
    path = write_header(tmp_path, f"r 1 250 300\nr.dat {fmt} 200 12 0 {adc[0]} 0 0 V1\n")
    expected = wfdb.rdrecord(str(tmp_path / "r"))
    np.testing.assert_allclose(read_record(path).signal, expected.p_signal.T, atol=1e-6)
    np.testing.assert_allclose(read_record(path).signal[0], adc / 200, atol=1e-6)


def encode_310(values: np.ndarray) -> bytes:
    """Three 10-bit values in two little-endian 16-bit words, the third in the top bits of both."""
    v = values.astype(np.int64) & 0x3FF
    words = np.empty(2 * len(v) // 3, np.int64)
    words[0::2] = v[0::3] << 1 | (v[2::3] & 0x1F) << 11
    words[1::2] = v[1::3] << 1 | (v[2::3] >> 5) << 11
    return words.astype("<u2").tobytes()


def encode_311(values: np.ndarray) -> bytes:
    """Three 10-bit values in the low 30 bits of a little-endian 32-bit word."""
    v = values.astype(np.int64) & 0x3FF
    return (v[0::3] | v[1::3] << 10 | v[2::3] << 20).astype("<u4").tobytes()


def test_several_sample_files_and_byte_offsets(tmp_path: Path) -> None:
    a, b = RNG.integers(-99, 99, (50, 2)), RNG.integers(-99, 99, (50, 1))
    (tmp_path / "a.dat").write_bytes(b"x" * 7 + a.astype("<i2").tobytes())
    b.astype("<i2").tofile(tmp_path / "b.dat")
    path = write_header(
        tmp_path,
        "r 3 100 50\na.dat 16+7 100/mV 16 0 0 0 0 I\na.dat 16+7 100/mV 16 0 0 0 0 "
        "II\nb.dat 16 100/mV 16 0 0 0 0 V1\n",
    )
    np.testing.assert_allclose(read_record(path).signal, np.hstack([a, b]).T / 100, atol=1e-6)


def test_windows_of_differences_are_those_of_the_whole(tmp_path: Path) -> None:
    """Storage format 8 holds differences, of which all before a window count."""
    RNG.integers(-20, 20, (300, 2)).astype("i1").tofile(tmp_path / "r.dat")
    path = write_header(
        tmp_path, "r 2 100 300\nr.dat 8 200/mV 8 0 -5 0 0 I\nr.dat 8 200/mV 8 0 9 0 0 II\n"
    )
    windows = [window.signal for window in iter_records(path, window_s=1.0)]
    np.testing.assert_array_equal(np.concatenate(windows, axis=1), read_record(path).signal)


def test_multi_segment_records_are_as_the_package_reads_them(tmp_path: Path) -> None:
    for name in ("s1", "s2"):
        wfdb.wrsamp(
            name,
            100,
            ["mV"],
            ["II"],
            RNG.normal(size=(100, 1)),
            fmt=["16"],
            write_dir=str(tmp_path),
        )
    write_header(tmp_path, "m/2 1 100 200\ns1 100\ns2 100\n", "m")
    expected = wfdb.rdrecord(str(tmp_path / "m")).p_signal.T
    np.testing.assert_allclose(read_record(tmp_path / "m").signal, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "layout",
            "layout 1 257 0\n~ 0 200(9223372036854775808)/mV 12 0 0 0 0 I\n",
            r"r\.hea: segment layout: baseline 9223372036854775808 is implausible",
        ),
        (
            "a",
            "a 1 257 9\na.dat 16 200/mV 12 0 0 0 0 I\n",
            r"r\.hea: segment a: holds 4 samples of 1 leads, the header promises 9",
        ),
        (
            "a",
            "a 1 257\ngone.dat 16 200/mV 12 0 0 0 0 I\n",
            r"r\.hea: segment a: signal file gone\.dat is not in the folder",
        ),
    ],
)
def test_what_is_wrong_with_a_segment_names_the_record_too(
    tmp_path: Path, name: str, text: str, expected: str
) -> None:
    write_header(tmp_path, "r/2 1 257 9\nlayout 0\na 9\n")
    write_header(tmp_path, "layout 1 257 0\n~ 0 200/mV 12 0 0 0 0 I\n", "layout")
    write_int16(tmp_path, np.zeros((4, 1)), "a 1 257 4\na.dat 16 200/mV 12 0 0 0 0 I\n", "a")
    write_header(tmp_path, text, name)
    with pytest.raises(RecordError, match=expected):
        read_record(tmp_path / "r.hea")


def test_a_segment_without_an_ecg_leaves_a_gap(tmp_path: Path) -> None:
    for name, units in (("s1", ("mV", "mmHg")), ("s2", ("mmHg",))):
        RNG.integers(-500, 500, (100, len(units))).astype("<i2").tofile(tmp_path / f"{name}.dat")
        lines = "".join(
            f"{name}.dat 16 100/{unit} 16 0 0 0 0 {'II' if unit == 'mV' else 'ABP'}\n"
            for unit in units
        )
        write_header(tmp_path, f"{name} {len(units)} 100 100\n{lines}", name)
    write_header(tmp_path, "m/2 2 100 200\ns1 100\ns2 100\n", "m")
    record = read_record(tmp_path / "m")
    assert record.leads == ("II",) and "not_a_voltage:ABP" in record.flags
    assert np.isfinite(record.signal[0, :100]).all() and np.isnan(record.signal[0, 100:]).all()


def test_lead_names_of_a_mat_file_are_read_from_cells(tmp_path: Path) -> None:
    order = ["V1", "V2", "V3", "V4", "V5", "V6", "I", "II", "III", "aVR", "aVL", "aVF"]
    with h5py.File(tmp_path / "m.mat", "w", userblock_size=512) as file:
        file["val"] = RNG.integers(-500, 500, (1000, 12)).astype(np.int16)
        for number, name in enumerate(order):
            held = file.create_dataset(
                f"#refs#/{number}", data=np.array([[ord(letter)] for letter in name], np.uint16)
            )
            held.attrs["MATLAB_class"] = np.bytes_("char")
        file.create_dataset(
            "leads",
            data=[[file[f"#refs#/{number}"].ref] for number in range(12)],
            dtype=h5py.ref_dtype,
        )
    with open(tmp_path / "m.mat", "r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    record = read_record(tmp_path / "m.mat", source_fs=500, source_gain_per_mv=1000)
    assert record.leads == tuple(order) and "lead_names_assumed" not in record.flags


# What a header may say ----------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", ["16", "61"])
def test_skewed_signals_are_aligned_as_the_package_does(tmp_path: Path, fmt: str) -> None:
    adc = RNG.integers(-500, 500, (300, 2))
    adc.astype("<i2" if fmt == "16" else ">i2").tofile(tmp_path / "r.dat")
    path = write_header(
        tmp_path,
        f"r 2 250 300\nr.dat {fmt} 200 12 0 {adc[0, 0]} 9 0 I\nr.dat {fmt}:5 200 12 0 7 9 0 II\n",
    )
    record = read_record(path)
    np.testing.assert_allclose(
        record.signal, wfdb.rdrecord(str(tmp_path / "r")).p_signal.T, atol=1e-6
    )
    np.testing.assert_allclose(record.signal[1, :295], adc[5:, 1] / 200, atol=1e-6)
    assert np.isnan(record.signal[1, 295:]).all()
    assert record.flags == ("checksum_mismatch:I",)


def test_signals_of_several_samples_a_frame_are_read_at_their_rate(tmp_path: Path) -> None:
    adc = RNG.integers(-500, 500, (200, 7))
    lines = [f"r.dat 16x{n} 200 12 0 0 0 0 {lead}" for n, lead in ((1, "I"), (2, "II"), (4, "V1"))]
    path = write_int16(tmp_path, adc, "\n".join(["r 3 62.5 200", *lines]))
    expected = wfdb.rdrecord(str(tmp_path / "r"), smooth_frames=False).e_p_signal
    record = read_record(path)
    assert (record.fs, record.leads, record.n_samples) == (250.0, ("II", "V1"), 800)
    # I has 62.5 Hz, which is too slow for an ECG.
    assert record.flags == ("other_rate:I", "upsampled:II") and record.unused == ("I",)
    np.testing.assert_allclose(record.signal[1], expected[2], atol=1e-6)
    np.testing.assert_allclose(record.signal[0, ::2], expected[1], atol=1e-6)
    np.testing.assert_allclose(
        record.signal[0, 1:-1:2], (expected[1][1:] + expected[1][:-1]) / 2, atol=1e-6
    )
    for i, window in enumerate(iter_records(path, window_s=0.5)):
        np.testing.assert_array_equal(window.signal, record.signal[:, i * 125 : i * 125 + 125])
    adc[3, 5] = -(2**15)
    record = read_record(write_int16(tmp_path, adc, "\n".join(["r 3 250 200", *lines])))
    assert np.argwhere(np.isnan(record.signal)).tolist() == [[2, 14]]


def test_a_slow_signal_beside_the_ecg_does_not_set_the_rate(tmp_path: Path) -> None:
    adc = np.arange(33 * 4).reshape(4, 33)
    header = "r 2 15.5 4\nr.dat 16x32 1000/mV 16 0 0 0 0 ECG\nr.dat 16 100/mmHg 16 0 0 0 0 ABP\n"
    record = read_record(write_int16(tmp_path, adc, header))
    assert (record.fs, record.leads, record.unused) == (496.0, ("ECG",), ("ABP",))
    np.testing.assert_allclose(record.signal[0], adc[:, :32].reshape(-1) / 1000, atol=1e-6)


def test_skews_are_undone_in_every_storage_format(tmp_path: Path) -> None:
    adc = RNG.integers(-50, 50, (97, 2))
    for fmt, dtype, skews in (
        ("16", "<i2", (17, 1)),
        ("61", ">i2", (3, 0)),
        ("32", "<i4", (0, 96)),
        ("8", "i1", (2, 5)),
    ):
        stored = np.diff(adc, axis=0, prepend=0) if fmt == "8" else adc
        stored.astype(dtype).tofile(tmp_path / "r.dat")
        # Format 8 needs the initial values; a line may end earlier in others.
        rest = " 8 0 0 0 0 {}" if fmt == "8" else ""
        lines = [
            f"r.dat {fmt}:{skew} 200/mV" + rest.format(lead)
            for skew, lead in zip(skews, ("I", "II"), strict=True)
        ]
        path = write_header(tmp_path, "\n".join(["r 2 100 97", *lines]))
        record = read_record(path)
        for row, skew in enumerate(skews):
            np.testing.assert_allclose(
                record.signal[row, : 97 - skew], adc[skew:, row] / 200, atol=1e-6
            )
            assert np.isnan(record.signal[row, 97 - skew :]).all()
        windows = [window.signal for window in iter_records(path, window_s=0.2)]
        np.testing.assert_array_equal(
            np.concatenate(windows, axis=1), record.signal[:, : 20 * len(windows)]
        )


def test_a_skew_counts_samples_of_its_signal(tmp_path: Path) -> None:
    path = write_int16(
        tmp_path,
        np.arange(1, 301).reshape(100, 3),
        "r 1 100 100\nr.dat 16x3:3 100(-500)/mV 16 0 0 0 0 II\n",
    )
    signal = read_record(path).signal[0]
    assert np.isnan(signal[-3:]).all()
    np.testing.assert_allclose(signal[:297], (np.arange(4, 301) + 500) / 100, atol=1e-5)


def test_more_lines_than_promised_are_ignored(tmp_path: Path) -> None:
    lines = "".join(f"s1.dat 16 100/mV 16 0 0 0 0 {lead}\n" for lead in ("I", "II", "V9"))
    path = write_int16(tmp_path, np.ones((50, 2)), "s1 2 100 50\n" + lines, "s1")
    assert read_record(path).leads == ("I", "II")
    write_header(tmp_path, "m/1 2 100 50\ns1 50\ngone 50\n", "m")
    assert read_record(tmp_path / "m.hea").n_samples == 50


def test_given_rate_and_gain_are_used_where_a_header_is_silent(tmp_path: Path) -> None:
    silent = write_int16(tmp_path, np.full((40, 1), 500), "a 1\na.dat 16\n", "a")
    record = read_record(silent)
    assert (record.fs, record.signal[0, 0]) == (250.0, 2.5)
    assert record.flags == ("gain_assumed:", "fs_assumed")
    given = read_record(silent, source_fs=360, source_gain_per_mv=1000)
    assert (given.fs, given.signal[0, 0], given.flags) == (360.0, 0.5, ())
    stated = write_int16(
        tmp_path, np.full((40, 1), 500), "b 1 100\nb.dat 16 200/mV 16 0 0 0 0 I\n", "b"
    )
    assert read_record(stated, source_fs=360, source_gain_per_mv=1000).signal[0, 0] == 2.5
    write_header(tmp_path, "m/1 1\na 40\n", "m")
    given = read_record(tmp_path / "m.hea", source_fs=360, source_gain_per_mv=1000)
    assert (given.fs, given.signal[0, 0], given.flags) == (360.0, 0.5, ())


def test_a_signal_that_nobody_wants_does_not_cost_the_record(tmp_path: Path) -> None:
    lines = (
        "r.dat 16 nan/mV 16 0 0 0 0 RESP\nr.dat 16 100/mV 16 0 0 0 0 II\n"
        "r.dat 16 1e99/mV 16 0 0 0 0 V1\n"
    )
    record = read_record(write_int16(tmp_path, np.ones((50, 3)), "r 3 100 50\n" + lines))
    assert (record.leads, record.unused) == (("II",), ("RESP", "V1"))
    assert record.flags == ("broken_scale:V1",)


def test_the_ecg_beside_other_voltages_is_found(tmp_path: Path) -> None:
    lines = "".join(f"r.dat 16 100/mV 16 0 0 0 0 {lead}\n" for lead in ("RESP", "ECG", "EOG"))
    record = read_record(write_int16(tmp_path, np.ones((50, 3)), "r 3 100 50\n" + lines))
    assert (record.leads, record.unused, record.flags) == (("ECG",), ("RESP", "EOG"), ())
    lines = lines.replace("ECG", "EEG")
    with pytest.raises(RecordError, match=r"no ECG signal: signals are 'RESP' \(mV\)"):
        read_record(write_int16(tmp_path, np.ones((50, 3)), "r 3 100 50\n" + lines))


def test_units_baseline_gain_and_missing_samples(tmp_path: Path) -> None:
    adc = np.array([[100, 200, 30, 5], [-32768, 200, 30, 5]])
    path = write_int16(
        tmp_path,
        adc,
        (
            "r 4 100 2\n"
            # the baseline in parentheses overrides the ADC zero of 7
            "r.dat 16 2(50)/uV 16 7 0 0 0 I\n"
            "r.dat 16 1000/V 16 100 0 0 0 II\n"  # the ADC zero serves as baseline
            "r.dat 16 0/mV 16 0 0 0 0 III\n"  # a gain of 0 means 200
            "r.dat 16 10/mmHg 16 0 0 0 0 ABP\n"
        ),
    )
    record = read_record(path)
    np.testing.assert_allclose(
        record.signal, [[0.025, np.nan], [100, 100], [0.15, 0.15]], atol=1e-6
    )
    assert record.leads == ("I", "II", "III")
    assert record.flags == ("not_a_voltage:ABP", "gain_assumed:III")


def test_checksum_and_initial_value_are_compared_but_zero_accuses_nobody(tmp_path: Path) -> None:
    adc = np.array([[5, 5, 5], [6, 6, 6]])
    header = (
        "r 3 100 2\nr.dat 16 100/mV 16 0 5 11 0 I\nr.dat 16 100/mV 16 0 4 12 0 II\nr.dat 16 "
        "100/mV 16 0 9 0 0 III\n"
    )
    assert read_record(write_int16(tmp_path, adc, header)).flags == (
        "checksum_mismatch:II",
        "initial_value_mismatch:II",
    )


def test_challenge_header_with_mat_in_its_name_and_an_odd_date(tmp_path: Path) -> None:
    adc = RNG.integers(-900, 900, (500, 12))
    lines = "".join(
        f"E1.mat 16+24 1000/mv 16 0 {adc[0, i]} 0 0 {lead}\n"
        for i, lead in enumerate(STANDARD_LEADS)
    )
    header = (
        f"E1.mat 12 500 500 05-May-2020 14:50:55\r\n{lines}#Age: 57\n#Sex: F\n#Dx: "
        "164889003,59118001\n#Rx: Unknown\n"
    )
    scipy.io.savemat(tmp_path / "E1.mat", {"val": adc.T.astype(np.int16)}, format="4")
    record = read_record(write_header(tmp_path, header, "E1"))
    np.testing.assert_allclose(record.signal, adc.T / 1000, atol=1e-6)
    assert (record.codes, record.age, record.sex) == (("164889003", "59118001"), 57.0, "female")


@pytest.mark.parametrize(
    ("comment", "age", "sex"),
    [
        ("# 69 M 1085 1629 x1", 69, "male"),
        ("#Age: NaN", None, None),
        ("# <age>: 81  <sex>: F", 81, "female"),
        ("#Age: -1\n#Sex: Unknown", None, None),
    ],
)
def test_age_and_sex_in_the_ways_sources_write_them(
    tmp_path: Path, comment: str, age: float | None, sex: str | None
) -> None:
    path = write_int16(
        tmp_path, np.ones((3, 1)), f"r 1 100 3\nr.dat 16 100/mV 16 0 0 0 0 II\n{comment}\n"
    )
    record = read_record(path)
    assert (record.age, record.sex) == (age, sex)


@pytest.mark.parametrize("given", ["r.hea", "r.dat", "r", Path("r")])
def test_paths_in_every_form(tmp_path: Path, given: str | Path) -> None:
    write_int16(tmp_path, np.ones((3, 1)), "r 1 100 3\nr.dat 16 100/mV 16 0 0 0 0 II\n")
    for path in (tmp_path / given, str(tmp_path / given)):
        assert read_record(path).signal.tolist() == [pytest.approx([0.01] * 3)]


def test_names_with_dots_spaces_and_other_case(tmp_path: Path) -> None:
    write_int16(tmp_path, np.ones((3, 1)), "a.b 1 100 3\nA.B.DAT 16 100/mV 16 0 0 0 0 II\n", "a.b")
    (tmp_path / "my rec.dat").write_bytes((tmp_path / "a.b.dat").read_bytes())
    write_header(tmp_path, "my_rec 1 100 3\nmy rec.dat 16 100/mV 16 0 0 0 0 II\n", "my rec")
    assert read_record(tmp_path / "a.b").record_id == "a.b"
    assert read_record(tmp_path / "my rec").n_samples == 3


# Bare MAT -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["4", "5", "7.3"])
def test_bare_mat_takes_rate_and_gain(tmp_path: Path, version: str) -> None:
    adc = RNG.integers(-900, 900, (12, 300)).astype(np.int16)
    path = tmp_path / "x.mat"
    if version == "7.3":
        with h5py.File(path, "w", userblock_size=512) as file:
            file["val"] = adc.T  # MATLAB stores matrices transposed
    else:
        scipy.io.savemat(path, {"val": adc}, format=version)
    record = read_record(path, source_fs=257, source_gain_per_mv=1000)
    np.testing.assert_allclose(record.signal, adc / 1000, atol=1e-6)
    assert (record.fs, record.leads, record.flags) == (
        257.0,
        STANDARD_LEADS,
        ("lead_names_assumed",),
    )
    with pytest.raises(RecordError, match=r"x\.mat: says no sampling rate: give --source-fs"):
        read_record(path)
    with pytest.raises(RecordError, match="no gain: give --source-gain"):
        read_record(path, source_fs=257)


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_bare_mat_with_one_matrix_of_any_name(tmp_path: Path, version: str) -> None:
    matrix = RNG.integers(-500, 500, (12, 400)).astype(np.int16)

    def save(**matrices: np.ndarray) -> Path:
        if version == "5":
            scipy.io.savemat(tmp_path / "r.mat", {"fs": 250, "note": "x", **matrices})
        else:
            with h5py.File(tmp_path / "r.mat", "w") as file:
                file["fs"] = [[250.0]]
                for name, value in matrices.items():
                    file[name] = value.T
        return tmp_path / "r.mat"

    record = read_record(save(tracing=matrix), source_gain_per_mv=1000)
    np.testing.assert_allclose(record.signal, matrix / 1000, atol=1e-6)
    assert record.fs == 250
    with pytest.raises(RecordError, match="one matrix alone"):
        read_record(save(tracing=matrix, another=matrix), source_gain_per_mv=1000)


@pytest.mark.parametrize("version", ["4", "5", "7.3"])
def test_challenge_mat_saved_again_in_any_version_keeps_its_samples(
    tmp_path: Path, version: str
) -> None:
    adc = RNG.integers(-500, 500, (2, 400)).astype(np.int16)
    adc[1, 7] = -(2**15)
    if version == "7.3":
        with h5py.File(tmp_path / "r.mat", "w", userblock_size=512) as file:
            file["val"] = adc.T
        with open(tmp_path / "r.mat", "r+b") as stream:
            stream.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    else:
        scipy.io.savemat(tmp_path / "r.mat", {"val": adc}, format=version)
    path = write_header(
        tmp_path,
        "r 2 500 400\nr.mat 16+24 1000/mV 16 0 0 0 0 I\nr.mat 16+24 1000/mV 16 0 0 0 0 II\n",
    )
    expected = np.where(adc == -(2**15), np.nan, adc / 1000)
    np.testing.assert_allclose(read_record(path).signal, expected, atol=1e-6)
    np.testing.assert_allclose(
        next(iter_records(path, window_s=0.2)).signal, expected[:, :100], atol=1e-6
    )


def test_header_beside_a_mat_of_other_leads_or_numbers_is_refused(tmp_path: Path) -> None:
    path = write_header(tmp_path, "r 1 500 400\nr.mat 16+24 1000/mV 16 0 0 0 0 I\n")
    for matrix, expected in (
        (np.zeros((2, 400), np.int16), "400 samples of 2 leads"),
        (np.full((1, 400), 0.5), "no ADC values"),
    ):
        scipy.io.savemat(tmp_path / "r.mat", {"val": matrix})
        with pytest.raises(RecordError, match=expected):
            read_record(path)


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_cpsc2018_structure_is_in_millivolts(tmp_path: Path, version: str) -> None:
    data = RNG.normal(size=(12, 700)).astype(np.float32)
    path = tmp_path / "A1.mat"
    if version == "7.3":
        with h5py.File(path, "w", userblock_size=512) as file:
            group = file.create_group("ECG")
            group["data"], group["age"] = data.T, np.array([[74.0]])
            group["sex"] = np.array([[ord(c)] for c in "Male"], np.uint16)
            group["sex"].attrs["MATLAB_class"] = np.bytes_("char")
    else:
        scipy.io.savemat(path, {"ECG": {"sex": "Male", "age": 74, "data": data}})
    record = read_record(path)
    np.testing.assert_allclose(record.signal, data, atol=1e-6)
    assert (record.fs, record.age, record.sex, record.flags) == (
        500.0,
        74.0,
        "male",
        ("fs_assumed", "unit_assumed:mV", "lead_names_assumed"),
    )


# Windows ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", ["16", "212"])
def test_windows_are_the_slices_of_the_whole(tmp_path: Path, fmt: str) -> None:
    signal = RNG.normal(size=(1050, 3)) * 0.2
    wfdb.wrsamp(
        "r",
        100,
        ["mV"] * 3,
        ["I", "II", "V1"],
        signal,
        fmt=[fmt] * 3,
        adc_gain=[500.0] * 3,
        baseline=[0] * 3,
        write_dir=str(tmp_path),
    )
    whole = read_record(tmp_path / "r")
    windows = list(iter_records(tmp_path / "r", window_s=2.01, stride_s=1.03))
    assert [w.record_id for w in windows] == [f"r__w{i:05d}" for i in range(9)]
    for i, window in enumerate(windows):
        np.testing.assert_array_equal(window.signal, whole.signal[:, i * 103 : i * 103 + 201])
    assert [r.record_id for r in iter_records(tmp_path / "r")] == ["r"]
    with pytest.raises(ValueError, match="window_s is 0"):
        list(iter_records(tmp_path / "r", window_s=0))


# Bad input ----------------------------------------------------------------------------------------

GOOD = "r 1 100 3\nr.dat 16 100/mV 16 0 0 0 0 II\n"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", "header is empty"),
        ("r\n", "record line 'r' is not"),
        ("r 0 100 3\n", "zero leads"),
        ("r 2 100 3\nr.dat 16 100/mV 16 0 0 0 0 II\n", "promises 2 leads, 1 signal lines follow"),
        ("r 1 0 3\nr.dat 16\n", "sampling rate is 0"),
        ("r 1 -5 3\nr.dat 16\n", "sampling rate is -5"),
        (
            "r 1 100 4\nr.dat 16 100/mV 16 0 0 0 0 II\n",
            r"r\.dat: holds 3 samples of 1 leads, the header promises 4",
        ),
        ("r 1 100 3\nr.dat 77 100/mV\n", "not readable as WFDB"),
        ("r 1 100 3\ngone.dat 16 100/mV\n", "signal file gone.dat is not in the folder"),
        ("r 1 100 3\n../r.dat 16 100/mV\n", "is not a plain file name"),
        ("r 1 100 3\nC:r.dat 16 100/mV\n", "is not a plain file name"),
        ("r 1 100 3\nr.dat 16 nan/mV\n", "gain nan is implausible"),
        ("r 1 100 3\nr.dat sixteen 100/mV\n", "signal line"),
        ("r 1 100 3\nr.dat 16 100/mmHg 16 0 0 0 0 ABP\n", "no lead is a voltage"),
        ("r 1 100 99999999999\nr.dat 16 100/mV\n", "the header promises 99999999999"),
    ],
)
def test_broken_headers_give_one_clear_error(tmp_path: Path, header: str, expected: str) -> None:
    path = write_int16(tmp_path, np.ones((3, 1)), header)
    with pytest.raises(RecordError, match=expected) as error:
        read_record(path)
    assert isinstance(error.value, ValueError) and str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.mat", b"", "file is empty"),
        (
            "a.mat",
            b"not a mat file at all, but long enough to be looked at" * 9,
            "not readable as a MAT file",
        ),
        ("a.mat", b"MATLAB 7.3 MAT-file" + b"\0" * 600, "not readable as a MAT file"),
        ("a.dat", b"12", r"its header a\.hea is not in the folder"),
        ("a.xyz", b"12", r"unknown format '\.xyz'"),
    ],
)
def test_broken_files_give_one_clear_error(
    tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RecordError, match=expected):
        read_record(tmp_path / name)


def test_a_torn_file_of_the_working_folder_is_named_as_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_int16(tmp_path, np.zeros((9, 1)), "r 1 500 10\nr.dat 16 1000/mV 16 0 0 0 0 I\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        RecordError, match=r"^r\.dat: holds 9 samples of 1 leads, the header promises 10$"
    ):
        read_record("r.hea")


def test_mat_without_a_signal_and_a_missing_record(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"other": np.ones(3)})
    with pytest.raises(RecordError, match="holds other: expected a matrix called val"):
        read_record(tmp_path / "a.mat")
    with pytest.raises(RecordError, match="no such record"):
        read_record(tmp_path / "nothing")


def test_an_error_crosses_processes() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(RecordError("a/b.hea", "is broken")))
    assert str(error) == "a/b.hea: is broken" and error.message == "is broken"


def test_a_record_checks_its_own_shape() -> None:
    with pytest.raises(ValueError, match=r"signal has shape \(2, 3\), expected \(1, n_samples\)"):
        ECGRecord("r", np.zeros((2, 3), np.float32), 100.0, ("I",))


# Real recordings ----------------------------------------------------------------------------------


def test_all_real_challenge_records_read_and_equal_the_packages(
    real_data: Callable[[str], Path],
) -> None:
    headers = sorted(real_data("challenge2021").glob("*.hea"))
    assert len(headers) == 141
    refused = 0
    for path in headers:
        record = read_record(path)
        adc = scipy.io.loadmat(path.with_suffix(".mat"))["val"]
        assert record.leads == STANDARD_LEADS and record.codes
        if not record.signal.shape == adc.shape:
            raise AssertionError(path)
        try:
            expected = wfdb.rdrecord(str(path.with_suffix(""))).p_signal.T
        except wfdb.io.header.HeaderSyntaxError:
            refused += 1
            expected = adc / 1000
        np.testing.assert_allclose(record.signal, expected, atol=2e-6)
    assert refused == 24


@pytest.mark.parametrize("name", ["challenge2017", "mitdb", "cpsc2021_sample", "ptbxl500"])
def test_other_real_collections_equal_wfdb(real_data: Callable[[str], Path], name: str) -> None:
    for path in sorted(real_data(name).rglob("*.hea"))[:12]:
        record = read_record(path)
        np.testing.assert_allclose(
            record.signal, wfdb.rdrecord(str(path.with_suffix(""))).p_signal.T, atol=2e-6
        )
        assert not record.flags


def test_native_cpsc2018_equals_scipy(real_data: Callable[[str], Path]) -> None:
    for path in sorted(real_data("cpsc2018_native_sample").glob("*.mat")):
        expected = scipy.io.loadmat(path, simplify_cells=True)["ECG"]["data"]
        np.testing.assert_allclose(read_record(path).signal, expected, atol=1e-6)


def test_the_first_signal_of_a_file_says_where_its_samples_begin(tmp_path: Path) -> None:
    np.arange(2048, dtype="<i2").tofile(tmp_path / "a.dat")
    (tmp_path / "a.hea").write_text(
        "a 2 100 100\na.dat 16+24 1/mV 16 0 0 0 0 I\na.dat 16 1/mV 16 0 0 0 0 II\n"
    )
    assert (
        read_record(tmp_path / "a.hea").signal[:, :3].tolist()
        == wfdb.rdrecord(str(tmp_path / "a")).p_signal[:3].T.tolist()
    )


@pytest.mark.parametrize(
    "lines", [("a.dat 16", "b.dat 16", "a.dat 16"), ("a.dat 16", "a.dat 212", "b.dat 16")]
)
def test_signals_of_a_file_that_stand_apart_or_differ_in_format_are_refused(
    lines: tuple[str, ...], tmp_path: Path
) -> None:
    for name in ("a.dat", "b.dat"):
        np.arange(2048, dtype="<i2").tofile(tmp_path / name)
    rows = [
        f"{line} 1/mV 16 0 0 0 0 {lead}"
        for line, lead in zip(lines, ("I", "II", "V1"), strict=True)
    ]
    (tmp_path / "a.hea").write_text("\n".join(["a 3 100 100", *rows]) + "\n")
    with pytest.raises(
        RecordError, match="lists the signals of a file apart or in several formats"
    ):
        read_record(tmp_path / "a.hea")


def test_a_fault_of_the_machine_is_none_of_the_file() -> None:
    stale = OSError(errno.ESTALE, "Stale file handle")
    assert package_error("a.h5", stale, "HDF5") is stale
    refused = package_error("a.h5", KeyError("x"), "HDF5")
    assert (
        isinstance(refused, RecordError)
        and str(refused) == "a.h5: not readable as HDF5 (KeyError: 'x')"
    )
