"""The files that a report is written from, and folders that hold none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from src.plots.report.run_files import load_run
from src.utils import save_json

METRICS = {"per_class": {}, "f1_macro": None, "n_records": 0, "confusion_matrix": None}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "neither training_log.json nor metrics_*.json"),
        ({"metrics_test.json": {"a": 1}}, "not metrics as evaluate writes them"),
    ],
)
def test_a_folder_that_is_no_run(tmp_path: Path, files: dict[str, object], message: str) -> None:
    for name, value in files.items():
        save_json(value, tmp_path / name)
    with pytest.raises(ValueError, match=re.escape(message)):
        load_run(tmp_path)


def test_another_processed_folder_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not hold the records"):
        load_run(run, tmp_path)


def test_the_test_split_comes_first(tmp_path: Path) -> None:
    for name in ("another", "train", "test", "val"):
        save_json(METRICS, tmp_path / f"metrics_{name}.json")
    files = load_run(tmp_path)
    names = [evaluation.name for evaluation in files.evaluations]
    assert names == ["test", "val", "train", "another"]
    assert files.log == {} and files.manifest is None and files.checkpoint is None


def test_the_evaluated_checkpoint_comes_before_the_best(tmp_path: Path) -> None:
    best, other = tmp_path / "models" / "best.pth", tmp_path / "other.pth"
    best.parent.mkdir()
    best.touch()
    save_json({**METRICS, "checkpoint": str(other)}, tmp_path / "metrics_test.json")
    assert load_run(tmp_path).checkpoint == best
    other.touch()
    assert load_run(tmp_path).checkpoint == other


def test_predictions_of_another_program_have_no_checkpoint(tmp_path: Path) -> None:
    best = tmp_path / "models" / "best.pth"
    best.parent.mkdir()
    best.touch()
    save_json({**METRICS, "predictions": "p.csv"}, tmp_path / "metrics_test.json")
    assert load_run(tmp_path).checkpoint is None
