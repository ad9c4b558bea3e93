from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from src.config import DataConfig, ExecutionConfig, PreprocessConfig
from src.labels.mapping import load_mapping
from src.preprocessing import run_preprocessing
from src.processed.manifest import load_manifest
from src.records import from_array, read_record, write_collection
from src.records.record import ECGRecord

RNG = np.random.default_rng(67)
MV = RNG.normal(0, 0.3, (3, 900)).astype(np.float32)
LEADS = ("I", "II", "V1")


def record(name: str, **facts: object) -> ECGRecord:
    return from_array(MV, 250, LEADS, record_id=name, **facts)  # type: ignore[arg-type]


@pytest.mark.parametrize(("unit", "factor"), [("mV", 1), ("uV", 1e-3), ("V", 1e3), ("0.5mV", 0.5)])
def test_an_array_in_any_unit_and_order(unit: str, factor: float) -> None:
    made = from_array(MV, 250, LEADS, unit)
    np.testing.assert_allclose(made.signal, MV * factor, rtol=1e-6)
    assert (made.fs, made.leads, made.record_id, made.flags) == (250.0, LEADS, "array", ())
    np.testing.assert_array_equal(from_array(MV.T, 250, LEADS, unit).signal, made.signal)


def test_one_lead_integers_and_missing_samples() -> None:
    made = from_array(np.array([100, -32768, -200], np.int16), 100, ["II"], "5 uV")
    np.testing.assert_allclose(made.signal, [[0.5, np.nan, -1.0]], rtol=1e-6)
    assert np.isnan(from_array([[np.inf, 1.0]], 100, "II").signal[0, 0])
    # A square array has its leads first.
    square = np.arange(9.0).reshape(3, 3)
    np.testing.assert_array_equal(from_array(square, 100, LEADS).signal, square)


@pytest.mark.parametrize(
    ("signal", "changes", "expected"),
    [
        (np.zeros((2, 9)), {}, r"shape \(2, 9\) for 3 leads: expected \(n_leads, n_samples\)"),
        (np.zeros((5, 3, 9)), {}, "make a record of each row of an array of many"),
        (np.zeros((3, 0)), {}, r"shape \(3, 0\)"),
        (np.zeros((65, 9)), {"leads": ["a"] * 65}, "leads has 65 names: expected 1 to 64"),
        (MV, {"unit": "beats"}, "unit is 'beats': expected a voltage"),
        (MV, {"unit": ""}, "unit is '': expected a voltage"),
        (MV, {"fs": float("nan")}, "fs is nan: expected a rate of 1 to 1e"),
        (MV, {"sex": "F"}, "sex is 'F': expected 'female', 'male' or None"),
        (np.array(["a"]), {"leads": ["II"]}, "values of type <U1: expected numbers"),
        (MV + 1e20, {}, "samples beyond any voltage"),
    ],
)
def test_bad_arrays(signal: np.ndarray, changes: dict[str, object], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        from_array(signal, **({"fs": 250, "leads": LEADS} | changes))  # type: ignore[arg-type]


def test_a_collection_is_read_as_it_was_and_preprocessed(tmp_path: Path) -> None:
    records = [record(f"r{i}", patient_id=f"p{i}", age=40.0 + i, sex="female") for i in range(6)]
    labels = {f"r{i}": ("AF", "SR")[i % 2 : i % 2 + 1] for i in range(6)}
    mapping = write_collection(iter(records), tmp_path / "c", labels=labels)
    read = read_record(tmp_path / "c" / "r2.h5")
    np.testing.assert_array_equal(read.signal, MV)
    assert (read.record_id, read.fs, read.leads, read.flags) == ("r2", 250.0, LEADS, ())
    rows = load_mapping(mapping)
    assert len(rows) == 6
    run_preprocessing(
        DataConfig({"mine": str(tmp_path / "c")}),
        tmp_path / "out",
        mapping=mapping,
        config=PreprocessConfig(fs=100.0, n_samples=250),
        execution=ExecutionConfig(workers=1),
    )
    manifest = load_manifest(tmp_path / "out").set_index("record_id")
    assert set(manifest["status"]) == {"ok"}
    assert manifest.loc["r3", "labels"] == "SR" and manifest.loc["r3", "patient_id"] == "p3"


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_collection([record("r")], tmp_path / name, labels={"r": "AF"})
    for file in ("r.h5", "label_mapping.csv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize(
    ("names", "labels", "expected"),
    [
        (["a", "A"], None, "record id 'A' stands twice"),
        (["../a"], None, "record id '../a' cannot name a file"),
        (["a"], {"b": "AF"}, "labels name 'b': there is no such record"),
        (["a"], {"a": ["AF;SR"]}, "hold a ';', which separates labels"),
    ],
)
def test_bad_collections(
    tmp_path: Path, names: list[str], labels: dict[str, list[str]] | None, expected: str
) -> None:
    with pytest.raises(ValueError, match=expected):
        write_collection([record(name) for name in names], tmp_path, labels=labels)
