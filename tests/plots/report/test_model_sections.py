"""The sections on training and settings, against the training log."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_page import Reader

from src.plots.report.content import Facts, Table
from src.plots.report.model_sections import build_training_section
from src.plots.report.run_files import load_run
from src.utils import load_json, save_json


def test_training_and_settings_are_those_of_the_log(run: Path, read: Reader) -> None:
    log = load_json(run / "training_log.json")
    assert [row["train loss"][1] for row in read.tables["training: Epochs"]] == [
        str(row["train_loss"]) for row in log["history"]
    ]
    [caption] = [name for name in read.tables if name.startswith("settings: Settings, ")]
    defaults = [row["default, if different"][0] for row in read.tables[caption]]
    assert defaults == sorted(defaults, key=lambda text: not text)  # what was changed comes first
    assert caption.endswith(f"{sum(map(bool, defaults))} changed")
    settings = {row["setting"][0]: row["value"][0] for row in read.tables[caption]}
    assert settings["epochs"] == "2" and settings["fs"] == "100" and "root" not in settings


@pytest.mark.parametrize(
    ("seconds", "shown"), [(50.0, "100 s"), (600.0, "20 min"), (5400.0, "3.0 h")]
)
def test_the_time_of_training_is_that_of_all_epochs(
    tmp_path: Path, seconds: float, shown: str
) -> None:
    history = [{"epoch": n, "train_loss": 1.0, "seconds": seconds} for n in (1, 2)]
    save_json({"history": history, "best_epoch": 2}, tmp_path / "training_log.json")
    facts, _, table = build_training_section(load_run(tmp_path)).blocks
    assert isinstance(facts, Facts) and isinstance(table, Table)
    texts = {name: cell.text for name, cell in facts.items}
    assert texts["time"] == shown and texts["best epoch"] == "2 of 2"
    assert table.columns == ["epoch", "train loss", "seconds"]


def test_without_a_history_there_is_no_training_section(tmp_path: Path) -> None:
    save_json({"history": [], "loss": "cross entropy"}, tmp_path / "training_log.json")
    assert not build_training_section(load_run(tmp_path)).blocks
