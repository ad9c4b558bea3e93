from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from src.processed import export
from src.processed.export import export_dataset
from src.processed.manifest import load_manifest
from src.processed.record_files import load_record_file, record_path, to_millivolts
from src.processed.splits import load_splits


def why_absent(*modules: str) -> str:
    """Return why one of the modules cannot be imported, or nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in modules:
            if importlib.util.find_spec(module.split(".")[0]) is None:
                return f"{module} is not installed"
            try:
                importlib.import_module(module)
            except (ImportError, OSError) as error:
                return f"{module} does not load here: {error}"
    return ""


NO_PARQUET = why_absent("pyarrow.parquet")
NO_DATASETS = NO_PARQUET or why_absent("datasets")


@pytest.fixture(scope="module")
def parquet(processed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("parquet")
    summary = export_dataset(processed, out)
    splits = load_splits(processed / "splits.json")
    assert summary.n_records == {
        name: len(getattr(splits, name)) for name in ("train", "val", "test")
    }
    assert str(summary).startswith(f"{out}: train {len(splits.train)}, val ")
    return out


@pytest.mark.skipif(bool(NO_PARQUET), reason=NO_PARQUET)
def test_parquet_holds_the_voltages_and_what_is_known(parquet: Path, processed: Path) -> None:
    from pyarrow import parquet as pq

    table = pq.read_table(parquet / "test.parquet")
    assert table.column("key").to_pylist() == sorted(load_splits(processed / "splits.json").test)
    assert table.schema.metadata[b"unit"] == b"mV"
    rows = load_manifest(processed).set_index(["dataset", "record_id"])
    for row in table.to_pylist():
        arrays = load_record_file(record_path(processed, row["key"]))
        signal, n_valid = np.array(row["signal"], np.float32), row["n_valid"]
        assert (
            signal.shape == (12, 1000) and n_valid == int(arrays["n_valid"]) and row["fs"] == 100.0
        )
        np.testing.assert_array_equal(signal[:, :n_valid], to_millivolts(arrays))
        assert (
            not signal[:, n_valid:].any() and row["lead_present"] == arrays["lead_present"].tolist()
        )
        known = rows.loc[(row["dataset"], row["record_id"])]
        assert (
            ";".join(row["labels"]) == known["labels"]
            and (row["patient_id"] or "") == known["patient_id"]
        )
        assert row["age"] == (float(known["age"]) if known["age"] else None)


@pytest.mark.skipif(bool(NO_PARQUET), reason=NO_PARQUET)
def test_row_groups_hold_few_records(
    processed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyarrow import parquet as pq

    monkeypatch.setattr(export, "_ROWS_AT_A_TIME", 5)
    n = export_dataset(processed, tmp_path).n_records["train"]
    file = pq.ParquetFile(tmp_path / "train.parquet")
    assert file.metadata.num_rows == n and file.num_row_groups == -(-n // 5)


@pytest.mark.skipif(bool(NO_DATASETS), reason=NO_DATASETS)
def test_hugging_face_datasets_opens_it(
    parquet: Path, processed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        files = {name: str(parquet / f"{name}.parquet") for name in ("train", "val", "test")}
        opened = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path))
        record = opened["train"].with_format("numpy")[0]
    arrays = load_record_file(record_path(processed, str(record["key"])))
    assert record["signal"].shape == (12, 1000) and record["signal"].dtype == np.float32
    np.testing.assert_array_equal(
        record["signal"][:, : int(arrays["n_valid"])], to_millivolts(arrays)
    )


def test_what_cannot_be_written_is_refused(
    processed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="format is 'tfrecord': expected one of parquet"):
        export_dataset(processed, tmp_path, kind="tfrecord")
    with pytest.raises(ValueError, match="no processed records here"):
        export_dataset(tmp_path, tmp_path / "out")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(
        ValueError,
        match=r"writing Parquet needs the package pyarrow: pip install -r "
        r"requirements-datasets\.txt",
    ):
        export_dataset(processed, tmp_path)
    assert not list(tmp_path.iterdir())
