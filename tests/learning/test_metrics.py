from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from sklearn import metrics as oracle

from src.learning.metrics import Ranking, compute_metrics
from src.learning.predictions import Predictions
from src.learning.text import format_metrics

NAN = float("nan")


def make(y_true: object, y_score: object, **values: object) -> Predictions:
    y_true = np.asarray(y_true, float)
    keys = tuple(f"r{i}" for i in range(len(y_true)))
    return Predictions(keys, y_true, y_score, tuple("ABCDEFGH"[: y_true.shape[1]]), **values)


def random_predictions(
    single: bool, n: int = 300, n_classes: int = 5, seed: int = 0
) -> Predictions:
    rng = np.random.default_rng(seed)
    if single:
        y_true = np.eye(n_classes)[rng.integers(0, n_classes, n)]
        logits = np.round(
            rng.normal(size=(n, n_classes)) + y_true, 1
        )  # rounded, so that there are ties
        return make(y_true, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
    y_true = (rng.random((n, n_classes)) < 0.3).astype(float)
    return make(y_true, np.round((rng.random((n, n_classes)) + 0.4 * y_true) / 1.4, 2))


# Metrics ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("single", [True, False])
def test_metrics_equal_scikit_learn(single: bool) -> None:
    p = random_predictions(single)
    m = compute_metrics(p)
    t, s, d = p.y_true.astype(int), p.y_score, p.y_pred
    expected = {
        f"f1_{how}": oracle.f1_score(t, d, average=how, zero_division=0)
        for how in ("macro", "micro", "weighted")
    }
    expected["precision_macro"] = oracle.precision_score(t, d, average="macro", zero_division=0)
    expected["recall_macro"] = oracle.recall_score(t, d, average="macro", zero_division=0)
    expected["average_precision_macro"] = oracle.average_precision_score(t, s, average="macro")
    expected["auroc_macro"] = oracle.roc_auc_score(t, s, average="macro")
    expected["accuracy"] = oracle.accuracy_score(t, d)
    if single:
        assert expected["auroc_macro"] == pytest.approx(
            oracle.roc_auc_score(t.argmax(1), s, multi_class="ovr"), abs=1e-12
        )
        assert m["confusion_matrix"] == oracle.confusion_matrix(t.argmax(1), d.argmax(1)).tolist()
    for name, value in expected.items():
        assert m[name] == pytest.approx(value, abs=1e-12), name
    for i, row in enumerate(m["per_class"].values()):
        assert row["auroc"] == pytest.approx(oracle.roc_auc_score(t[:, i], s[:, i]), abs=1e-12)
        assert row["average_precision"] == pytest.approx(
            oracle.average_precision_score(t[:, i], s[:, i]), abs=1e-12
        )
        assert row["support"] == t[:, i].sum() and row["threshold"] == (None if single else 0.5)


def test_metrics_by_hand() -> None:
    m = compute_metrics(
        make([[1], [0], [1], [0]], [[0.9], [0.8], [0.8], [0.1]], single_label=False)
    )
    row = m["per_class"]["A"]
    assert row["auroc"] == pytest.approx((2 + 1.5) / 4)  # the positives beat 2 and 1, with one tie
    assert row["average_precision"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert (row["precision"], row["recall"], row["f1"]) == pytest.approx((2 / 3, 1, 0.8))
    assert m["accuracy"] == 0.75


def test_entries_that_were_not_looked_for_do_not_count() -> None:
    y_true, y_score = (
        [[1, 0], [0, 1], [NAN, 1], [1, NAN]],
        [[0.9, 0.2], [0.2, 0.8], [0.7, 0.1], [0.4, 0.9]],
    )
    m = compute_metrics(make(y_true, y_score))
    first = compute_metrics(make([[1], [0], [1]], [[0.9], [0.2], [0.4]], single_label=False))[
        "per_class"
    ]["A"]
    assert m["per_class"]["A"] == first and first["n_annotated"] == 3
    assert m["accuracy"] == 0.5  # the last two records each miss one entry
    assert m["f1_micro"] == pytest.approx(2 * 2 / (2 * 2 + 2))


def test_classes_without_positives_or_negatives_are_named_and_left_out() -> None:
    y_true = [[1, 0, 1, NAN], [0, 0, 1, NAN]]
    m = compute_metrics(make(y_true, [[0.9, 0.9, 0.9, 0.9], [0.2, 0.2, 0.9, 0.9]]))
    assert (
        m["undefined_classes"] == ["B", "C", "D"]
        and m["auroc_macro"] == m["average_precision_macro"] == 1
    )
    assert (
        m["per_class"]["B"]["f1"] is None and m["per_class"]["C"]["f1"] == 1 and m["f1_macro"] == 1
    )
    assert m["f1_micro"] < 1  # the wrong prediction of B counts there
    nothing = compute_metrics(make([[NAN, NAN]], [[0.1, 0.2]]))
    assert nothing["f1_macro"] is nothing["auroc_macro"] is nothing["accuracy"] is None
    assert "excluded from the averages: A, B" in format_metrics(nothing)


def test_the_result_is_json_and_an_empty_set_is_refused() -> None:
    for single in (True, False):
        json.dumps(compute_metrics(random_predictions(single)), allow_nan=False)
    with pytest.raises(ValueError, match="no predictions to evaluate"):
        compute_metrics(make(np.zeros((0, 2)), np.zeros((0, 2))))


def test_the_table_is_aligned() -> None:
    text = format_metrics(compute_metrics(random_predictions(single=False)))
    table = text.splitlines()[:-1]
    assert (
        len(table) == 7 and len({len(line) for line in table}) == 1 and table[0].split()[-1] == "AP"
    )
    assert "threshold" not in format_metrics(compute_metrics(random_predictions(single=True)))


def test_frequent_classes_have_averages_of_their_own() -> None:
    y_true = np.zeros((40, 3))
    y_true[:10, 0] = y_true[10:19, 1] = y_true[20:, 2] = 1
    y_score = np.random.default_rng(0).random((40, 3))
    metrics = compute_metrics(make(y_true, y_score, single_label=False))
    frequent, rows = metrics["frequent"], metrics["per_class"]
    assert (frequent["min_positives"], frequent["n_classes"]) == (
        10,
        2,
    )  # ten are enough, nine are not
    for name in ("auroc", "average_precision", "f1", "precision", "recall"):
        assert frequent[f"{name}_macro"] == pytest.approx((rows["A"][name] + rows["C"][name]) / 2)
    assert "macro, 10 positives or more  2 classes" in format_metrics(metrics)
    same = compute_metrics(make(y_true[:, [0, 2]], y_score[:, [0, 2]], single_label=False))
    assert same["frequent"]["f1_macro"] == same["f1_macro"] and "or more" not in format_metrics(
        same
    )


def test_metrics_need_no_scikit_learn() -> None:
    code = (
        "import sys, src.learning.metrics; "
        "sys.exit(any(n in sys.modules for n in ('sklearn', 'scipy', 'torch', 'pandas')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Ranking ------------------------------------------------------------------------------------------


def test_weights_count_records_so_many_times() -> None:
    rng = np.random.default_rng(0)
    y_true, y_score = rng.integers(0, 2, 60).astype(float), np.round(rng.random(60), 1)
    y_true[:5] = np.nan
    weights = rng.integers(0, 4, (8, 60)).astype(float)
    ranking = Ranking.of(y_true, y_score)
    auroc, precision = ranking.auroc(weights), ranking.average_precision(weights)
    for row, w in enumerate(weights):
        w = np.where(np.isnan(y_true), 0, w).astype(int)
        t, s = np.repeat(y_true, w), np.repeat(y_score, w)
        assert auroc[row] == pytest.approx(oracle.roc_auc_score(t, s), abs=1e-12)
        assert precision[row] == pytest.approx(oracle.average_precision_score(t, s), abs=1e-12)


@pytest.mark.parametrize("y_true", [[1, 1], [0, 0], [NAN, 1], [NAN, NAN]])
def test_without_both_outcomes_there_is_no_area(y_true: list[float]) -> None:
    ranking = Ranking.of(y_true, [0.1, 0.2])
    assert np.isnan(ranking.auroc()).all() and np.isnan(ranking.average_precision()).all()
    assert np.isnan(ranking.auroc(np.zeros((3, 2)))).tolist() == [True] * 3


def test_a_weighting_without_positives_has_no_area() -> None:
    ranking = Ranking.of([1, 0, 0], [0.9, 0.1, 0.2])
    weights = np.array([[0.0, 1, 1], [1, 0, 0], [1, 1, 1]])
    assert np.isnan(ranking.auroc(weights)).tolist() == [True, True, False]
    assert np.isnan(ranking.average_precision(weights)).tolist() == [True, True, False]
