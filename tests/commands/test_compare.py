from __future__ import annotations

from pathlib import Path

import pytest

from src.commands.compare import compare_runs
from src.utils import save_json

ROW = {
    "epoch": 1,
    "train_loss": 0.5,
    "val_loss": None,
    "val_f1_macro": 0.5,
    "val_auroc_macro": None,
    "lr": 1e-3,
}


def test_a_run_is_a_row_of_its_log_and_metrics(tmp_path: Path) -> None:
    log = {
        "history": [{**ROW, "seconds": 60.0}, {**ROW, "epoch": 2, "seconds": 30.0}],
        "best_epoch": 2,
        "best_metric_name": "val_f1_macro",
        "best_metric": 0.5,
    }
    metrics = {
        "f1_macro": 0.6,
        "auroc_macro": 0.9,
        "accuracy": None,
        "n_records": 3,
        "per_class": {},
        "confusion_matrix": None,
    }
    save_json(log, tmp_path / "one" / "training_log.json")
    save_json(metrics, tmp_path / "one" / "metrics_test.json")
    assert compare_runs([tmp_path / "one"]) == [
        {
            "run": "one",
            "epochs": 2,
            "best_epoch": 2,
            "val_f1_macro": 0.5,
            "minutes": 1.5,
            "test_f1_macro": 0.6,
            "test_auroc_macro": 0.9,
            "test_accuracy": None,
        }
    ]


def test_folders_that_are_no_runs_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no training_log\.json here"):
        compare_runs([tmp_path])
    save_json({"epochs": 3}, tmp_path / "training_log.json")
    with pytest.raises(ValueError, match="not a log as train writes it"):
        compare_runs([tmp_path])
