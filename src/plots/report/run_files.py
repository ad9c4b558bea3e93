"""The inputs of a report: the files of a run and of its processed folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.config import SPLIT_NAMES
from src.labels.text_tables import plain_cell, read_table
from src.learning.predictions import Predictions
from src.learning.results import StressTable
from src.learning.run_files import RunLog, load_metrics, load_stress, load_training_log
from src.processed.manifest import load_manifest
from src.processed.mirror import local_copy
from src.processed.record_files import record_keys
from src.utils import load_json, project_paths

if TYPE_CHECKING:
    import pandas as pd


Results = Mapping[str, Any]
"""Content of a ``metrics_*.json``, or of a part of it, as `compute_evaluation` returned it."""

ISSUES_FILE = "label_issues.csv"
"""File in a run's folder that label-issues may have written."""
ISSUE_COLUMNS = ("dataset", "record_id", "class", "given", "probability", "score", "suggestion")

_SPLIT_ORDER = SPLIT_NAMES[::-1]
"""Order of evaluations in the report: the test split first."""


@dataclass(frozen=True, eq=False)
class SplitEvaluation:
    """An evaluation of one set of records.

    Attributes
    ----------
    name
        Of the split, or of other records.
    metrics
        ``metrics_<name>.json``.
    predictions
        ``predictions_<name>.npz``, None where the file is missing.
    """

    name: str
    metrics: Results
    predictions: Predictions | None


@dataclass(frozen=True, eq=False)
class RunFiles:
    """A run and its data; missing files are None or empty.

    Attributes
    ----------
    name
        Of the run.
    run
        Its folder.
    log
        ``training_log.json``.
    evaluations
        Evaluations of the run: test, val, train, then others.
    stress
        ``stress_*.json``.
    issues
        The rows of ``label_issues.csv``, by column.
    processed
        The processed folder.
    manifest
        Its rows, with the record keys as index.
    splits
        ``splits.json``.
    preprocess
        ``preprocess_config.json``.
    """

    name: str
    run: Path
    log: RunLog
    evaluations: tuple[SplitEvaluation, ...]
    stress: tuple[StressTable, ...]
    issues: tuple[Mapping[str, str], ...]
    processed: Path | None
    manifest: pd.DataFrame | None
    splits: Mapping[str, object]
    preprocess: Mapping[str, object]

    @property
    def records(self) -> pd.DataFrame | None:
        """The rows of the manifest that became record files."""
        return None if self.manifest is None else self.manifest[self.manifest["status"] == "ok"]

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint that was evaluated if it still exists, else the run's best.

        There is none for predictions of another program, whatever lies in the folder.
        """
        # The run's best may have been trained anew since the evaluation
        paths = [self.run / "models" / "best.pth"]
        if self.evaluations:
            evaluated = self.evaluations[0].metrics.get("checkpoint")
            if self.evaluations[0].metrics.get("predictions"):
                return None
            if evaluated:
                paths.insert(0, Path(evaluated))
        return next((path for path in paths if path.is_file()), None)


def load_run(run: str | Path, processed: str | Path | None = None) -> RunFiles:
    """Read a run.

    Parameters
    ----------
    run
        The folder of a training run or of evaluations.
    processed
        The processed folder; by default ``processed`` in the run's folder or
        ``artifacts/processed``, whichever holds the evaluated records. Without one the report has
        no data sections.

    Raises
    ------
    ValueError
        If the run has neither a log nor metrics, a file is broken, or `processed` does not hold the
        records that were evaluated.
    """
    run = Path(run)
    log_path = run / "training_log.json"
    log: RunLog = load_training_log(log_path) if log_path.is_file() else {}
    metrics_paths = sorted(run.glob("metrics_*.json"), key=_order)
    evaluations = tuple(_load_evaluation(path) for path in metrics_paths)
    if not log and not evaluations:
        raise ValueError(
            f"{run}: neither training_log.json nor metrics_*.json is here; expected the folder "
            "of a run"
        )
    folder = _find_processed(run, evaluations) if processed is None else local_copy(processed)
    manifest = _load_rows(folder) if folder is not None else None
    if processed is not None and (manifest is None or not _holds(manifest, evaluations)):
        raise ValueError(
            f"{processed}: does not hold the records that {run} was evaluated on; expected "
            "the folder given to evaluate --processed"
        )
    return RunFiles(
        name=run.resolve().name,
        run=run,
        log=log,
        evaluations=evaluations,
        stress=tuple(load_stress(path) for path in sorted(run.glob("stress_*.json"))),
        issues=_load_issues(run / ISSUES_FILE),
        processed=folder,
        manifest=manifest,
        splits=_load_settings(folder, "splits.json"),
        preprocess=_load_settings(folder, "preprocess_config.json"),
    )


def _load_issues(path: Path) -> tuple[Mapping[str, str], ...]:
    """Return the suspicious labels that label-issues wrote into the run's folder, if it did."""
    if not path.is_file():
        return ()
    rows = read_table(path, ISSUE_COLUMNS).rows
    return tuple({name: plain_cell(row[name]) for name in ISSUE_COLUMNS} for row in rows)


def _evaluation_name(metrics_path: Path) -> str:
    return metrics_path.stem.removeprefix("metrics_")


def _order(metrics_path: Path) -> tuple[int, str]:
    """Return the place of an evaluation in the report; other records than splits come last."""
    name = _evaluation_name(metrics_path)
    if name in _SPLIT_ORDER:
        return _SPLIT_ORDER.index(name), name
    return len(_SPLIT_ORDER), name


def _load_evaluation(metrics_path: Path) -> SplitEvaluation:
    metrics = load_metrics(metrics_path)
    name = _evaluation_name(metrics_path)
    predictions_path = metrics_path.with_name(f"predictions_{name}.npz")
    predictions = Predictions.load(predictions_path) if predictions_path.is_file() else None
    return SplitEvaluation(name, metrics, predictions)


def _find_processed(run: Path, evaluations: Sequence[SplitEvaluation]) -> Path | None:
    """Return the usual folder that holds the evaluated records, None if neither does."""
    # Without predictions nothing tells whose folder artifacts/processed is
    candidates = [run / "processed"]
    if any(evaluation.predictions for evaluation in evaluations):
        candidates.append(project_paths().processed)
    for folder in candidates:
        rows = _load_rows(folder)
        if rows is not None and _holds(rows, evaluations):
            return folder
    return None


def _load_rows(processed: Path) -> pd.DataFrame | None:
    """Return the manifest with record keys as index, None without rows."""
    manifest = load_manifest(processed)
    if not len(manifest):
        return None
    return manifest.set_axis(record_keys(manifest).tolist())


def _holds(manifest: pd.DataFrame, evaluations: Sequence[SplitEvaluation]) -> bool:
    """Return whether a manifest holds all evaluated records."""
    keys: set[str] = set()
    for evaluation in evaluations:
        if evaluation.predictions:
            keys.update(evaluation.predictions.keys)
    return keys <= set(manifest.index[manifest["status"] == "ok"])


def _load_settings(folder: Path | None, name: str) -> dict[str, object]:
    if folder is None or not (folder / name).is_file():
        return {}
    values = load_json(folder / name)
    if not isinstance(values, dict):
        raise ValueError(f"{folder / name}: not as preprocess writes it (expected a table)")
    return values
