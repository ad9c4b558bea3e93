"""Training runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from src.utils import load_json


def compare_runs(runs: list[str | Path]) -> list[dict[str, Any]]:
    """Return one row per run from its ``training_log.json``, and every ``metrics_<split>.json``
    that it has.

    Raises
    ------
    ValueError
        If a run has no log, or its files are not as train and evaluate write them.
    """
    rows = []
    for run in map(Path, runs):
        if not (run / "training_log.json").exists():
            raise ValueError(
                f"{run}: no training_log.json here; expected the folder of a training run"
            )
        try:
            rows.append(_run_row(run))
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{run}: its logs are not as train and evaluate write them ({error!r})"
            ) from None
    return rows


def _run_row(run: Path) -> dict[str, Any]:
    log = load_json(run / "training_log.json")
    row = {
        "run": run.name,
        "epochs": len(log["history"]),
        "best_epoch": log["best_epoch"],
        log["best_metric_name"]: log["best_metric"],
    }
    row["minutes"] = round(sum(epoch["seconds"] for epoch in log["history"]) / 60, 2)
    for path in sorted(run.glob("metrics_*.json")):
        metrics = load_json(path)
        split = path.stem.removeprefix("metrics_")
        row |= {
            f"{split}_{name}": metrics[name] for name in ("f1_macro", "auroc_macro", "accuracy")
        }
    return row
