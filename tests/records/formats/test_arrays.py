from __future__ import annotations

import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from src.config import STANDARD_LEADS
from src.records.folders import index_folder, survey_folder
from src.records.reading import iter_records, list_parts, read_record
from src.records.record import RecordError

RNG = np.random.default_rng(52)
WAVE = np.sin(2 * np.pi * 1.2 * np.arange(2500) / 250)[:, None] ** 15
ECG = (WAVE * np.linspace(0.5, 2, 12) + RNG.normal(0, 0.01, (2500, 12))).astype(np.float32)


def write(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


@pytest.mark.parametrize(
    "array", [ECG, ECG.T, np.asfortranarray(ECG), ECG[None], ECG.astype(">f8")]
)
def test_an_array_is_read_in_any_layout(tmp_path: Path, array: np.ndarray) -> None:
    record = read_record(write(tmp_path / "x.npy", array))
    np.testing.assert_allclose(record.signal, ECG.T)
    assert (record.fs, record.leads) == (250.0, STANDARD_LEADS)
    assert record.flags == ("fs_assumed", "unit_assumed:mV", "lead_names_assumed")
    given = read_record(tmp_path / "x.npy", source_fs=500, source_gain_per_mv=2)
    np.testing.assert_allclose(given.signal, ECG.T / 2)
    assert (given.fs, given.flags) == (500, ("lead_names_assumed",))


def test_microvolts_counts_and_missing_samples(tmp_path: Path) -> None:
    record = read_record(write(tmp_path / "x.npy", ECG[:, 0] * 1000))
    np.testing.assert_allclose(record.signal[0], ECG[:, 0], rtol=1e-5)
    assert record.leads == ("",) and record.flags == ("fs_assumed", "unit_assumed:uV")
    counts = np.rint(ECG[:, :2] * 200).astype(np.int16)
    counts[3, 1] = -(2**15)
    write(tmp_path / "x.npy", counts)
    with pytest.raises(RecordError, match="holds whole numbers and says no unit and no gain"):
        read_record(tmp_path / "x.npy")
    record = read_record(tmp_path / "x.npy", source_gain_per_mv=200)
    assert np.isnan(record.signal[1, 3]) and record.signal[0, 3] == np.float32(counts[3, 0] / 200)


def test_windows_are_read_in_part_and_have_one_unit(tmp_path: Path) -> None:
    long = np.tile(ECG, (400, 1))  # 48 MB
    # A window whose own amplitude would be taken for volts
    long[-2500:] *= 1e-3
    path = write(tmp_path / "x.npy", long)
    tracemalloc.start()
    windows = list(iter_records(path, window_s=10, stride_s=400, source_fs=250))
    assert tracemalloc.get_traced_memory()[1] < 2e7
    tracemalloc.stop()
    assert len(windows) == 10 and {window.n_samples for window in windows} == {2500}
    assert {window.flags[0] for window in windows} == {"unit_assumed:mV"}
    whole = read_record(path, source_fs=250)
    np.testing.assert_array_equal(windows[3].signal, whole.signal[:, 300_000:302_500])


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.zeros((5, 100, 12)), r"holds 5 records: name one, such as x\.npy::x-00000"),
        (np.zeros((100, 90)), "expected at most 64 leads"),
        (np.zeros((0, 12)), "expected leads and samples"),
        (np.array(["a", "b"]), "holds values of type <U1: expected numbers"),
        (np.zeros(9, complex), "holds values of type complex128"),
        (np.zeros((99, 2)), "says no sampling rate: give --source-fs"),
        (np.linspace(40.5, 90.5, 1000), "an amplitude of 49 fits no voltage"),
    ],
)
def test_bad_arrays_give_one_clear_error(tmp_path: Path, array: np.ndarray, expected: str) -> None:
    with pytest.raises(RecordError, match=expected):
        read_record(write(tmp_path / "x.npy", array))


def test_a_header_that_lies_reserves_no_memory(tmp_path: Path) -> None:
    path = write(tmp_path / "x.npy", ECG)
    good = path.read_bytes()
    path.write_bytes(good.replace(b"(2500, 12)", b"(9999, 12)"))
    with pytest.raises(RecordError, match=r"promises shape \(9999, 12\), 30000 values are stored"):
        read_record(path)
    for damaged in (b"\x93NUMPY", good[:40], good.replace(b"'descr'", b"'dexcr'")):
        path.write_bytes(damaged)
        with pytest.raises(RecordError, match=r"x\.npy"):
            read_record(path)
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(RecordError, match="holds values of type object"):
        read_record(path)


def test_arrays_of_labels_are_no_recordings(tmp_path: Path) -> None:
    write(tmp_path / "ecg.npy", ECG)
    write(tmp_path / "y.npy", RNG.integers(0, 5, 2000))
    write(tmp_path / "ages.npy", RNG.integers(20, 90, 2000))
    write(tmp_path / "ids.npy", np.arange(2000))
    write(tmp_path / "onehot.npy", np.eye(5)[RNG.integers(0, 5, 2000)])
    np.savez(tmp_path / "many.npz", y=RNG.integers(0, 5, 2000))
    assert [record.relative for record in index_folder(tmp_path)] == ["ecg.npy"]
    reasons = {file.relative: file.unread.reason for file in survey_folder(tmp_path).passed_over}
    assert "do not run like a signal" in reasons["y.npy"]
    assert reasons["many.npz"] == "is a NumPy archive whose arrays do not run like a signal"


# Many records -------------------------------------------------------------------------------------


MANY = np.stack([(k + 1) * ECG[:1000] for k in range(3)])  # (3, 1000, 12)


@pytest.mark.parametrize("leads_last", [True, False])
def test_many_records_are_named_by_a_table(tmp_path: Path, leads_last: bool) -> None:
    np.save(tmp_path / "X.npy", MANY if leads_last else MANY.swapaxes(1, 2))
    (tmp_path / "X.csv").write_text("age,ecg_id\n50,p1\n51,p2\n52,p3\n")
    assert list_parts(tmp_path / "X.npy") == ("p1", "p2", "p3")
    found = index_folder(tmp_path)
    assert [record.relative for record in found] == [f"X.npy::p{k}" for k in (1, 2, 3)]
    record = read_record(f"{tmp_path}/X.npy::p2")
    np.testing.assert_array_equal(record.signal, MANY[1].T)
    assert (record.record_id, record.fs, record.leads) == ("p2", 100.0, STANDARD_LEADS)
    assert record.flags == ("fs_assumed", "unit_assumed:mV", "lead_names_assumed")
    windows = list(iter_records(f"{tmp_path}/X.npy::p3", window_s=4))
    assert [window.n_samples for window in windows] == [400, 400]
    np.testing.assert_array_equal(windows[1].signal, MANY[2, 400:800].T)
    assert len(list(iter_records(tmp_path / "X.npy", source_fs=200))) == 3


def test_many_records_without_a_table_are_named_by_file_and_row(tmp_path: Path) -> None:
    np.save(tmp_path / "X.npy", MANY * 1000)
    assert list_parts(tmp_path / "X.npy") == ("X-00000", "X-00001", "X-00002")
    record = read_record(f"{tmp_path}/X.npy::X-00002", leads=["I", *["-"] * 11])
    np.testing.assert_allclose(record.signal, MANY[2, :, :1].T, rtol=1e-5)
    assert "unit_assumed:uV" in record.flags


def test_a_table_tells_records_of_one_lead_from_a_record_of_several(tmp_path: Path) -> None:
    np.save(tmp_path / "X.npy", MANY[..., :1])
    assert read_record(tmp_path / "X.npy").signal.shape == (3, 1000)
    np.save(tmp_path / "Y.npy", MANY[..., :1])
    (tmp_path / "Y_index.tsv").write_text("id\tage\na\t1\nb\t2\nc\t3\n")
    assert read_record(f"{tmp_path}/Y.npy::b").signal.shape == (1, 1000)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("ecg_id\na\nb\n", "its index X.csv has 2 rows, 3 records are stored"),
        ("ecg_id\na\nb\na\n", "its index X.csv names 'a' in line 4: expected an id of its own"),
        ("ecg_id,x\na\n,1\nc\n", "its index X.csv names '' in line 3"),
        ("name\na\nb\nc\n", "has columns name: expected one of record_id, ecg_id"),
    ],
)
def test_bad_tables_give_one_clear_error(tmp_path: Path, table: str, expected: str) -> None:
    np.save(tmp_path / "X.npy", MANY)
    (tmp_path / "X.csv").write_text(table)
    with pytest.raises(RecordError, match=expected):
        list_parts(tmp_path / "X.npy")
    assert [record.relative for record in index_folder(tmp_path)] == ["X.npy"]


def test_a_record_that_is_not_there(tmp_path: Path) -> None:
    np.save(tmp_path / "X.npy", MANY)
    with pytest.raises(RecordError, match=r"has no record 'z': expected one such as X\.npy::X-0"):
        read_record(f"{tmp_path}/X.npy::z")


def test_thousands_of_leads_are_refused_in_every_format_of_arrays(tmp_path: Path) -> None:
    wide = np.tile(RNG.normal(0, 1, 300).cumsum(), (200, 1))
    np.save(tmp_path / "a.npy", wide)
    np.savez(tmp_path / "b.npz", signal=wide, fs=100)
    scipy.io.savemat(tmp_path / "c.mat", {"val": wide, "fs": 100.0, "unit": "mV"})
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["ecg"], file["fs"] = wide, 100.0
    np.savetxt(tmp_path / "e.csv", wide, delimiter=",")
    for name in ("a.npy", "b.npz", "c.mat", "d.h5", "e.csv"):
        with pytest.raises(RecordError, match=rf"{name}.*200.*expected at most 64 leads"):
            read_record(tmp_path / name, source_fs=100)
    names = np.array([f"ECG{i}" for i in range(200)])
    np.savez(tmp_path / "f.npz", signal=wide, fs=100, unit="mV", leads=names)
    assert read_record(tmp_path / "f.npz").n_leads == 200


def test_arrays_of_texts_are_no_recordings(tmp_path: Path) -> None:
    np.save(tmp_path / "classes.npy", np.array(["AF", "SR"]))
    np.save(tmp_path / "has_af.npy", np.array([True, False]))
    assert index_folder(tmp_path) == []
