"""The sections on results and calibration, against the files of the evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from report_page import Reader

from src.learning.metrics import compute_metrics
from src.learning.predictions import Predictions
from src.plots.report.content import Facts, Note, Table
from src.plots.report.run_files import RunFiles, SplitEvaluation
from src.plots.report.score_sections import build_summary, describe_results, describe_subgroups
from src.utils import load_json


@pytest.mark.parametrize("split", ["train", "val"])
def test_numbers_are_those_of_the_files(run: Path, read: Reader, split: str) -> None:
    metrics = load_json(run / f"metrics_{split}.json")
    orders = [
        float(order) for name, order in read.facts if name == "macro F1" and order is not None
    ]
    assert metrics["f1_macro"] in orders
    if split != "train":  # tables of one name: the last stays, of the split that comes last
        return
    for row in read.tables["results: Classes"]:
        name = row["class"][0]
        found, interval = metrics["per_class"][name], metrics["intervals"]["per_class"][name]["f1"]
        detail = f" {interval[0]:.3f}–{interval[1]:.3f}" if interval else ""
        assert row["F1"] == (f"{found['f1']:.3f}{detail}", str(found["f1"]))
        assert row["positive"] == (str(found["support"]), str(float(found["support"])))
        assert row["AUROC"][1] == str(found["auroc"])


def test_calibration_stands_before_and_after(run: Path, read: Reader) -> None:
    metrics = load_json(run / "metrics_train.json")
    measures = {row["measure"][0]: row for row in read.tables["calibration: Calibration"]}
    row = measures["expected calibration error"]
    assert row["before"][1] == str(metrics["calibration"]["reliability_before"]["ece"])
    assert row["after calibration"][1] == str(metrics["reliability"]["ece"])


def test_averages_of_both_protocols_and_of_frequent_classes_stand_side_by_side() -> None:
    rng = np.random.default_rng(0)
    y_true = np.stack([np.arange(40) % 2, np.arange(40) % 20 == 0], axis=1).astype(
        float
    )  # 20 positives and 2
    keys = tuple(f"d__{i}" for i in range(40))
    everyone = Predictions(
        keys, y_true, np.clip(y_true * 0.5 + rng.random((40, 2)) * 0.5, 0, 1), ("A", "B")
    )
    metrics = compute_metrics(everyone.subset(np.flatnonzero(y_true.any(axis=1))))
    protocols = {"labelled": metrics, "all": compute_metrics(everyone)}
    table = next(
        block
        for block in describe_results(
            SplitEvaluation("val", {**metrics, "protocols": protocols}, None), {}
        )
        if getattr(block, "caption", "") == "Averages"
    )
    assert [[cell.text for cell in row[:2]] for row in table.rows] == [
        ["22 with a class", "all 2"],
        ["22 with a class", "1 with 10 positives or more"],
        ["40 annotated, with or without a class", "all 2"],
        ["40 annotated, with or without a class", "1 with 10 positives or more"],
    ]
    assert table.columns[1] == "classes averaged" and not table.note
    plain = describe_results(
        SplitEvaluation("val", compute_metrics(everyone.subset(range(4))), None), {}
    )
    assert not [block for block in plain if getattr(block, "caption", "") == "Averages"]


def test_a_grouping_of_several_groups_has_two_tables() -> None:
    group = {
        "n_records": 4,
        "n_patients": 3,
        "accuracy": 0.75,
        "f1_macro": 0.5,
        "auroc_macro": None,
        "average_precision_macro": 0.25,
        "undefined_classes": ["AF"],
        "per_class": {"AF": {"f1": 0.5, "support": 2}},
    }
    subgroups = {"sex": {"female": group, "male": group}, "dataset": {"one": group}}
    evaluation = SplitEvaluation("test", {"subgroups": subgroups}, None)
    averages, classes, _ = describe_subgroups(evaluation, {})
    assert isinstance(averages, Table) and isinstance(classes, Table)
    assert [[cell.text for cell in row] for row in averages.rows] == [
        [name, "4", "3", "0.500", "–", "0.250", "0.750", "1"] for name in ("female", "male")
    ]
    assert [(cell.text, cell.detail) for cell in classes.rows[0]] == [
        ("AF", ""),
        ("0.500", "n 2"),
        ("0.500", "n 2"),
    ]


def summary(y_score: list[list[float]], **changes: object) -> tuple[list[str], list[str]]:
    """Return labels and notes at the top of the page, for two records of two classes each."""
    y_true = np.array([[1, 1], [0, 1], [1, 0]])
    predictions = Predictions(("d__1", "d__2", "d__3"), y_true, np.array(y_score), ("AF", "MI"))
    metrics = {**compute_metrics(predictions), **changes}
    evaluations = (SplitEvaluation("test", metrics, None),)
    files = RunFiles("r", Path(), {}, evaluations, (), (), None, None, {}, {})
    facts, *notes = build_summary(files)
    assert isinstance(facts, Facts)
    return [label for label, _ in facts.items], [note.text for note in notes]


def test_the_headline_of_several_labels_has_no_meaningless_zero() -> None:
    labels, notes = summary([[0.9, 0.1], [0.2, 0.8], [0.7, 0.6]])
    assert labels == ["macro AUROC", "macro AP", "macro F1 at 0.5"]
    assert "evaluate --thresholds" in notes[1]
    labels, notes = summary([[0.3, 0.1], [0.2, 0.3], [0.1, 0.2]])
    assert labels == ["macro AUROC", "macro AP"]
    assert notes[1].startswith("No true class reaches a probability of 0.5")
    labels, notes = summary([[0.9, 0.1], [0.2, 0.8], [0.7, 0.6]], thresholds={"rule": "f1"})
    assert labels[-1] == "macro F1" and len(notes) == 1


def test_accuracy_keeps_its_name_only_where_each_record_has_one_class() -> None:
    labels, notes = summary([[0.9, 0.1], [0.2, 0.8], [0.7, 0.6]], single_label=True)
    assert labels[-1] == "accuracy" and len(notes) == 1
    y_true = np.array([[1, 1], [0, 1]])
    several = compute_metrics(Predictions(("d__1", "d__2"), y_true, y_true * 0.9, ("AF", "MI")))
    facts = describe_results(SplitEvaluation("test", several, None), {})[0]
    assert isinstance(facts, Facts)
    names = [label for label, _ in facts.items]
    assert "subset accuracy" in names and "accuracy" not in names


def test_scores_that_may_be_too_high_or_leave_records_out_have_a_note() -> None:
    predictions = Predictions(("d__1", "d__2"), np.eye(2), np.eye(2), ("A", "B"))
    metrics = compute_metrics(predictions)

    def notes(**values: object) -> list[str]:
        blocks = describe_results(SplitEvaluation("test", {**metrics, **values}, None), {})
        return [str(block.text) for block in blocks if isinstance(block, Note)]

    assert notes() == []
    assert notes(n_trained_on=3, n_missing=4) == [
        "The model was trained on 3 of these records: scores are too high.",
        "4 records of the split have no prediction: left out.",
    ]
    assert notes(trained_on="unknown")[0].startswith("Which recordings the model was trained on is")
