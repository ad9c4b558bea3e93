from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from settings import QUICK
from test_cross_fit import larger
from test_main import Run, run

from src.commands.cross_validate import METRICS_FILE, PREDICTIONS_FILE, run_cross_validation
from src.learning.checkpoints import load_checkpoint
from src.learning.predictions import Predictions
from src.processed.targets import load_records
from src.utils import load_json

__all__ = ["larger", "run"]

CONFIG = dataclasses.replace(QUICK, train=dataclasses.replace(QUICK.train, epochs=1))


def test_each_record_is_evaluated_once_by_a_network_that_did_not_see_it(
    larger: Path, tmp_path: Path
) -> None:
    result = run_cross_validation(CONFIG, larger, tmp_path, folds=2, intervals=50)
    splits = load_records(larger)
    saved = Predictions.load(tmp_path / PREDICTIONS_FILE)
    assert sorted(saved.keys) == sorted(splits["train"].keys + splits["val"].keys)
    checkpoint = load_checkpoint(tmp_path)
    learned = [set(member.card.train_hashes) for member in checkpoint.members]
    assert len(learned) == 2 and not learned[0] & learned[1]
    folds = result["folds"]
    assert sum(fold["n_records"] for fold in folds) == result["pooled"]["n_records"]
    assert result["pooled"]["intervals"]["n_resamples"] == 50
    assert load_json(tmp_path / METRICS_FILE)["folds"] == folds


def test_the_command_resumes_and_leaves_an_ensemble(run: Run, larger: Path, tmp_path: Path) -> None:
    options = ["--epochs", "1", "--base-channels", "8", "--batch-size", "8", "--device", "cpu"]
    command = ["cross-validate", "--processed", larger, "--out", tmp_path, "--folds", "2", *options]
    first = run(*command)
    assert first.code == 0 and "deviation" in first.out and "pooled" in first.out
    again = run(*command, "--resume")
    assert again.code == 0 and again.out == first.out and "epoch 1/1" not in again.err
    judged = run(
        *("evaluate", "--checkpoint", tmp_path, "--processed", larger, "--out", tmp_path / "all"),
        *("--device", "cpu"),
    )
    assert judged.code == 0, judged.err
    scores = Predictions.load(tmp_path / "all" / "predictions_test.npz").y_score
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-6)

    told = run("report", "--run", tmp_path, "--processed", larger, "--no-saliency")
    assert told.code == 0, told.err
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "records of the cross validation set" in page


def test_a_folder_without_networks_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has neither models/best\.pth nor part_1"):
        load_checkpoint(tmp_path)
