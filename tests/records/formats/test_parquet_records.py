from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.config import STANDARD_LEADS, DataConfig, ExecutionConfig, PreprocessConfig
from src.preprocessing import run_preprocessing
from src.processed.export import export_dataset
from src.processed.record_files import load_record_file, to_millivolts
from src.records.folders import index_folder, survey_folder
from src.records.in_memory import from_array, write_collection
from src.records.reading import list_parts, may_be_record, read_record
from src.records.record import RecordError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

RNG = np.random.default_rng(83)
WAVE = np.sin(np.arange(500) / 7) ** 15
MANY = [((k + 1) * WAVE[None] + RNG.normal(0, 0.01, (2, 500))).astype(np.float32) for k in range(3)]


def write(path: Path, *, metadata: dict[str, str] | None = None, **columns: Any) -> Path:
    columns = {"record_id": ["a", "b", "c"], "signal": [x.tolist() for x in MANY], **columns}
    table = pyarrow.table({name: cells for name, cells in columns.items() if cells is not None})
    stated = {"leads": json.dumps(["II", "V1"]), "unit": "mV"} if metadata is None else metadata
    parquet.write_table(table.replace_schema_metadata(stated), path, row_group_size=2)
    return path


def test_what_our_export_writes_comes_back(tmp_path: Path) -> None:
    signals = RNG.normal(0, 1, (3, 12, 500)).cumsum(axis=2) / 20
    signals[1, 3:] = np.nan  # a lead without samples is absent
    records = [
        from_array(x, fs=100, leads=STANDARD_LEADS, unit="mV", record_id=f"r{i}", age=50 + i)
        for i, x in enumerate(signals)
    ]
    write_collection(records, tmp_path / "in", labels={f"r{i}": ["AF"] for i in range(3)})
    config = PreprocessConfig(fs=100.0, n_samples=600)
    run_preprocessing(
        DataConfig({"d": str(tmp_path / "in")}),
        tmp_path / "out",
        mapping=tmp_path / "in" / "label_mapping.csv",
        config=config,
        execution=ExecutionConfig(workers=1),
    )
    export_dataset(tmp_path / "out", tmp_path / "exported", keep_other=True)
    found = index_folder(tmp_path / "exported")
    assert sorted(record.stem for record in found) == ["r0", "r1", "r2"]
    for item in found:
        record = read_record(tmp_path / "exported" / item.relative)
        file = next((tmp_path / "out" / "records").glob(f"*__{item.stem}.npz"))
        arrays = load_record_file(file)
        present = arrays["lead_present"]
        np.testing.assert_array_equal(record.signal, to_millivolts(arrays)[present])
        assert record.leads == tuple(np.array(STANDARD_LEADS)[present].tolist())
        assert (record.fs, record.n_samples, record.flags) == (100.0, 500, ())


def test_a_table_of_signals_states_what_it_can(tmp_path: Path) -> None:
    path = write(
        tmp_path / "X.parquet", fs=[250.0, 500.0, 250.0], age=[50, None, 70], labels=[["AF"]] * 3
    )
    assert list_parts(path) == ("a", "b", "c") and may_be_record(path)
    record = read_record(f"{path}::c")
    np.testing.assert_array_equal(record.signal, MANY[2])
    assert (record.record_id, record.fs, record.leads) == ("c", 250.0, ("II", "V1"))
    assert (record.age, record.codes, record.flags) == (70.0, ("AF",), ())
    assert read_record(f"{path}::b").age is None


def test_what_is_not_stated_is_given_or_flagged(tmp_path: Path) -> None:
    path = write(tmp_path / "X.parquet", metadata={})
    with pytest.raises(RecordError, match="says no sampling rate: give --source-fs"):
        read_record(f"{path}::a")
    record = read_record(f"{path}::a", source_fs=250)
    assert (record.fs, record.flags) == (250.0, ("unit_assumed:mV",))
    record = read_record(f"{path}::a", source_fs=250, source_gain_per_mv=2, leads=("II", "V5"))
    np.testing.assert_allclose(record.signal, MANY[0] / 2)
    assert (record.leads, record.flags) == (("II", "V5"), ())


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"signal": [x[0].tolist() for x in MANY]}, "column signal is of list<.*: expected a list"),
        ({"signal": [[[1.0, 2.0], [1.0]]] * 3}, r"leads of \[2, 1\] samples: expected 1 to 64"),
        ({"signal": [[[0.5] * 9] * 70] * 3}, "has 70 leads of .* expected 1 to 64"),
        ({"signal": [MANY[0].tolist(), None, MANY[1].tolist()]}, "has no value in 1 rows"),
        ({"record_id": ["a", "b", "b"]}, "does not name each record once"),
        ({"record_id": None, "name": ["a", "b", "c"]}, "has columns .*: expected signal and one"),
        ({"lead_present": [[True]] * 3, "fs": [100.0] * 3}, "expected a value for each lead"),
    ],
)
def test_wrong_tables_are_one_line(tmp_path: Path, changed: dict[str, Any], expected: str) -> None:
    path = write(tmp_path / "X.parquet", **changed)
    with pytest.raises(RecordError, match=f"X.parquet.*{expected}"):
        read_record(f"{path}::a", source_fs=100)


def test_a_row_group_that_claims_much_is_refused(tmp_path: Path) -> None:
    signal = pyarrow.FixedSizeListArray.from_arrays(
        pyarrow.array(np.zeros(2**23, np.float32)), 2**16
    )
    leads = pyarrow.FixedSizeListArray.from_arrays(signal, 2)
    ids = [f"{i}" for i in range(len(leads))]
    parquet.write_table(pyarrow.table({"id": ids, "signal": leads}), tmp_path / "X.parquet")
    with pytest.raises(RecordError, match="row group 0 states 8388608 samples, the limit is"):
        read_record(f"{tmp_path / 'X.parquet'}::0")


def test_tables_without_signals_are_passed_over(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"record_id": ["a"], "AF": [0.5]}), tmp_path / "p.parquet")
    index = survey_folder(tmp_path)
    assert index.records == () and index.passed_over[0].unread.is_side_file


def test_the_package_is_named_where_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "X.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    expected = "needs? the package pyarrow: pip install -r requirements-datasets.txt"
    with pytest.raises(RecordError, match=expected):
        read_record(f"{path}::a")
    assert [record.relative for record in index_folder(tmp_path)] == ["X.parquet"]
