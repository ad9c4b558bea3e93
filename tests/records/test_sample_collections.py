"""Sample collections: files are read back by wfdb and SciPy."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat

from src.config import STANDARD_LEADS
from src.records.leads import canonical_lead
from src.records.record import ECGRecord
from src.records.sample_collections import iter_sample_records, write_sample_collections
from src.records.synthetic import CLASSES, SNOMED_CODES, compatible_labels

DATASETS = ("synthetic_wfdb", "synthetic_challenge", "synthetic_mat")


def read_mapping(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dest = tmp_path_factory.mktemp("samples")
    write_sample_collections(dest, n_records=54, seed=7)
    return dest


@pytest.fixture(scope="module")
def records() -> dict[str, list[ECGRecord]]:
    grouped: dict[str, list[ECGRecord]] = {name: [] for name in DATASETS}
    for name, record in iter_sample_records(54, 7):
        grouped[name].append(record)
    return grouped


@pytest.mark.parametrize("dataset", ["synthetic_wfdb", "synthetic_challenge"])
def test_wfdb_reads_what_was_generated(
    dataset: str, collections: Path, records: dict[str, list[ECGRecord]]
) -> None:
    wfdb = pytest.importorskip("wfdb")
    for record in records[dataset][:6]:
        read = wfdb.rdrecord(str(collections / dataset / record.record_id))
        assert (read.fs, tuple(read.sig_name), set(read.units)) == (record.fs, record.leads, {"mV"})
        np.testing.assert_allclose(read.p_signal.T, record.signal, atol=0.5e-3 + 1e-6)
        raw = wfdb.rdrecord(str(collections / dataset / record.record_id), physical=False)
        assert raw.init_value == raw.d_signal[0].tolist()
        assert [value % 2**16 for value in raw.checksum] == [
            value % 2**16 for value in raw.calc_checksum()
        ]
        assert all(-(2**15) <= value < 2**15 for value in raw.checksum)


def test_challenge_header_and_matrix(
    collections: Path, records: dict[str, list[ECGRecord]]
) -> None:
    spellings: Counter[str] = Counter()
    for record in records["synthetic_challenge"]:
        path = collections / "synthetic_challenge" / record.record_id
        val = loadmat(path.with_suffix(".mat"))["val"]
        assert val.dtype == np.int16
        np.testing.assert_allclose(val / 1000, record.signal, atol=0.5e-3 + 1e-6)
        header = path.with_suffix(".hea").read_text().splitlines()
        assert header[13:] == [
            f"#Age: {record.age:.0f}",
            f"#Sex: {str(record.sex).capitalize()}",
            f"#Dx: {SNOMED_CODES[record.codes[0]]}",
        ]
        assert {canonical_lead(name) for name in record.leads} == set(STANDARD_LEADS)
        spellings["AVR" if "AVR" in record.leads else "aVR"] += 1
        spellings["V1 first" if record.leads[0] == "V1" else "other"] += 1
    assert min(spellings.values()) >= 3


def test_shuffled_leads_keep_their_signals(records: dict[str, list[ECGRecord]]) -> None:
    for record in records["synthetic_challenge"]:
        signals = dict(
            zip(map(canonical_lead, record.leads), record.signal.astype(np.float64), strict=True)
        )
        np.testing.assert_allclose(signals["III"], signals["II"] - signals["I"], atol=1e-6)
        np.testing.assert_allclose(signals["aVF"], signals["II"] - signals["I"] / 2, atol=1e-6)


def test_bare_mat_files(collections: Path, records: dict[str, list[ECGRecord]]) -> None:
    for record in records["synthetic_mat"][:6]:
        path = collections / "synthetic_mat" / f"{record.record_id}.mat"
        content = loadmat(path)
        assert b"Created on" not in path.read_bytes()[:128]  # a date would make the bytes differ
        assert (content["fs"].item(), content["gain"].item()) == (257, 1000)
        assert (content["val"].dtype, content["val"].shape) == (np.int16, (12, 2570))
        np.testing.assert_allclose(content["val"] / 1000, record.signal, atol=0.5e-3 + 1e-6)


def test_mapping_names_every_file_and_shares_patients(
    collections: Path, records: dict[str, list[ECGRecord]]
) -> None:
    rows = read_mapping(collections / "unified_label_mapping.csv")
    assert list(rows[0]) == ["dataset", "record_id", "mapped_label", "patient_id", "age", "sex"]
    assert [row["mapped_label"] for row in rows] == [
        r.codes[0] for group in records.values() for r in group
    ]
    for dataset in DATASETS:
        own = [row for row in rows if row["dataset"] == dataset]
        assert {row["record_id"] for row in own} == {
            path.stem for path in (collections / dataset).iterdir()
        }
        assert Counter(row["mapped_label"] for row in own) == dict.fromkeys(CLASSES, 2)
    per_patient = Counter(row["patient_id"] for row in rows)
    assert set(per_patient.values()) == {1, 2}
    assert 0.4 < sum(n for n in per_patient.values() if n == 2) / len(rows) < 0.6
    people = {(row["patient_id"], row["age"], row["sex"]) for row in rows}
    assert len(people) == len(per_patient)
    assert {row["sex"] for row in rows} == {"M", "F"}
    assert {r.n_samples for r in records["synthetic_wfdb"]} == {4000, 5000, 6000}


def test_same_arguments_write_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_sample_collections(tmp_path / name, n_records=9, seed=3)
    files = sorted(
        path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file()
    )
    assert len(files) == 3 * (2 + 2 + 1) + 1
    assert all(
        (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
        for file in files
    )


def test_files_that_are_right_already_are_left_alone(tmp_path: Path) -> None:
    result = write_sample_collections(tmp_path, n_records=6)
    files = [path for folder in result.data.values() for path in folder.iterdir()]
    changed = files[0]
    changed.write_bytes(b"broken")
    before = {path: path.stat().st_mtime_ns for path in files}
    write_sample_collections(tmp_path, n_records=6)
    assert [path for path in files if path.stat().st_mtime_ns != before[path]] == [changed]


def test_ten_records_cover_all_collections_and_classes(tmp_path: Path) -> None:
    result = write_sample_collections(tmp_path, n_records=10)
    rows = read_mapping(result.mapping)
    assert tuple(result.data) == DATASETS
    assert Counter(row["dataset"] for row in rows) == dict(zip(DATASETS, (4, 3, 3), strict=True))
    assert {row["mapped_label"] for row in rows} == set(CLASSES)


def test_rewriting_leaves_other_files_and_rows(tmp_path: Path) -> None:
    result = write_sample_collections(tmp_path, n_records=12)
    note = result.data["synthetic_mat"] / "notes.mat"
    note.write_text("mine")
    header, *rows = result.mapping.read_text().splitlines()
    edited = [header + ",fold", "clinic,r1,AF,,,,3", *(row + "," for row in rows)]
    result.mapping.write_text("\n".join(edited))
    write_sample_collections(tmp_path, n_records=3)
    after = read_mapping(result.mapping)
    assert note.read_text() == "mine"
    assert [(row["record_id"], row["fold"]) for row in after][:2] == [("r1", "3"), ("sw00001", "")]
    assert len(after) == 4
    assert len(list(tmp_path.rglob("s?0*.*"))) == 2 + 2 + 1


def test_multi_label_is_on_request(tmp_path: Path) -> None:
    labels = [";".join(record.codes) for _, record in iter_sample_records(60, 1, multi_label=True)]
    double = [label.split(";") for label in labels if ";" in label]
    assert 3 <= len(double) <= 20
    assert all(second in compatible_labels(first) for first, second in double)
    with pytest.raises(ValueError, match="n_records is 2"):
        write_sample_collections(tmp_path / "new", n_records=2)
    assert not (tmp_path / "new").exists()


def test_a_foreign_mapping_is_refused(tmp_path: Path) -> None:
    (tmp_path / "unified_label_mapping.csv").write_text("file,label\na,b\n")
    with pytest.raises(ValueError, match="expected a column 'dataset'"):
        write_sample_collections(tmp_path, n_records=3)
