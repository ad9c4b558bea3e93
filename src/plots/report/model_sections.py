"""The sections on how the model came about: training, settings and versions, from the training
log.
"""

from __future__ import annotations

from typing import Any

from src import __version__
from src.config import Config, plain_value
from src.plots.history import plot_training_history
from src.plots.report.content import (
    Block,
    Cell,
    Facts,
    Pictures,
    Section,
    Table,
    dense,
    number,
    text,
    whole,
)
from src.plots.report.page import picture
from src.plots.report.run_files import RunFiles
from src.utils import to_jsonable


def build_training_section(files: RunFiles) -> Section:
    """Return what the training log tells, nothing where there is none."""
    log, history = files.log, files.log.get("history", [])
    if not history:
        return Section("training", "Training")
    best = log.get("best_epoch")
    figure = plot_training_history(history, best_epoch=best)
    names = [name for name in history[0] if name != "epoch"]
    rows = [
        [whole(row["epoch"]), *(_history_cell(name, row.get(name)) for name in names)]
        for row in history
    ]
    epochs = Table(
        "Epochs",
        ["epoch", *(name.replace("_", " ") for name in names)],
        rows,
        folded=len(rows) > 25,
    )
    pictures = Pictures(
        [
            picture(
                figure, "t", "Losses, validation scores and learning rate; the best epoch is dotted"
            )
        ]
    )
    return Section("training", "Training", [Facts(_training_facts(log)), pictures, dense(epochs)])


def _training_facts(log: dict[str, Any]) -> list[tuple[str, Cell]]:
    history = log["history"]
    return [
        ("best epoch", text(f"{log.get('best_epoch')} of {len(history)}")),
        (
            str(log.get("best_metric_name") or "best").replace("_", " "),
            number(log.get("best_metric")),
        ),
        ("stopped", text(log.get("stopped"))),
        ("time", _duration(sum(row.get("seconds") or 0.0 for row in history))),
        ("parameters", text(f"{log['n_parameters']:,}" if "n_parameters" in log else None)),
        ("records", text(f"{log.get('n_train', 0):,} train, {log.get('n_val', 0):,} val")),
        ("loss", text(log.get("loss"))),
        ("device", text(log.get("device", {}).get("device"))),
        ("mixed precision", text(log.get("amp"))),
        ("begun", text(str(log.get("created", "")).replace("T", " ").replace("+00:00", " UTC"))),
    ]


def _history_cell(name: str, value: float | None) -> Cell:
    if value is not None and name == "lr":
        return Cell(f"{value:.2e}", value)
    return number(value, 1 if name == "seconds" else 4)


def _duration(seconds: float) -> Cell:
    if seconds < 120:
        return number(seconds, 0, unit=" s")
    return (
        number(seconds / 60, 0, unit=" min")
        if seconds < 7200
        else number(seconds / 3600, 1, unit=" h")
    )


# Settings -----------------------------------------------------------------------------------------


def build_settings_section(files: RunFiles) -> Section:
    """Return the settings, those that are not the defaults marked, and the versions."""
    blocks: list[Block] = []
    if rows := _settings_rows(files):
        note = "Preprocessing: of the processed folder. The others: of the training run."
        blocks.append(
            Table("Settings", ("section", "setting", "value", "default where another"), rows, note)
        )
    blocks.append(
        Table(
            "Versions",
            ("", "version"),
            [[text(name), text(value)] for name, value in _versions(files.log)],
        )
    )
    return Section("settings", "Settings and versions", blocks)


def _settings_rows(files: RunFiles) -> list[list[Cell]]:
    """Return a row per setting; those of machines and folders, which say nothing of results, are
    left out.
    """
    used = {"preprocess": files.preprocess} | {
        name: files.log.get("config", {}).get(name, {}) for name in ("model", "train", "loader")
    }
    defaults = to_jsonable(Config())
    rows = []
    for section, settings in used.items():
        for name, value in settings.items():
            default = defaults.get(section, {}).get(name)
            rows.append(
                [
                    text(section),
                    text(name),
                    text(plain_value(value)),
                    Cell("" if value == default else plain_value(default)),
                ]
            )
    return rows


def _versions(log: dict[str, Any]) -> list[tuple[str, object]]:
    environment = log.get("environment", {})
    trained = [
        (name, environment.get(key))
        for name, key in (
            ("program, when trained", "version"),
            ("commit", "commit"),
            ("Python", "python"),
            ("platform", "platform"),
        )
    ]
    packages = [(name, version) for name, version in environment.get("packages", {}).items()]
    rows = [*trained, *packages, ("program, of this page", __version__)]
    return [(name, value) for name, value in rows if value]
