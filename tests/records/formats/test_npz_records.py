from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from src.config import STANDARD_LEADS
from src.records.folders import index_folder, survey_folder
from src.records.reading import iter_records, list_parts, read_record
from src.records.record import RecordError

RNG = np.random.default_rng(73)
WAVE = np.sin(np.arange(1000) / 7)[:, None] ** 15
ECG = (WAVE * np.linspace(0.5, 2, 12) + RNG.normal(0, 0.01, (1000, 12))).astype(np.float32)
MANY = np.stack([(k + 1) * ECG for k in range(3)])


def write(path: Path, *, compressed: bool = False, **arrays: object) -> Path:
    (np.savez_compressed if compressed else np.savez)(path, **arrays)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("compressed", [False, True])
def test_what_is_stated_beside_the_signal_is_used(tmp_path: Path, compressed: bool) -> None:
    path = write(
        tmp_path / "r.npz",
        compressed=compressed,
        fs=250,
        unit="uV",
        signal=ECG[:, :2] * 1000,
        leads=np.array(["II", "V1"]),
    )
    record = read_record(path)
    np.testing.assert_allclose(record.signal, ECG[:, :2].T, rtol=1e-5)
    assert (record.record_id, record.fs, record.leads) == ("r", 250.0, ("II", "V1"))
    assert record.flags == ()
    assert [found.relative for found in index_folder(tmp_path)] == ["r.npz"]
    assert [window.n_samples for window in iter_records(path, window_s=2)] == [500, 500]


def test_an_array_without_a_name_needs_a_rate(tmp_path: Path) -> None:
    np.savez(tmp_path / "r.npz", ECG)
    with pytest.raises(RecordError, match="says no sampling rate: give --source-fs"):
        read_record(tmp_path / "r.npz")
    record = read_record(tmp_path / "r.npz", source_fs=100)
    np.testing.assert_array_equal(record.signal, ECG.T)
    assert (record.leads, record.fs) == (STANDARD_LEADS, 100.0)


@pytest.mark.parametrize(("leads_last", "name"), [(True, "X"), (False, "X"), (True, "signal")])
def test_many_records_with_ids_in_the_archive(tmp_path: Path, leads_last: bool, name: str) -> None:
    path = write(
        tmp_path / "X.npz",
        **{name: MANY if leads_last else MANY.swapaxes(1, 2)},
        ecg_id=np.array([7, 8, 9]),
        fs=np.array([100.0, 200.0, 500.0]),
        age=np.array([50, 60, 70]),
    )
    assert list_parts(path) == ("7", "8", "9")
    assert [found.relative for found in index_folder(tmp_path)] == [
        f"X.npz::{k}" for k in (7, 8, 9)
    ]
    record = read_record(f"{path}::8")
    np.testing.assert_allclose(record.signal, MANY[1].T, rtol=1e-6)
    assert (record.record_id, record.fs, record.age) == ("8", 200.0, 60.0)


def test_many_records_named_by_a_table_or_by_their_row(tmp_path: Path) -> None:
    path = write(tmp_path / "X.npz", X=MANY, fs=100)
    assert list_parts(path) == ("X-00000", "X-00001", "X-00002")
    (tmp_path / "X.csv").write_text("record_id,age\na,1\nb,2\nc,3\n")
    assert list_parts(path) == ("a", "b", "c")
    assert read_record(f"{path}::c").n_samples == 1000
    with pytest.raises(RecordError, match="holds 3 records: name one that it has"):
        read_record(path)


def test_archives_of_features_and_objects_are_no_records(tmp_path: Path) -> None:
    write(tmp_path / "features.npz", features=RNG.normal(size=(300, 5)), ids=np.arange(300))
    np.savez(tmp_path / "o.npz", np.array([{}], object), allow_pickle=True)
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04")
    index = survey_folder(tmp_path)
    assert index.records == ()
    assert {file.unread.reason for file in index.passed_over} == {
        "is a NumPy archive whose arrays do not run like a signal"
    }


def test_bad_archives_give_one_clear_error(tmp_path: Path) -> None:
    good = write(tmp_path / "r.npz", signal=ECG, fs=100).read_bytes()
    (tmp_path / "cut.npz").write_bytes(good[:-300])
    np.savez(tmp_path / "object.npz", signal=ECG, fs=np.array([{}], object), allow_pickle=True)
    write(tmp_path / "ids.npz", X=MANY, id=np.array([1, 1, 2]))
    with zipfile.ZipFile(tmp_path / "claims.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("signal.npy", bytes(2**27 + 1))
    with zipfile.ZipFile(tmp_path / "short.npz", "w") as archive:
        archive.writestr("signal.npy", good[good.index(b"\x93NUMPY") :][:200])
    with (
        zipfile.ZipFile(tmp_path / "twice.npz", "w") as archive,
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        for _ in range(2):
            archive.writestr("signal.npy", good[good.index(b"\x93NUMPY") :])
    for name, expected in (
        ("twice", "has two arrays of one name"),
        ("cut", "is no NumPy archive"),
        ("object", "holds values of type object: expected numbers or texts"),
        ("ids", "names 2 ids of 3 records: expected one for each"),
        ("claims", "save large arrays as .npy"),
        ("short", r"promises shape \(1000, 12\), 72 bytes are stored"),
    ):
        with pytest.raises(RecordError, match=expected):
            [read_record(record, source_fs=100) for record in list_parts_or_self(tmp_path / name)]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("code_point", [0x110000, 0xFFFFFFFF])
def test_text_that_is_not_unicode_is_refused(tmp_path: Path, order: str, code_point: int) -> None:
    """NumPy makes a string of it, with which Python fails as soon as it is used."""
    leads = np.array([ord("I"), code_point], f"{order}u4").view(f"{order}U1")
    path = write(tmp_path / "a.npz", signal=ECG, fs=500, leads=leads)
    with pytest.raises(RecordError, match=r"a\.npz: holds text that is not Unicode"):
        read_record(path)


def list_parts_or_self(path: Path) -> list[str]:
    path = path.with_suffix(".npz")
    return [f"{path}::{part}" for part in list_parts(path)] or [str(path)]
