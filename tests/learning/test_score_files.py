"""Predictions of other programs: each kind of file, and what is refused."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

import numpy as np
import pytest

from src.learning.predictions import Predictions
from src.learning.score_files import load_scores

LABELS = ("AF", "NSR")
SCORES = [[0.25, 0.75], [1.0, 0.0]]


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("key,AF,NSR\nd__1,0.25,0.75\nd__2,1,0\n", ("d__1", "d__2")),
        ("NSR;note;AF;Record_ID\n0.75;x;0.25;1\n\n0;y;1;2\n", ("1", "2")),
        ("dataset\trecord_id\tAF\tNSR\nd_\t1\t.25\t75e-2\nd\t2\t1\t0\n", ("d_:__1", "d__2")),
        ("\ufeffkey,record_id,AF,NSR\r\na,1,0.25,0.75\r\nb,2,1,0\r\n", ("a", "b")),
        ('key,AF,NSR\n\'=a,0.25,0.75\n"b,c",1,0\n', ("=a", "b,c")),
    ],
)
def test_tables_of_text_are_read(tmp_path: Path, text: str, keys: tuple[str, ...]) -> None:
    table = load_scores(write(tmp_path / "p.csv", text), LABELS)
    assert table.keys == keys and sorted(table.classes) == ["AF", "NSR"]
    columns = [table.classes.index(name) for name in LABELS]
    assert table.y_score[:, columns].tolist() == SCORES
    assert (table.single_label, table.thresholds, table.train_hashes) == (None, None, ())


def test_arrays_are_read_as_a_matrix_and_by_class(tmp_path: Path) -> None:
    ids, scores = np.array(["d__1", "d__2"]), np.array(SCORES, np.float32)
    np.savez(tmp_path / "a.npz", keys=ids, y_score=scores, classes=["AF", "NSR"], y_true=scores)
    np.savez(tmp_path / "b.npz", key=ids, AF=scores[:, 0], NSR=scores[:, 1], time=np.zeros(9))
    np.savez(
        tmp_path / "c.npz",
        record_id=[1, 2],
        dataset=np.array([b"d", b"d"]),
        y_score=np.c_[scores, [0.5, 0.5]],
        classes=["AF", "NSR", "other"],
    )
    for name in "abc":
        table = load_scores(tmp_path / f"{name}.npz", LABELS)
        assert table.keys == ("d__1", "d__2") and table.classes == LABELS
        assert table.y_score.tolist() == SCORES


def test_our_own_predictions_keep_what_they_say(tmp_path: Path) -> None:
    Predictions(
        ("d__1", "d__2"),
        np.array([[1, 0], [0, 0]]),
        SCORES,
        ("AF", "rare"),
        thresholds=[0.2, 0.4],
        train_hashes=("ab",),
    ).save(tmp_path / "p.npz")
    table = load_scores(tmp_path / "p.npz", LABELS)
    assert table.classes == ("AF", "rare") and table.train_hashes == ("ab",)
    assert table.single_label is False and table.has_negative
    assert table.thresholds is not None and table.thresholds.tolist() == [0.2, 0.4]
    with pytest.raises(ValueError, match=r"p\.npz: none of its classes is a label .*\(X\): found"):
        load_scores(tmp_path / "p.npz", ("X",))


def test_columns_that_are_no_labels_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        load_scores(write(tmp_path / "p.csv", "key,AF,af2,\x1bodd\nr,1,0,0\n"), LABELS)
    assert "no labels of the processed folder are not evaluated: af2, \\x1bodd" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("AF,NSR\n0,1\n", "no column names the records: expected key .* found AF, NSR"),
        ("key,a,b\nr,0,1\n", r"no column is named as a label .*\(AF, NSR\): found key, a, b"),
        ("key,AF\nr1,0.5\nr2,2.5\n", "record r2, class AF is 2.5: expected probabilities from 0"),
        ("key,AF\nr1,-0.5\n", "record r1, class AF is -0.5: expected prob.*makes them of logits"),
        ("key,AF\nr1,inf\n", "record r1, class AF is inf"),
        ("key,AF,NSR\nr1,0.5,nan\n", "record r1, class NSR is nan: expected probabilities"),
        ("key,AF,NSR\nr1,0.5\n", "record r1, class NSR is nan: expected probabilities"),
        ("key;AF\nr1;0,5\n", "row 2, column AF is '0,5': expected .* with a decimal point"),
        ("key,AF\nr1,0.5,0.5\n", "row 2 has more cells than the header"),
        ("key,AF,AF\nr1,0.5,0.5\n", "columns af are repeated"),
        ("key,AF\n,0.5\n", "record 1 has no name"),
        ("", "no column names the records"),
    ],
)
def test_tables_that_are_no_probabilities_are_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    path = write(tmp_path / "p.csv", text)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: .*{message}"):
        load_scores(path, LABELS)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y_score": np.eye(2), "classes": ["AF", "NSR"]}, "no column names the records"),
        ({"keys": ["a"], "y_score": np.eye(2)}, "none of its classes is a label"),
        ({"keys": ["a"], "y_score": np.eye(2), "classes": ["AF", "NSR"]}, "y_score is float64 of"),
        ({"keys": [["a"]], "AF": np.zeros(1)}, "keys is <U1 of shape"),
        ({"keys": [0.5], "AF": np.zeros(1)}, "keys is float64"),
        ({"keys": ["a"], "AF": np.zeros((1, 1))}, "AF is float64 of shape"),
        ({"keys": ["a"], "AF": ["0.5"]}, "AF is <U3"),
        ({"keys": ["a"], "AF": np.array([object()])}, "holds objects"),
        ({"record_id": ["a"], "dataset": ["d", "d"], "AF": [0.5]}, "dataset is <U1"),
        ({"keys": ["x" * 5000], "AF": np.zeros(1)}, "keys has texts of 20000 bytes"),
    ],
)
def test_arrays_of_other_shapes_are_refused(
    tmp_path: Path, arrays: dict[str, object], message: str
) -> None:
    path = tmp_path / "p.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: .*{message}"):
        load_scores(path, LABELS)


def test_what_is_no_table_of_predictions_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    with open(tmp_path / "hole.csv", "wb") as stream:
        stream.truncate(2**40)
    (tmp_path / "zip.npz").write_bytes(b"PK\x03\x04" + bytes(100))
    (tmp_path / "gz.csv").write_bytes(b"\x1f\x8b" + bytes(100))
    for name in ("absent.csv", "pipe.csv", "zero.csv", "folder", "hole.csv", "zip.npz", "gz.csv"):
        with pytest.raises(ValueError, match=re.escape(str(tmp_path / name))):
            load_scores(tmp_path / name, LABELS)


def test_parquet_is_read_by_its_columns(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "p.parquet"
    columns = {
        "record_id": [1, 2],
        "dataset": pyarrow.array(["d", "d"]).dictionary_encode(),
        "AF": pyarrow.array([0.25, 1], pyarrow.float32()),
        "NSR": [0.75, 0.0],
        "signal": [[1.0, 2.0]] * 2,
    }
    parquet.write_table(pyarrow.table(columns), path)
    table = load_scores(path, LABELS)
    assert table.keys == ("d__1", "d__2") and table.y_score.tolist() == SCORES
    for changed, message in (
        ({"AF": [[0.5], [0.5]]}, r"column AF is of list<.*: expected a text or a number"),
        ({"AF": ["x", "y"]}, "cannot be read"),
        ({"AF": [None, 0.5]}, "record d__1, class AF is nan"),
        ({"record_id": [None, "2"]}, "record 1 has no name"),
    ):
        parquet.write_table(pyarrow.table({**columns, **changed}), path)
        with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: {message}"):
            load_scores(path, LABELS)


def test_damaged_parquet_and_rows_that_it_only_claims_are_refused(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "p.parquet"
    rows = 2 * 10**6
    # Equal values take no room
    ids = pyarrow.DictionaryArray.from_arrays(pyarrow.array(np.zeros(rows, np.int32)), ["a"])
    table = pyarrow.table({"key": ids, "AF": np.zeros(rows)})
    parquet.write_table(table, path, compression="zstd")
    assert path.stat().st_size < 10**5
    with pytest.raises(ValueError, match=r"claims 2000000 rows of .*: expected rows that fit in"):
        load_scores(path, LABELS)
    parquet.write_table(pyarrow.table({"key": ["a"], "AF": [0.5]}), path)
    raw = path.read_bytes()
    for damaged in (raw[:4], raw[: len(raw) // 2], raw[:-8] + b"\xff\xff\xff\x7fPAR1"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: cannot be read"):
            load_scores(path, LABELS)
