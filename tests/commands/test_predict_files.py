from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path

import bad_records
import numpy as np
import pytest
import scipy.io
from bad_records import BAD

from src.commands.predict_files import find_record_files, predict_to_table, save_saliency
from src.learning.checkpoints import load_checkpoint
from src.records.sample_collections import SampleData, write_wfdb
from src.records.synthetic import generate_ecg
from src.utils import load_json


@pytest.fixture(scope="module")
def checkpoint(trained: Path) -> Path:
    return trained / "models" / "best.pth"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good records in three folders, two of the same name, one with dots in its name."""
    root = tmp_path_factory.mktemp("files")
    bad_records.ecg(root, "a")
    bad_records.ecg(root / "deep" / "er", "a")
    bad_records.ecg(root / "deep", "b.c-01_hr")
    (root / "RECORDS").write_text("a\n")
    return root


def read_rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def names(paths: list[str | Path], root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in find_record_files(paths)]


# Which files --------------------------------------------------------------------------------------


def test_files_folders_and_globs_name_each_record_once(folder: Path) -> None:
    everything = ["a.hea", "deep/b.c-01_hr.hea", "deep/er/a.hea"]
    assert sorted(names([folder], folder)) == everything
    assert (
        names([folder / "a.hea"], folder)
        == names([folder / "a.dat"], folder)
        == names([folder / "a"], folder)
        == ["a.hea"]
    )
    assert names([f"{folder}/deep/*"], folder) == ["deep/b.c-01_hr.hea", "deep/er/a.hea"]
    assert sorted(names([f"{folder}/**/*.dat"], folder)) == everything
    assert sorted(names([str(folder / "a.hea"), folder, f"{folder}/*.hea"], folder)) == everything
    assert names([folder / "deep" / "b.c-01_hr"], folder) == ["deep/b.c-01_hr.hea"]


def test_a_name_with_brackets_is_no_glob(tmp_path: Path) -> None:
    path = bad_records.good(tmp_path, "x[1]")
    assert list(find_record_files([path])) == [path]


@pytest.mark.parametrize(
    ("name", "message"), [("empty", "no record in this folder"), ("*.hea", "matches no file")]
)
def test_what_names_nothing_is_an_error(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=message):
        list(find_record_files([f"{tmp_path}/{name}"]))


# The table ----------------------------------------------------------------------------------------


def test_a_row_per_record_with_a_column_per_class(
    checkpoint: Path, folder: Path, tmp_path: Path
) -> None:
    assert predict_to_table(checkpoint, [folder], tmp_path / "p.csv") == "3 ok"
    rows = read_rows(tmp_path / "p.csv")
    classes = load_checkpoint(checkpoint).card.classes
    assert list(rows[0]) == ["record_id", *classes, "status", "reason", "labels", "notes", "path"]
    assert sorted(row["record_id"] for row in rows) == ["a", "a", "b.c-01_hr"]
    for row in rows:
        assert (row["status"], row["reason"], row["notes"]) == ("ok", "", "")
        assert sum(float(row[name]) for name in classes) == pytest.approx(1, abs=1e-4)


def test_rows_do_not_depend_on_the_batch_or_the_order(
    checkpoint: Path, sample: SampleData, tmp_path: Path
) -> None:
    paths = sorted(sample.data["synthetic_wfdb"].glob("*.hea"))
    predict_to_table(checkpoint, paths, tmp_path / "a.csv", batch_size=1)
    predict_to_table(checkpoint, paths[::-1], tmp_path / "b.csv", batch_size=5)
    a, b = (read_rows(tmp_path / name) for name in ("a.csv", "b.csv"))
    assert (
        [row["record_id"] for row in a]
        == [path.stem for path in paths]
        == [row["record_id"] for row in b[::-1]]
    )
    classes = load_checkpoint(checkpoint).card.classes
    scores = [[[float(row[name]) for name in classes] for row in rows] for rows in (a, b[::-1])]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-5)


def test_unreadable_files_are_rows_and_the_others_are_predicted(
    checkpoint: Path, tmp_path: Path
) -> None:
    paths = [
        bad_records.ecg(tmp_path / "in", "good"),
        *(write(tmp_path / "in") for write, _, _ in BAD.values()),
    ]
    foreign = tmp_path / "in" / "tracing.pdf"
    foreign.write_bytes(b"0 1 2")
    summary = predict_to_table(
        checkpoint,
        [*paths, foreign, tmp_path / "in" / "nowhere.hea"],
        tmp_path / "p.csv",
        batch_size=3,
    )
    rows = {row["record_id"]: row for row in read_rows(tmp_path / "p.csv")}
    assert rows.pop("good")["status"] == "ok" and summary.startswith("1 ok, ")
    expected = {name: (status, reason) for name, (_, status, reason) in BAD.items()}
    expected |= {
        "tracing": ("unreadable", "unknown format '.pdf'"),
        "nowhere": ("unreadable", "no such record"),
    }
    assert list(rows) == list(expected)
    for name, (status, reason) in expected.items():
        row = rows[name]
        assert row.pop("status") == status and reason in row.pop("reason"), name
        assert row.pop("record_id") == name and Path(row.pop("path")).parent == tmp_path / "in"
        assert set(row.values()) == {""}


def test_rate_and_gain_for_files_that_do_not_say_them(checkpoint: Path, tmp_path: Path) -> None:
    ecg = generate_ecg("NORM", fs=300.0, rng=np.random.default_rng(0), record_id="m")
    scipy.io.savemat(tmp_path / "m.mat", {"val": np.round(ecg.signal * 1000)})
    with pytest.raises(
        ValueError,
        match=r"not one of 1 records could be read, the last \(m\) because: .*--source-fs",
    ):
        predict_to_table(checkpoint, [tmp_path / "m.mat"], tmp_path / "p.csv")
    assert (
        predict_to_table(
            checkpoint,
            [tmp_path / "m.mat"],
            tmp_path / "p.csv",
            source_fs=300,
            source_gain_per_mv=1000,
        )
        == "1 ok"
    )


def test_notes_and_unfit_recordings_are_in_the_table(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "in").mkdir()
    whole = generate_ecg("AF", fs=100.0, rng=np.random.default_rng(0), record_id="whole")
    signals = {
        "a": (whole.signal, whole.leads),
        "b": (whole.signal[:2], whole.leads[:2]),
        "c": (whole.signal * 200, whole.leads),
    }
    for name, (signal, leads) in signals.items():
        write_wfdb(replace(whole, record_id=name, signal=signal, leads=leads), tmp_path / "in")
    out = tmp_path / "p.csv"
    assert predict_to_table(checkpoint, [tmp_path / "in"], out) == "1 ok, 2 unfit"
    rows = {row["record_id"]: row for row in read_rows(out)}
    classes = load_checkpoint(checkpoint).card.classes
    assert rows["a"]["status"] == "ok"
    for name, reason, note in (
        ("b", "too few usable leads", "absent:"),
        ("c", "gain", "gain_high"),
    ):
        row = rows[name]
        assert row["status"] == "unfit" and {row[each] for each in classes} == {""}
        assert row["reason"].startswith(reason) and note in row["notes"]
    assert "2 recordings are unfit" in caplog.text

    assert (
        predict_to_table(checkpoint, [tmp_path / "in"], out, predict_unfit=True) == "1 ok, 2 unfit"
    )
    assert all(row[classes[0]] and row["status"] for row in read_rows(out))
    with pytest.raises(ValueError, match=r"not one of 1 records could be predicted.*--predict-unf"):
        predict_to_table(checkpoint, [tmp_path / "in" / "b.hea"], out)


# Maps ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["grad_cam", "integrated_gradients"])
def test_a_page_and_its_numbers_per_record(
    checkpoint: Path, folder: Path, tmp_path: Path, method: str
) -> None:
    bad = bad_records.empty_mat(tmp_path / "in")
    assert (
        save_saliency(checkpoint, [folder, bad], tmp_path / "maps", method=method)
        == f"{tmp_path / 'maps'}: 3 maps by {method}"
    )
    stems = ("a", "a-2", "b.c-01_hr")
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == sorted(
        f"{s}{end}" for s in stems for end in (".npz", ".png")
    )
    with np.load(tmp_path / "maps" / "a.npz", allow_pickle=False) as arrays:
        assert arrays["values"].shape == arrays["signal_mv"].shape == (12, 1000)
        assert (str(arrays["method"]), float(arrays["fs"]), int(arrays["window"])) == (
            method,
            100.0,
            0,
        )
        assert str(arrays["class_name"]) in load_checkpoint(checkpoint).card.classes


# When it fails ------------------------------------------------------------------------------------


def test_without_a_readable_record_the_rows_are_there_and_it_fails(
    checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"p\.csv: not one of 2 records could be read"):
        predict_to_table(
            checkpoint,
            [bad_records.zero_leads(tmp_path), bad_records.empty_mat(tmp_path)],
            tmp_path / "p.csv",
        )
    assert [row["status"] for row in read_rows(tmp_path / "p.csv")] == ["unreadable", "unreadable"]


@pytest.mark.parametrize("name", ["r.hea", "other.dat", "link.csv"])
def test_a_recording_is_not_replaced_by_the_table(
    checkpoint: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "r.hea").write_text("r 1 100 1000\nother.dat 16 200 16 0 0 0 0 II\n")
    (tmp_path / "other.dat").write_bytes(bytes(2000))
    (tmp_path / "link.csv").symlink_to("other.dat")
    with pytest.raises(ValueError, match="is one of the recordings"):
        predict_to_table(checkpoint, [tmp_path], tmp_path / name)
    assert (tmp_path / "other.dat").read_bytes() == bytes(2000)
    assert (tmp_path / "r.hea").read_text().startswith("r 1")


def test_a_failure_leaves_no_part_of_a_table(
    checkpoint: Path, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "p.csv").write_text("the one before\n")
    with pytest.raises(ValueError, match="matches no file"):
        predict_to_table(
            checkpoint, [folder, f"{tmp_path}/*.hea"], tmp_path / "out" / "p.csv", batch_size=1
        )
    with pytest.raises(ValueError, match="no such checkpoint"):
        predict_to_table(tmp_path / "none.pth", [folder], tmp_path / "out" / "p.csv")
    with pytest.raises(ValueError, match="method is 'lime'"):
        save_saliency(checkpoint, [folder], tmp_path / "out", method="lime")
    assert list((tmp_path / "out").iterdir()) == [tmp_path / "out" / "p.csv"]
    assert (tmp_path / "out" / "p.csv").read_text() == "the one before\n"


@pytest.fixture
def three_files(tmp_path: Path) -> Path:
    """Return a folder with the recordings 8, 9 and 10, and a broken file."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in (8, 9, 10):
        record = generate_ecg(
            "NORM", fs=100.0, rng=np.random.default_rng(number), record_id=f"{number}"
        )
        write_wfdb(record, folder)
    (folder / "11.hea").write_text("11 1 500\n")
    return folder


def test_without_a_table_each_record_has_a_line_in_natural_order(
    checkpoint: Path, three_files: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    summary = predict_to_table(checkpoint, [three_files], say=lines.append)
    assert summary == "3 ok, 1 unreadable"
    assert [line.partition(":")[0] for line in lines] == ["8", "9", "10", "11"]
    probabilities = re.findall(r"(\w+) (0\.\d{3})", lines[0].partition(":")[2])
    assert len(probabilities) == 5 and {name for name, _ in probabilities} <= set(
        load_checkpoint(checkpoint).card.classes
    )
    assert [score for _, score in probabilities] == sorted(
        (score for _, score in probabilities), reverse=True
    )
    assert lines[0].endswith(f", ... ({checkpoint.name})")
    assert lines[3].startswith(f"11: unreadable ({checkpoint.name}; ")
    assert sorted(path.name for path in tmp_path.iterdir() if path != three_files) == []


def test_formats_hold_the_same_rows(checkpoint: Path, three_files: Path, tmp_path: Path) -> None:
    predict_to_table(checkpoint, [three_files], tmp_path / "p.csv")
    predict_to_table(checkpoint, [three_files], tmp_path / "p.json")
    with open(tmp_path / "p.csv", encoding="utf-8") as stream:
        from_csv = list(csv.DictReader(stream))
    from_json = load_json(tmp_path / "p.json")
    assert [row["record_id"] for row in from_csv] == ["8", "9", "10", "11"]
    assert from_csv[0]["path"] == str(three_files / "8.hea")
    for row, other in zip(from_csv, from_json, strict=True):
        assert list(row) == list(other) and row["status"] == other["status"]
        assert row["notes"] == "; ".join(other["notes"]) and row["path"] == other["path"]
        if row["status"] == "ok":
            assert float(row["AF"]) == pytest.approx(other["AF"], rel=1e-5)
        else:
            assert row["AF"] == "" and other["AF"] is None
    with pytest.raises(ValueError, match="table_format is 'xml': expected one of csv, json, parq"):
        predict_to_table(checkpoint, [three_files], tmp_path / "p", table_format="xml")


def test_a_table_for_arrow_holds_the_same_rows(
    checkpoint: Path, three_files: Path, tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    predict_to_table(checkpoint, [three_files], tmp_path / "p.json")
    predict_to_table(checkpoint, [three_files], tmp_path / "p.parquet")
    rows = parquet.read_table(tmp_path / "p.parquet").to_pylist()
    assert rows == load_json(tmp_path / "p.json")
