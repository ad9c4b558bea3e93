from __future__ import annotations

import importlib
import importlib.util
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from src.processed import export
from src.processed.export import _describe, export_dataset
from src.processed.manifest import load_manifest, save_manifest
from src.processed.record_files import load_record_file, record_path, to_millivolts
from src.processed.splits import load_splits
from src.utils import load_json


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
NO_BRAINDECODE = (
    why_absent("braindecode.datasets")
    if importlib.util.find_spec("braindecode")
    else "braindecode is not installed"
)


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

    monkeypatch.setattr(export, "_AT_A_TIME", 5)
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


@pytest.mark.skipif(bool(NO_BRAINDECODE), reason=NO_BRAINDECODE)
@pytest.mark.parametrize("single", [True, False])
def test_braindecode_opens_and_windows_it(
    processed: Path, tmp_path: Path, single: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_AT_A_TIME", 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from braindecode.datautil import load_concat_dataset
        from braindecode.preprocessing import create_fixed_length_windows

        folder = processed if single else with_two_labels(processed, tmp_path / "p")
        export_dataset(folder, tmp_path / "out", kind="braindecode")
        described = load_json(tmp_path / "out" / "classes.json")
        opened = load_concat_dataset(tmp_path / "out" / "test", preload=True)
        assert len(opened.datasets) == len(load_splits(processed / "splits.json").test)
        windows = create_fixed_length_windows(
            opened, window_size_samples=400, window_stride_samples=400, drop_last_window=True
        )
        signal, target, _ = windows[0]
    arrays = load_record_file(record_path(processed, opened.description["key"][0]))
    assert described["single_label"] == single and signal.shape == (12, 400)
    np.testing.assert_allclose(1000 * signal, to_millivolts(arrays)[:, :400], atol=1e-5)
    labels = set(str(opened.description["labels"][0]).split(";"))
    called = (
        {described["classes"][target]}
        if single
        else {name for name, value in zip(described["classes"], target, strict=True) if value == 1}
    )
    assert called == labels
    with pytest.raises(ValueError, match="exists already"):
        export_dataset(folder, tmp_path / "out", kind="braindecode")


def with_two_labels(processed: Path, to: Path) -> Path:
    to.mkdir()
    (to / "records").symlink_to(processed / "records")
    shutil.copy(processed / "splits.json", to / "splits.json")
    manifest = load_manifest(processed)
    save_manifest(
        manifest.assign(
            labels=manifest["labels"].where(
                manifest["labels"] == "NORM", manifest["labels"] + ";ABNORMAL"
            )
        ),
        to,
    )
    return to


def test_what_cannot_be_written_is_refused(
    processed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        ValueError, match="format is 'tfrecord': expected one of parquet, braindecode"
    ):
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
    monkeypatch.setitem(sys.modules, "braindecode.datasets", None)
    with pytest.raises(
        ValueError,
        match=r"needs the package braindecode: pip install -r requirements-datasets\.txt",
    ):
        export_dataset(processed, tmp_path, kind="braindecode")
    assert not list(tmp_path.iterdir())


def test_a_class_named_like_a_column_is_refused() -> None:
    with pytest.raises(ValueError, match="classes age are named like what is known of a record"):
        _describe(
            {"key": "k", "age": 50.0}, ("age", "MI"), np.array([1, 0], np.float32), single=False
        )
