"""Files of a run that are damaged or edited: one line that names the file and the field."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from settings import QUICK

from src.learning.metrics import compute_metrics
from src.learning.predictions import Predictions
from src.learning.run_files import load_metrics, load_training_log
from src.training import run_training
from src.utils import save_json

ROW = {
    "epoch": 1,
    "train_loss": 0.5,
    "val_loss": None,
    "val_f1_macro": 0.5,
    "val_auroc_macro": None,
    "lr": 1e-3,
    "seconds": 1.0,
}
LOG = {
    "history": [ROW],
    "best_epoch": 1,
    "best_metric": 0.5,
    "best_metric_name": "val_f1_macro",
    "config": {"train": {}},
}
METRICS = {
    "split": "test",
    "checkpoint": "best.pth",
    **compute_metrics(
        Predictions(("a", "b"), [[1, 0], [0, 1]], [[0.9, 0.1], [0.4, 0.6]], ("A", "B"))
    ),
}


def edit(value: Any, place: str, new: object) -> Any:
    """Return a copy with another value at a place such as ``per_class.A.f1``."""
    changed = copy.deepcopy(value)
    *parents, last = [int(part) if part.isdigit() else part for part in place.split(".")]
    inner = changed
    for part in parents:
        inner = inner[part]
    inner[last] = new
    return changed


def test_files_as_they_are_written_are_read(tmp_path: Path) -> None:
    save_json(LOG, tmp_path / "log.json")
    save_json(METRICS, tmp_path / "metrics.json")
    assert load_training_log(tmp_path / "log.json")["history"] == [ROW]
    assert load_metrics(tmp_path / "metrics.json")["f1_macro"] == METRICS["f1_macro"]


@pytest.mark.parametrize(
    ("place", "new", "message"),
    [
        ("per_class", {"A": "x"}, "per_class.A is 'x': expected a table"),
        ("per_class.A.precision", "<b>", "per_class.A.precision is '<b>': expected a number"),
        ("per_class.A.support", 0.5, "per_class.A.support is 0.5: expected a whole number"),
        ("per_class.A", {}, "per_class.A.precision is missing"),
        ("n_records", True, "n_records is True: expected a whole number"),
        ("f1_macro", 10**400, "f1_macro is a huge number: expected a number"),
        ("intervals", 3, "intervals is 3: expected a table"),
        ("undefined_classes", [1], "undefined_classes[0] is 1: expected a text"),
        ("confusion_matrix", [[1, 2]], "confusion_matrix has 1 rows"),
        ("checkpoint", [], "checkpoint is []: expected a text"),
        ("per_class.A.f1", "\x1b[31m", r"per_class.A.f1 is '\x1b[31m'"),
    ],
)
def test_edited_metrics_are_named(tmp_path: Path, place: str, new: object, message: str) -> None:
    path = tmp_path / "metrics_test.json"
    path.write_text(json.dumps(edit(METRICS, place, new)))
    with pytest.raises(ValueError, match=re.escape(f"{path}: {message}")):
        load_metrics(path)


@pytest.mark.parametrize(
    ("place", "new", "message"),
    [
        ("history", {}, "history is {}: expected a list"),
        ("history.0", 3, "history[0] is 3: expected a table"),
        ("history.0.seconds", "x", "history[0].seconds is 'x': expected a number"),
        ("history.0.other", "x", "history[0].other is 'x': expected a number"),
        ("best_epoch", -5, "best_epoch is -5: expected one of the 1 epochs"),
        ("best_metric_name", None, "best_metric_name is None: expected a text"),
        ("config", [], "config is []: expected a table"),
    ],
)
def test_edited_logs_are_named(tmp_path: Path, place: str, new: object, message: str) -> None:
    path = tmp_path / "training_log.json"
    save_json(edit(LOG, place, new), path)
    with pytest.raises(ValueError, match=re.escape(f"{path}: {message}")):
        load_training_log(path)


@pytest.mark.parametrize("value", [[], {}, "x", None])
def test_files_of_another_kind_are_named(tmp_path: Path, value: object) -> None:
    path = tmp_path / "file.json"
    save_json(value, path)
    with pytest.raises(ValueError, match=r"file\.json: not metrics as evaluate writes"):
        load_metrics(path)
    with pytest.raises(ValueError, match=r"file\.json: not a log as train writes"):
        load_training_log(path)


@pytest.fixture(scope="module")
def latest(processed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("state")
    run_training(QUICK, processed, out)
    return out / "models" / "latest.pth"


@pytest.mark.parametrize(
    ("place", "new"),
    [
        ("epoch", None),
        ("epoch", 7),
        ("history", []),
        ("history", "x"),
        ("best_epoch", -5),
        ("best_metric", "x"),
        ("optimizers", "x"),
        ("optimizers", []),
        ("optimizers", [{}]),
        ("optimizers.0.param_groups.0.lr", "x"),
        ("optimizers.0.state.0", {"step": torch.tensor(1.0), "exp_avg": torch.zeros(3)}),
        ("schedulers.0.last_epoch", None),
        ("schedulers", [1]),
        ("rng", {}),
        ("rng.python", 3),
        ("model", {}),
        ("scaler", None),
    ],
)
def test_a_damaged_state_is_not_resumed_from(
    latest: Path, processed: Path, tmp_path: Path, place: str, new: object
) -> None:
    content = torch.load(latest, weights_only=True)
    damaged = tmp_path / "models" / "latest.pth"
    damaged.parent.mkdir()
    torch.save({**content, "state": edit(content["state"], place, new)}, damaged)
    with pytest.raises(ValueError, match=re.escape(f"{damaged}: ")):
        run_training(QUICK, processed, tmp_path, resume=True)
