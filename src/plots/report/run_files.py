"""What a report is written from: the files of a run and of the processed folder that it was made
on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.learning.predictions import Predictions
from src.processed.manifest import load_manifest
from src.processed.mirror import local_copy
from src.processed.record_files import record_keys
from src.processed.splits import SPLIT_NAMES
from src.utils import load_json, project_paths

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class SplitEvaluation:
    """What `evaluate` wrote of one set of records; `predictions` is None where only the numbers are
    there.
    """

    name: str
    metrics: dict[str, Any]
    predictions: Predictions | None


@dataclass(frozen=True, eq=False)
class RunFiles:
    """A run and its data; what is not there is None or empty.

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
    log: dict[str, Any]
    evaluations: tuple[SplitEvaluation, ...]
    processed: Path | None
    manifest: pd.DataFrame | None
    splits: dict[str, Any]
    preprocess: dict[str, Any]

    @property
    def records(self) -> pd.DataFrame | None:
        """The rows of the manifest that became record files."""
        return None if self.manifest is None else self.manifest[self.manifest["status"] == "ok"]

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint that was evaluated, where it is still there, else the run's best."""
        named = self.evaluations[0].metrics.get("checkpoint") if self.evaluations else None
        paths = [*([Path(named)] if named else []), self.run / "models" / "best.pth"]
        return next((path for path in paths if path.is_file()), None)


def load_run(run: str | Path, processed: str | Path | None = None) -> RunFiles:
    """Read a run.

    Parameters
    ----------
    run
        The folder of a training run or of evaluations.
    processed
        The processed folder; by default ``processed`` in the run's folder or
        ``artifacts/processed``, whichever holds the evaluated records. Without one the page says
        nothing of the data.

    Raises
    ------
    ValueError
        If the run has neither a log nor metrics, a file is broken, or `processed` does not hold the
        records that were evaluated.
    """
    run = Path(run)
    log_path = run / "training_log.json"
    log = load_json(log_path) if log_path.is_file() else {}
    evaluations = tuple(
        _load_evaluation(path) for path in sorted(run.glob("metrics_*.json"), key=_by_split)
    )
    if not log and not evaluations:
        raise ValueError(
            f"{run}: neither training_log.json nor metrics_*.json is here; expected the "
            "folder of a run"
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
        processed=folder,
        manifest=manifest,
        splits=_load_settings(folder, "splits.json"),
        preprocess=_load_settings(folder, "preprocess_config.json"),
    )


def _by_split(path: Path) -> tuple[int, str]:
    """Return the place of metrics in the page: the test split first."""
    name = path.stem.removeprefix("metrics_")
    return (SPLIT_NAMES[::-1].index(name) if name in SPLIT_NAMES else len(SPLIT_NAMES)), name


def _load_evaluation(path: Path) -> SplitEvaluation:
    name, metrics = path.stem.removeprefix("metrics_"), load_json(path)
    if (
        not isinstance(metrics, dict)
        or not {"per_class", "f1_macro", "n_records", "confusion_matrix"} <= metrics.keys()
    ):
        raise ValueError(
            f"{path}: not metrics as evaluate writes them; evaluate again, or take the file away"
        )
    predictions = path.with_name(f"predictions_{name}.npz")
    return SplitEvaluation(
        name, metrics, Predictions.load(predictions) if predictions.is_file() else None
    )


def _find_processed(run: Path, evaluations: tuple[SplitEvaluation, ...]) -> Path | None:
    """Return the usual folder that holds the evaluated records, None without predictions."""
    candidates = [run / "processed"]
    if any(item.predictions for item in evaluations):
        candidates.append(project_paths().processed)
    for folder in candidates:
        rows = _load_rows(folder)
        if rows is not None and _holds(rows, evaluations):
            return folder
    return None


def _load_rows(processed: Path) -> pd.DataFrame | None:
    """Return the manifest with record keys as index, or None where there is none."""
    manifest = load_manifest(processed)
    if not len(manifest):
        return None
    return manifest.set_axis(record_keys(manifest).tolist())


def _holds(manifest: pd.DataFrame, evaluations: tuple[SplitEvaluation, ...]) -> bool:
    keys = {key for item in evaluations if item.predictions for key in item.predictions.keys}
    return keys <= set(manifest.index[manifest["status"] == "ok"])


def _load_settings(folder: Path | None, name: str) -> dict[str, Any]:
    path = folder / name if folder is not None else None
    return dict(load_json(path)) if path is not None and path.is_file() else {}
