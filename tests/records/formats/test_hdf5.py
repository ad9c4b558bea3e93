from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from settings import SMALL

from src.commands.dry_run import check_datasets
from src.commands.predict_files import find_record_files, predict_to_table
from src.config import STANDARD_LEADS, DataConfig, ExecutionConfig
from src.preprocessing import run_preprocessing
from src.processed.manifest import load_manifest
from src.processed.record_files import load_record_file, record_path, to_millivolts
from src.records.folders import index_folder
from src.records.formats.hdf5 import hdf5_parts
from src.records.formats.stated_facts import unit_by_amplitude
from src.records.reading import iter_records, list_records, read_record, record_name
from src.records.record import RecordError
from src.records.synthetic import CLASSES, generate_ecg

RNG = np.random.default_rng(11)
ONE = ExecutionConfig(workers=1)


def ecg(i: int, n_samples: int = 2800, fs: float = 400.0) -> np.ndarray:
    """One simulated recording in mV, shape (12, n_samples)."""
    return generate_ecg(
        CLASSES[i % len(CLASSES)], fs=fs, duration_s=n_samples / fs, rng=np.random.default_rng(i)
    ).signal


def write_code15(path: Path, n: int = 10, unit: float = 1.0) -> list[np.ndarray]:
    """Write CODE-15%'s layout: zeros on both sides, a last row of zeros with the id 0."""
    signals = [ecg(i, 2800 if i % 2 else 4000) for i in range(n)]
    tracings = np.zeros((n + 1, 4096, 12), np.float32)
    for row, signal in zip(tracings, signals, strict=False):
        left = (4096 - signal.shape[1]) // 2
        row[left : left + signal.shape[1]] = signal.T * unit
    with h5py.File(path, "w") as file:
        file["tracings"] = tracings
        file["exam_id"] = np.array([*range(1000, 1000 + n), 0])
    return signals


# One record per file ------------------------------------------------------------------------------


def test_sph_layout(tmp_path: Path) -> None:
    signal = ecg(0, 5000, 500.0).astype(np.float16)
    with h5py.File(tmp_path / "S1.h5", "w") as file:
        file.create_dataset("ecg", data=signal, compression="gzip")
    record = read_record(tmp_path / "S1.h5")
    np.testing.assert_array_equal(record.signal, signal.astype(np.float32))
    assert (record.record_id, record.fs, record.leads) == ("S1", 500.0, STANDARD_LEADS)
    assert record.flags == ("fs_assumed", "unit_assumed:mV", "lead_names_assumed")
    assert read_record(tmp_path / "S1", source_fs=250).fs == 250.0
    windows = list(iter_records(tmp_path / "S1.h5", window_s=3, stride_s=2))
    assert [w.record_id for w in windows] == [
        "S1__w00000",
        "S1__w00001",
        "S1__w00002",
        "S1__w00003",
    ]
    np.testing.assert_array_equal(windows[3].signal, record.signal[:, 3000:4500])


def test_leads_and_rate_may_be_attributes_or_stand_for_each_record(tmp_path: Path) -> None:
    order = ["V1", "V2", "V3", "V4", "V5", "V6", "I", "II", "III", "aVR", "aVL", "aVF"]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["ecg"] = ecg(1, 1000)
        file["ecg"].attrs.update({"leads": order, "fs": "250"})
    record = read_record(tmp_path / "a.h5", source_gain_per_mv=1)
    assert record.leads == tuple(order) and record.fs == 250 and "fs_assumed" not in record.flags
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["ecg"], file["fs"] = np.stack([ecg(i, 1000) for i in range(3)]), np.full(3, 250)
    assert read_record(list_records(tmp_path / "b.h5")[1], source_gain_per_mv=1).fs == 250


def test_what_the_file_says_comes_first(tmp_path: Path) -> None:
    signal = ecg(1, 1000)[:2]
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["signal"] = (signal.T * 1000).astype(np.int16)
        file["signal"].attrs.update({"fs": 400, "units": "uV"})
        file["leads"] = ["DII", "V1"]
    record = read_record(tmp_path / "a.hdf5", source_fs=1, source_gain_per_mv=1)
    np.testing.assert_allclose(record.signal, signal, atol=1e-3)
    assert (record.fs, record.leads, record.flags) == (400.0, ("DII", "V1"), ())


@pytest.mark.parametrize(
    ("unit", "flags"),
    [(1.0, ("unit_assumed:mV",)), (1e3, ("unit_assumed:uV",)), (1e-3, ("unit_assumed:V",))],
)
def test_a_unit_is_told_by_amplitude(tmp_path: Path, unit: float, flags: tuple[str, ...]) -> None:
    signal = ecg(2, 2000)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["ecg"] = signal * unit
    record = read_record(tmp_path / "a.h5")
    np.testing.assert_allclose(record.signal, signal, atol=1e-5)
    assert record.flags == ("fs_assumed", *flags, "lead_names_assumed")


@pytest.mark.parametrize(
    ("amplitude", "n_records", "expected"),
    [
        (1.0, 1, 1.0),
        (9.0, 1, 1.0),
        (9.0, 20, 0.1),
        (1000.0, 20, 1e-3),
        (100.0, 20, None),
        (60.0, 1, None),
        (0.001, 20, 1e3),
        (0.0, 20, 1.0),
    ],
)
def test_units_by_amplitude(amplitude: float, n_records: int, expected: float | None) -> None:
    assert unit_by_amplitude(amplitude, n_records) == expected


# Many records per file ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "flags"), [(1.0, ("unit_assumed:mV",)), (10.0, ("unit_assumed:0.1mV",))]
)
def test_code15_layout(tmp_path: Path, unit: float, flags: tuple[str, ...]) -> None:
    path = tmp_path / "exams_part0.hdf5"
    signals = write_code15(path, unit=unit)
    assert hdf5_parts(path) == tuple(str(1000 + i) for i in range(10))
    for record, signal in zip(iter_records(path), signals, strict=True):
        np.testing.assert_allclose(record.signal, signal, atol=1e-5)
        assert (record.fs, record.leads, record.flags) == (
            400.0,
            STANDARD_LEADS,
            ("fs_assumed", *flags, "lead_names_assumed"),
        )
    record = read_record(f"{path}::1003")
    assert (record.record_id, record.n_samples) == ("1003", 2800)
    assert len(list(iter_records(path, window_s=5))) == 5 * 2 + 5 * 1
    assert record_name(f"{path}::1003") == "1003" and len(list_records(path)) == 10


def test_leads_first_ids_of_text_and_no_ids(tmp_path: Path) -> None:
    signals = np.stack([ecg(i, 500) for i in range(3)])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["ecg"], file["id"] = signals, ["p/1", "p/2", "p/2"]
    assert hdf5_parts(tmp_path / "a.h5") == ("p/1", "p/2", "p/2-row2")
    np.testing.assert_allclose(read_record(tmp_path / "a.h5::p/2").signal, signals[1], atol=1e-6)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["tracings"] = signals
    assert hdf5_parts(tmp_path / "b.h5") == ("b-00000", "b-00001", "b-00002")


@pytest.mark.parametrize(
    "options", [{"chunks": (3, 64, 1), "compression": "gzip"}, {"chunks": (1, 400, 12)}, {}]
)
def test_records_stored_in_any_chunks(tmp_path: Path, options: dict[str, object]) -> None:
    signals = np.stack([ecg(i, 400).T for i in range(10)])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("tracings", data=signals, **options)
    for row in (9, 0, 4, 3, 5):
        np.testing.assert_array_equal(
            read_record(f"{tmp_path}/a.h5::a-{row:05d}").signal, signals[row].T
        )


def test_many_records_go_through_the_pipeline(tmp_path: Path) -> None:
    root, out = tmp_path / "code15", tmp_path / "out"
    root.mkdir()
    write_code15(root / "exams_part0.hdf5")
    with h5py.File(root / "one.h5", "w") as file:
        file["ecg"] = ecg(5, 5000, 500.0)
    rows = [["dataset", "record_id", "mapped_label", "path"]]
    rows += [["c", str(1000 + i), "AF", "exams_part0.hdf5" if i % 2 else ""] for i in range(10)] + [
        ["c", "one", "NORM", "one.h5"]
    ]
    with open(tmp_path / "m.csv", "w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    data = DataConfig(roots={"c": str(root)})
    assert check_datasets(data, tmp_path / "m.csv", SMALL, ONE).ok
    summary = run_preprocessing(data, out, mapping=tmp_path / "m.csv", config=SMALL, execution=ONE)
    assert summary.by_status == {"ok": 11}
    manifest = load_manifest(out).set_index("record_id")
    assert manifest.loc["1001", ["labels", "n_samples", "fs"]].tolist() == ["AF", "2800", "400.0"]
    assert manifest.loc["one", "labels"] == "NORM" and manifest.loc["1001", "source_path"].endswith(
        "exams_part0.hdf5::1001"
    )
    arrays = load_record_file(record_path(out, "c__1001"))
    assert arrays["n_valid"] == 700 and np.abs(to_millivolts(arrays)).max() > 0.3
    assert (
        run_preprocessing(
            data, out, mapping=tmp_path / "m.csv", config=SMALL, execution=ONE
        ).n_skipped
        == 11
    )


def test_folders_and_files_name_all_records_inside(tmp_path: Path) -> None:
    write_code15(tmp_path / "a.hdf5", n=2)
    (tmp_path / "broken.h5").write_bytes(b"nothing")
    assert [(r.relative, r.stem) for r in index_folder(tmp_path)] == [
        ("a.hdf5::1000", "1000"),
        ("a.hdf5::1001", "1001"),
        ("broken.h5", "broken"),
    ]
    a, b = Path(f"{tmp_path}/a.hdf5::1000"), Path(f"{tmp_path}/a.hdf5::1001")
    assert list(find_record_files([tmp_path / "a.hdf5", b])) == [a, b]
    assert list(find_record_files([tmp_path])) == [a, b, tmp_path / "broken.h5"]


def test_predict_gives_a_row_per_record_inside(tmp_path: Path, trained: Path) -> None:
    write_code15(tmp_path / "a.hdf5", n=3)
    assert (
        predict_to_table(
            trained / "models" / "best.pth", [tmp_path / "a.hdf5"], tmp_path / "p.csv", batch_size=2
        )
        == "3 ok"
    )
    with open(tmp_path / "p.csv", newline="") as stream:
        assert [row["record_id"] for row in csv.DictReader(stream)] == ["1000", "1001", "1002"]


# Bad input ----------------------------------------------------------------------------------------


def fill(path: Path, **datasets: object) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[name] = values
    return path


def external(path: Path) -> Path:
    fill(path.with_name("other.h5"), ecg=np.ones((12, 50)))
    with h5py.File(path, "w") as file:
        file["ecg"] = h5py.ExternalLink("other.h5", "ecg")
    return path


def outside(path: Path) -> Path:
    (path.parent / "raw").write_bytes(b"secret" * 400)
    with h5py.File(path, "w") as file:
        file.create_dataset("ecg", (12, 50), "f4", external=[(str(path.parent / "raw"), 0, 2400)])
    return path


def unwritten(path: Path, shape: tuple[int, ...] = (12, 30_000_000), **options: object) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("ecg", shape, "f4", **options)
    return path


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            lambda p: fill(p, other=np.ones(3)),
            "holds other: expected signals of 2 or 3 dimensions called ecg",
        ),
        (lambda p: fill(p, ecg=np.ones((12, 0))), r"ecg has shape \(12, 0\)"),
        (lambda p: fill(p, signal=np.ones((2, 90))), "says no sampling rate: give --source-fs"),
        (
            lambda p: fill(p, ecg=np.ones((12, 90), np.int16)),
            "holds whole numbers and says no unit and no gain: give --source-gain",
        ),
        (lambda p: fill(p, ecg=RNG.normal(size=(12, 90)) * 15), "fits no voltage"),
        (
            lambda p: fill(p, tracings=np.zeros((2, 90, 12))),
            r"holds many records, 2 in all \(a-00000, a-00001, \.\.\.\): name one as a\.h5::ID",
        ),
        (external, "ecg is a link to another file"),
        (outside, "ecg is stored outside the file"),
        (unwritten, "promises 1440000000 bytes, 0 are stored"),
        (
            lambda p: unwritten(p, (12, 2_000_000_000)),
            r"has shape \(12, 2000000000\), the limit is",
        ),
        (lambda p: unwritten(p, (2_000_000_000, 10, 12)), "promises 2000000000 records"),
    ],
)
def test_bad_files_give_one_clear_error(
    tmp_path: Path, make: Callable[[Path], Path], expected: str
) -> None:
    with pytest.raises(RecordError, match=expected) as error:
        read_record(make(tmp_path / "a.h5"))
    assert "a.h5" in str(error.value)


def test_bad_names_of_records_and_torn_files(tmp_path: Path) -> None:
    path = fill(tmp_path / "a.h5", tracings=np.zeros((2, 90, 12)), exam_id=np.array([5, 6]))
    with pytest.raises(RecordError, match=r"holds no record '7', 2 in all \(5, 6, \.\.\.\)"):
        read_record(f"{path}::7")
    with pytest.raises(RecordError, match="record 5 holds zeros only"):
        read_record(f"{path}::5")
    with pytest.raises(RecordError, match="holds one record"):
        read_record(f"{fill(tmp_path / 'b.h5', ecg=np.ones((12, 50)))}::7")
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(RecordError, match="not readable as HDF5"):
        list(iter_records(path))


def test_real_sph_records(real_data: Callable[[str], Path]) -> None:
    for path in sorted(real_data("sph_sample").glob("*.h5")):
        with h5py.File(path) as file:
            expected = file["ecg"][()].astype(np.float32)
        record = read_record(path)
        np.testing.assert_array_equal(record.signal, expected)
        assert record.flags == ("fs_assumed", "unit_assumed:mV", "lead_names_assumed")


def test_damaged_bytes_give_one_kind_of_error(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("ecg", data=ecg(0, 300), compression="gzip", chunks=(3, 100))
    good, path, refused = (tmp_path / "a.h5").read_bytes(), tmp_path / "b.h5", 0
    for at in range(0, 2000, 7):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :])
        try:
            list(iter_records(path, window_s=0.2))
        except RecordError:
            refused += 1
    assert refused > 10
