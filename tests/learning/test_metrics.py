from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as oracle

from src.learning.metrics import compute_metrics
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


# Predictions --------------------------------------------------------------------------------------


def test_one_label_per_record_is_recognised() -> None:
    assert make([[1, 0], [0, 1]], [[0.9, 0.1], [0.4, 0.6]]).single_label is True
    assert make([[1, 1], [0, 1]], np.zeros((2, 2))).single_label is False
    assert make([[1, NAN], [0, 1]], np.zeros((2, 2))).single_label is False


def test_decisions() -> None:
    scores = [[0.5, 0.5, 0.0], [0.1, 0.2, 0.3]]
    assert make(np.eye(3)[:2], scores).y_pred.tolist() == [[1, 0, 0], [0, 0, 1]]
    multi = {"single_label": False}
    assert make(np.eye(3)[:2], scores, **multi).y_pred.tolist() == [[1, 1, 0], [0, 0, 0]]
    assert make(np.eye(3)[:2], scores, thresholds=[0.6, 0.2, 0.3], **multi).y_pred.tolist() == [
        [0, 1, 0],
        [0, 1, 1],
    ]


def test_a_class_that_was_not_looked_for_is_not_called_among_exclusive_ones() -> None:
    predictions = make([[1, 0, NAN]], [[0.3, 0.1, 0.6]], single_label=True)
    assert (
        predictions.y_pred.tolist() == [[1, 0, 0]] and compute_metrics(predictions)["accuracy"] == 1
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"y_score": np.zeros((2, 3))}, r"y_score has shape \(2, 3\): expected \(2, 2\)"),
        ({"y_score": np.full((2, 2), NAN)}, "expected 0 to 1"),
        ({"y_score": np.full((2, 2), 1.1)}, "expected 0 to 1"),
        ({"y_true": np.full((2, 2), 0.5)}, "other values than 0, 1 and NaN"),
        ({"classes": ("A", "A")}, "each once"),
        ({"thresholds": [0.5]}, "expected 2 numbers from 0 to 1"),
        ({"thresholds": [0.5, NAN]}, "expected 2 numbers from 0 to 1"),
        ({"y_true": np.ones((2, 2)), "single_label": True}, "y_true of r0 has 2 classes present"),
    ],
)
def test_wrong_arrays_are_refused(values: dict[str, object], message: str) -> None:
    good = {"keys": ("r0", "r1"), "y_true": np.eye(2), "y_score": np.eye(2), "classes": ("A", "B")}
    with pytest.raises(ValueError, match=message):
        Predictions(**{**good, **values})


@pytest.mark.parametrize("thresholds", [None, [0.25, 0.75]])
def test_saved_predictions_come_back(tmp_path: Path, thresholds: list[float] | None) -> None:
    saved = make([[1, NAN], [0, 1]], [[0.1, 1 / 3], [0.2, 0.9]], thresholds=thresholds)
    saved.save(tmp_path / "p.npz")
    loaded = Predictions.load(tmp_path / "p.npz")
    assert (loaded.keys, loaded.classes, loaded.single_label) == (saved.keys, saved.classes, False)
    np.testing.assert_array_equal(loaded.y_true, saved.y_true)
    np.testing.assert_array_equal(loaded.y_score, saved.y_score)
    assert (
        (loaded.thresholds is None)
        if thresholds is None
        else loaded.thresholds.tolist() == thresholds
    )
    assert [path.name for path in tmp_path.iterdir()] == ["p.npz"]


def test_wrong_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    with pytest.raises(ValueError, match=re.escape(f"{path}: cannot be read")):
        Predictions.load(path)
    path.write_text("no archive")
    with pytest.raises(ValueError, match=re.escape(f"{path}: not a predictions file")):
        Predictions.load(path)
    np.savez(path, keys=np.array(["a"]), y_true=np.zeros((1, 1)))
    with pytest.raises(
        ValueError, match=re.escape(f"{path}: y_score, classes, single_label missing")
    ):
        Predictions.load(path)
    np.savez(
        path,
        keys=np.array(["a"]),
        y_true=np.ones((1, 1)),
        y_score=[[2.0]],
        classes=["A"],
        single_label=True,
    )
    with pytest.raises(ValueError, match=re.escape(f"{path}: y_score holds")):
        Predictions.load(path)


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
    assert m["f1_micro"] < 1  # the wrong call of B counts there
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
