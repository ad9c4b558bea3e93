"""The sections on the training run: history, settings and versions, from the training log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from src import __version__
from src.config import Config, plain_value
from src.learning.run_files import RunLog
from src.plots.history import plot_training_history
from src.plots.report.content import (
    Block,
    Cell,
    Facts,
    Pictures,
    Section,
    Table,
    drop_empty_columns,
    number,
    text,
    whole,
)
from src.plots.report.page import picture
from src.plots.report.run_files import RunFiles
from src.utils import format_duration, to_jsonable

_FIGURE_CAPTION = "Losses, validation scores and learning rate; the best epoch is dotted"
_TRAINING_VERSIONS = {
    "program, in training": "version",
    "commit": "commit",
    "Python": "python",
    "platform": "platform",
}


def build_training_section(files: RunFiles) -> Section:
    """Return the training history, without blocks if there is none."""
    log = files.log
    history: Sequence[Mapping[str, Any]] = log.get("history", [])
    if not history:
        return Section("training", "Training")
    figure = plot_training_history(history, best_epoch=log.get("best_epoch"))
    names = [name for name in history[0] if name != "epoch"]
    rows = []
    for epoch in history:
        cells = [_history_cell(name, epoch.get(name)) for name in names]
        rows.append([whole(epoch["epoch"]), *cells])
    columns = ["epoch", *(name.replace("_", " ") for name in names)]
    table = drop_empty_columns(Table("Epochs", columns, rows, folded=len(rows) > 25))
    pictures = Pictures([picture(figure, "t", _FIGURE_CAPTION)])
    return Section("training", "Training", [Facts(_training_facts(log)), pictures, table])


def _training_facts(log: RunLog) -> list[tuple[str, Cell]]:
    history = log["history"]
    best_name = str(log.get("best_metric_name") or "best").replace("_", " ")
    n_parameters = f"{log['n_parameters']:,}" if "n_parameters" in log else None
    seconds = sum(epoch.get("seconds") or 0.0 for epoch in history)
    created = str(log.get("created", "")).replace("T", " ").replace("+00:00", " UTC")
    return [
        ("best epoch", text(f"{log.get('best_epoch')} of {len(history)}")),
        (best_name, number(log.get("best_metric"))),
        ("stopped", text(log.get("stopped"))),
        ("time", text(format_duration(seconds, minutes_from=120))),
        ("parameters", text(n_parameters)),
        ("records", text(f"{log.get('n_train', 0):,} train, {log.get('n_val', 0):,} val")),
        ("loss", text(log.get("loss"))),
        ("device", text(log.get("device", {}).get("device"))),
        ("mixed precision", text(log.get("amp"))),
        ("started", text(created)),
    ]


def _history_cell(name: str, value: float | None) -> Cell:
    if value is not None and name == "lr":
        return Cell(f"{value:.2e}", value)
    return number(value, 1 if name == "seconds" else 4)


# Settings -----------------------------------------------------------------------------------------


def build_settings_section(files: RunFiles) -> Section:
    """Return the settings, with the defaults that they differ from, and the versions."""
    blocks: list[Block] = []
    settings = _settings_rows(files)
    if settings:
        note = (
            "Settings of preprocess are those of the processed folder, the others those of the "
            "training run."
        )
        columns = ("section", "setting", "value", "default, if different")
        # What was changed tells this run from others, so it comes first
        settings.sort(key=lambda row: not row[-1].text)
        n_changed = sum(bool(row[-1].text) for row in settings)
        caption = f"Settings, {n_changed} changed"
        blocks.append(Table(caption, columns, settings, note, folded=True))
    versions = [[text(name), text(value)] for name, value in _versions(files.log)]
    blocks.append(Table("Versions", ("", "version"), versions))
    return Section("settings", "Settings and versions", blocks)


def _settings_rows(files: RunFiles) -> list[list[Cell]]:
    """Return a row for each setting that can change results: not those of machines or folders."""
    settings: dict[str, Mapping[str, object]] = {"preprocess": files.preprocess}
    for section in ("model", "train", "loader"):
        settings[section] = files.log.get("config", {}).get(section, {})
    defaults = to_jsonable(Config())
    rows = []
    for section, values in settings.items():
        for name, value in values.items():
            default = defaults.get(section, {}).get(name)
            changed_from = "" if value == default else plain_value(default)
            rows.append([text(section), text(name), text(plain_value(value)), Cell(changed_from)])
    return rows


def _versions(log: RunLog) -> list[tuple[str, object]]:
    """Return name and version of program, environment and packages, where they are known."""
    environment = log.get("environment", {})
    versions = [(label, environment.get(key)) for label, key in _TRAINING_VERSIONS.items()]
    versions += environment.get("packages", {}).items()
    versions.append(("program, for this page", __version__))
    return [(name, version) for name, version in versions if version]
