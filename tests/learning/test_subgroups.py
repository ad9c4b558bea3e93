from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from src.learning.metrics import compute_metrics
from src.learning.predictions import Predictions
from src.learning.subgroups import age_band, compute_subgroups
from src.learning.text import format_subgroups
from src.processed.manifest import patients_of, select_rows

MANIFEST = pd.DataFrame(
    {
        "dataset": ["a", "a", "b", "b", "b"],
        "record_id": ["1", "2", "1", "2", "3"],
        "patient_id": ["p", "p", "p", "", ""],
        "age": ["17.5", "80", "", "62", "300"],
        "sex": ["F", "male", "", "M", "female"],
    }
)
KEYS = ("b__3", "a__1", "a__2", "b__1", "b__2")


def make() -> Predictions:
    y_true = np.eye(2)[[0, 0, 1, 1, 0]]
    return Predictions(KEYS, y_true, np.abs(y_true - 0.2), ("A", "B"))


def test_rows_come_in_the_order_of_the_keys() -> None:
    rows = select_rows(MANIFEST, KEYS)
    assert rows["record_id"].tolist() == ["3", "1", "2", "1", "2"]
    assert patients_of(rows) == ("b__3", "a/p", "a/p", "b/p", "b__2")
    with pytest.raises(ValueError, match="1 records are not in the manifest, such as c__1"):
        select_rows(MANIFEST, (*KEYS, "c__1"))


@pytest.mark.parametrize(
    ("age", "band"),
    [
        ("0", "0-17"),
        ("17.9", "0-17"),
        ("18", "18-39"),
        ("79", "60-79"),
        ("80", "80+"),
        ("", "unknown"),
        ("300", "unknown"),
    ],
)
def test_age_bands(age: str, band: str) -> None:
    assert age_band(age) == band


def test_each_group_has_metrics_of_its_own() -> None:
    predictions = make()
    found = compute_subgroups(predictions, select_rows(MANIFEST, KEYS))
    assert {
        name: {g: row["n_records"] for g, row in groups.items()} for name, groups in found.items()
    } == {
        "dataset": {"a": 2, "b": 3},
        "sex": {"female": 2, "male": 2, "unknown": 1},
        "age": {"0-17": 1, "60-79": 1, "80+": 1, "unknown": 2},
    }
    a = compute_metrics(predictions.subset(np.array([1, 2])))
    assert (
        found["dataset"]["a"]["n_patients"] == 1
        and found["dataset"]["a"]["f1_macro"] == a["f1_macro"] == 1
    )
    assert (
        found["age"]["0-17"]["undefined_classes"] == ["A", "B"]
        and found["age"]["0-17"]["auroc_macro"] is None
    )
    json.dumps(found, allow_nan=False)


def test_the_table_leaves_out_what_has_one_group() -> None:
    found = compute_subgroups(make(), select_rows(MANIFEST, KEYS))
    text = format_subgroups(found)
    assert "dataset a" in text and "sex unknown" in text
    assert format_subgroups({"dataset": {"a": found["dataset"]["a"]}}) == ""
