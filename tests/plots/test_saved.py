"""The figures that an evaluation and a run leave, and the numbers that they are drawn from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from src.commands import arguments
from src.eval import Evaluation, evaluate
from src.learning.metrics import compute_metrics
from src.learning.predictions import Predictions
from src.plots.canvas import SAVE_SUFFIXES
from src.plots.saved import (
    class_intervals,
    count_labels,
    draw_data,
    draw_scores,
    save_evaluation_figures,
    save_history_figure,
)
from src.processed.manifest import load_manifest

OF_A_SPLIT = {
    "f1_scores",
    "roc",
    "precision_recall",
    "reliability",
    "confusion_matrix",
    "mistakes",
    "ecg_example",
}
OF_THE_DATA = {"class_balance", "source_balance", "ages", "quality"}


def of_two_classes(single: bool) -> Predictions:
    truth = np.array([[1, 0], [0, 1], [0, 1], [1, 0]])
    return Predictions(
        ("a", "b", "c", "d"),
        truth,
        np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]]),
        ("N", "AF"),
        single,
    )


@pytest.fixture(scope="module")
def evaluation(trained: Path, processed: Path) -> Evaluation:
    return evaluate(trained / "models" / "best.pth", processed, split="train")


@pytest.mark.parametrize(
    ("figure_format", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")]
)
def test_an_evaluation_leaves_its_figures(
    evaluation: Evaluation, processed: Path, tmp_path: Path, figure_format: str, start: bytes
) -> None:
    files = save_evaluation_figures(evaluation, processed, tmp_path, figure_format)
    names = {f"train_{name}" for name in OF_A_SPLIT} | {f"data_{name}" for name in OF_THE_DATA}
    assert {path.name for path in files} == {f"{name}.{figure_format}" for name in names}
    assert all(path.read_bytes().startswith(start) for path in files)


def test_formats_are_those_of_the_command_line() -> None:
    assert tuple(suffix[1:] for suffix in SAVE_SUFFIXES) == arguments.FIGURE_FORMATS


def test_the_history_is_saved_in_the_format_asked_for(trained: Path, tmp_path: Path) -> None:
    save_history_figure(trained, tmp_path, "svg")
    assert (tmp_path / "training_history.svg").read_bytes().startswith(b"<?xml")


def test_several_labels_have_no_confusion_matrix() -> None:
    names = [
        name
        for name, _ in draw_scores(compute_metrics(of_two_classes(False)), of_two_classes(False))
    ]
    assert names == ["f1_scores", "roc", "precision_recall", "reliability"]


def test_intervals_of_classes_that_have_one() -> None:
    rows = {"N": {"f1": [0.1, 0.2], "auroc": None}, "AF": {"f1": None, "auroc": [0.5, 0.9]}}
    assert class_intervals({"intervals": {"per_class": rows}}, "f1") == {"N": (0.1, 0.2)}
    assert class_intervals({}, "f1") == {}


def test_labels_are_counted_by_group(processed: Path) -> None:
    rows = (
        load_manifest(processed)
        .head(4)
        .assign(labels=["N;AF", "N", "", "AF"], split=["train", "val", "val", "train"])
    )
    assert count_labels(rows, "split", ("train", "val", "test")) == {
        "train": {"AF": 2, "N": 1},
        "val": {"N": 1},
    }


def test_records_without_labels_have_no_balance(processed: Path) -> None:
    bare = load_manifest(processed).assign(labels="", age="")
    assert [name for name, _ in draw_data(bare)] == ["quality"]
    of_one = load_manifest(processed).assign(dataset="one")
    assert [name for name, _ in draw_data(of_one)] == ["class_balance", "ages", "quality"]
