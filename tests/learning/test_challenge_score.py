from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from settings import SHARED
from sklearn.metrics import fbeta_score, jaccard_score

from src.learning.challenge_score import (
    SINUS_RHYTHM,
    WeightTable,
    challenge_score,
    compute_challenge_scores,
    f_measure,
    g_measure,
    score_outputs,
)
from src.learning.predictions import Predictions
from src.learning.text import format_challenge

TABLE = f"""
,{SINUS_RHYTHM},164889003,713427006|59118001
{SINUS_RHYTHM},1,0.2,0.4
164889003,0.2,1,0.5
713427006|59118001,0.4,0.5,1
""".strip()


@pytest.fixture
def table(tmp_path: Path) -> WeightTable:
    path = tmp_path / "weights.csv"
    path.write_text(TABLE)
    return WeightTable.load(path)


def make(
    y_true: list[list[int]], y_score: list[list[float]], classes: tuple[str, ...]
) -> Predictions:
    return Predictions(
        tuple(f"r{i}" for i in range(len(y_true))), y_true, y_score, classes, single_label=False
    )


def test_the_score_by_hand(table: WeightTable) -> None:
    """Records: sinus predicted as AF; AF and RBBB as AF; RBBB as nothing.

    Observed 0.2/2 + (1 + 0.5)/2 + 0; correct 1 + (1 + 0.5 + 0.5 + 1)/2 + 1; inactive 1 + (0.2 +
    0.4)/3 + 0.4/2.
    """
    truth = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 1]], bool)
    predicted = np.array([[0, 1, 0], [0, 1, 0], [0, 0, 0]], bool)
    expected = (0.85 - 1.4) / (3.5 - 1.4)
    assert challenge_score(truth, predicted, table) == pytest.approx(expected)
    assert challenge_score(truth, truth, table) == pytest.approx(1)
    assert challenge_score(truth, np.tile([True, False, False], (3, 1)), table) == pytest.approx(0)
    assert challenge_score(truth[:1], truth[:1], table) == 0  # sinus rhythm alone: nothing to gain


def test_codes_and_class_names_score_alike(table: WeightTable) -> None:
    truth, scores = (
        [[1, 0, 0], [0, 1, 1], [0, 0, 1]],
        [[0.2, 0.6, 0.1], [0.1, 0.9, 0.4], [0.3, 0.2, 0.2]],
    )
    by_code = compute_challenge_scores(
        make(truth, scores, (SINUS_RHYTHM, "164889003", "59118001")), table
    )
    by_name = compute_challenge_scores(make(truth, scores, ("NSR", "AF", "RBBB")), table)
    assert by_code == by_name and by_code["challenge_score"] == pytest.approx(
        (0.85 - 1.4) / (3.5 - 1.4)
    )
    json.dumps(by_code, allow_nan=False)
    assert "challenge_score -0.262" in format_challenge(by_code)


def test_equivalent_classes_are_one(table: WeightTable) -> None:
    """Either code predicted is a prediction, and the probabilities are averaged."""
    classes = ("NSR", "713427006", "59118001")
    apart = make(
        [[0, 1, 0], [0, 0, 1], [1, 0, 0]],
        [[0.1, 0.9, 0.1], [0.1, 0.2, 0.6], [0.9, 0.2, 0.8]],
        classes,
    )
    found = compute_challenge_scores(apart, table)["per_class"]["713427006|59118001"]
    assert found == {"auroc": 0.25, "auprc": pytest.approx((1 / 2 + 2 / 3) / 2), "f_measure": 0.8}


def test_labels_that_the_model_does_not_know_count(table: WeightTable) -> None:
    predictions = make([[1, 0], [0, 1]], [[0.9, 0.1], [0.1, 0.9]], ("NSR", "AF"))
    assert compute_challenge_scores(predictions, table)["challenge_score"] == pytest.approx(1)
    labels = [("NSR", "something else"), ("AF", "RBBB")]
    assert compute_challenge_scores(predictions, table, labels)["challenge_score"] < 1
    with pytest.raises(ValueError, match="labels of 1 records for 2 predictions"):
        compute_challenge_scores(predictions, table, labels[:1])
    with pytest.raises(ValueError, match="none of the classes X is scored"):
        compute_challenge_scores(make([[1]], [[0.5]], ("X",)), table)


def test_f_and_g_measures_equal_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.random((2, 60, 4)) < 0.4
    truth[:, 3] = predicted[:, 3] = False
    f2 = fbeta_score(truth, predicted, beta=2, average=None, zero_division=0)
    jaccard = jaccard_score(truth, predicted, average=None, zero_division=0)
    np.testing.assert_allclose(f_measure(truth, predicted, 2)[:3], f2[:3])
    np.testing.assert_allclose(g_measure(truth, predicted)[:3], jaccard[:3])
    assert np.isnan(f_measure(truth, predicted)[3]) and np.isnan(g_measure(truth, predicted)[3])


def test_shared_records_by_hand() -> None:
    """The first record counts half for each of its two labels: class A has 0.5 hits and 1 false
    alarm, B 0.5 misses.
    """
    truth, predicted = np.array([[1, 1], [0, 0]], bool), np.array([[1, 0], [1, 0]], bool)
    assert f_measure(truth, predicted, 2, share_records=True) == pytest.approx(
        [5 * 0.5 / (5 * 0.5 + 1), 0]
    )
    assert g_measure(truth, predicted, 2, share_records=True) == pytest.approx([0.5 / 1.5, 0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (TABLE.replace("0.5", "half"), "expected numbers"),
        (TABLE.replace("\n164889003", "\n164889004"), "the same codes"),
        (TABLE.replace(",0.5\n", "\n"), "a square table"),
        (TABLE.replace(SINUS_RHYTHM, "1"), "sinus rhythm"),
    ],
)
def test_wrong_tables_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "weights.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"weights\.csv: .*{message}"):
        WeightTable.load(path)
    with pytest.raises(ValueError, match=r"absent\.csv: cannot be read"):
        WeightTable.load(tmp_path / "absent.csv")


def test_the_published_table_fits_the_crosswalk() -> None:
    path = SHARED / "tables" / "challenge2021_weights.csv"
    if not path.exists():
        pytest.skip("the Challenge's weights.csv is not at hand")
    from src.labels.crosswalk import load_class_set

    table = WeightTable.load(path)
    assert len(table.names) == 26 and table.weights.shape == (26, 26)
    assert sorted(
        table.columns_of(name)[0] for name in load_class_set("challenge2021").classes
    ) == list(range(26))
    truth = np.random.default_rng(0).random((50, 26)) < 0.1
    assert score_outputs(truth, truth, truth.astype(float), table)[
        "challenge_score"
    ] == pytest.approx(1)
