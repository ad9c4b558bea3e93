"""A table of training runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from src.learning.run_files import load_metrics, load_training_log

RunRow = dict[str, str | int | float | None]
"""Column -> value of one run."""

_METRICS: tuple[Literal["f1_macro", "auroc_macro", "accuracy"], ...] = (
    "f1_macro",
    "auroc_macro",
    "accuracy",
)


def compare_runs(runs: Sequence[str | Path]) -> list[RunRow]:
    """Return a row per run, from its ``training_log.json`` and every ``metrics_<split>.json``.

    Raises
    ------
    ValueError
        If a run has no log, or train and evaluate did not write its files.
    """
    rows = []
    for run in map(Path, runs):
        if not (run / "training_log.json").exists():
            raise ValueError(
                f"{run}: no training_log.json here; expected the folder of a training run"
            )
        rows.append(_build_row(run))
    return rows


def _build_row(run: Path) -> RunRow:
    log = load_training_log(run / "training_log.json")
    seconds = sum(epoch.get("seconds", 0) for epoch in log["history"])
    row: RunRow = {
        "run": run.name,
        "epochs": len(log["history"]),
        "best_epoch": log.get("best_epoch"),
        log.get("best_metric_name", "best_metric"): log.get("best_metric"),
        "minutes": round(seconds / 60, 2),
    }
    for path in sorted(run.glob("metrics_*.json")):
        metrics = load_metrics(path)
        split = path.stem.removeprefix("metrics_")
        for name in _METRICS:
            row[f"{split}_{name}"] = metrics.get(name)
    return row
