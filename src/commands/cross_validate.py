"""Cross-validation by patient: a network per fold, evaluated on the patients it did not see."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from src.commands.cross_fit import fit_parts, join_predictions
from src.config import Config
from src.eval import EvaluationOptions, compute_evaluation
from src.learning.predictions import Predictions
from src.learning.results import (
    SCORE_NAMES,
    CrossValidation,
    EvaluationMetrics,
    summarize_scores,
)
from src.learning.text import format_table
from src.processed.manifest import load_manifest, select_rows
from src.processed.mirror import local_copy
from src.processed.targets import join_records, load_records
from src.utils import format_number, save_json

PREDICTIONS_FILE = "predictions_cross_validation.npz"
METRICS_FILE = "metrics_cross_validation.json"


def run_cross_validation(
    config: Config,
    processed: str | Path,
    out: str | Path,
    *,
    folds: int = 5,
    intervals: int = 0,
    resume: bool = False,
) -> CrossValidation:
    """Train a network without each fold of the records, and evaluate it on that fold.

    Parameters
    ----------
    config
        Training settings of each network. The last epoch is used, as the records held back are
        those that are evaluated.
    processed
        The processed folder, or its URL. The records of train and val are used; those of test stay
        held back.
    out
        Gets ``predictions_cross_validation.npz`` and ``metrics_cross_validation.json``, and a run
        per fold, ``part_<number>``. Given as a checkpoint, it is all networks as one.
    folds
        Number of folds. The records of a patient, and copies of a recording, are never both trained
        on and evaluated by one network.
    intervals
        Bootstrap resamples of patients, for confidence intervals of the pooled scores; 0 gives
        none.
    resume
        Resume runs that were interrupted.

    Raises
    ------
    ValueError
        As `src.commands.cross_fit.run_cross_fit`.
    """
    processed = local_copy(processed)
    splits = load_records(processed, keep_other=config.train.keep_other)
    records = join_records([splits["train"], splits["val"]])
    if len(splits["val"]):
        # The packed cache is ordered by the usual splits, and each fold would need two of them.
        config = replace(config, loader=replace(config.loader, cache="off"))
    parts = list(fit_parts(config, records, out, parts=folds, resume=resume))
    pooled = join_predictions([part.predictions for part in parts])
    pooled.save(Path(out) / PREDICTIONS_FILE)

    def evaluate(predictions: Predictions, n_resamples: int = 0) -> EvaluationMetrics:
        if not config.train.keep_negative:
            has_class = (predictions.y_true == 1).any(axis=1)
            predictions = predictions.subset(np.flatnonzero(has_class))
        rows = select_rows(manifest, predictions.keys)
        return compute_evaluation(predictions, rows, EvaluationOptions(n_resamples))[1]

    manifest = load_manifest(processed)
    result: CrossValidation = {
        "folds": [summarize_scores(evaluate(part.predictions)) for part in parts],
        "checkpoints": [str(part.checkpoint) for part in parts],
        "pooled": evaluate(pooled, intervals),
    }
    save_json(result, Path(out) / METRICS_FILE)
    return result


def format_cross_validation(result: CrossValidation) -> str:
    """Return the scores of each fold, their mean and spread, and the pooled ones as a table."""
    table = [["fold", "records", *SCORE_NAMES]]
    for number, fold in enumerate(result["folds"], 1):
        scores = [format_number(fold[name]) for name in SCORE_NAMES]
        table.append([str(number), str(fold["n_records"]), *scores])
    for label, compute in (("mean", np.mean), ("deviation", np.std)):
        cells = []
        for name in SCORE_NAMES:
            values = [value for fold in result["folds"] if (value := fold[name]) is not None]
            cells.append(format_number(float(compute(values)) if values else None))
        table.append([label, "", *cells])
    pooled = summarize_scores(result["pooled"])
    scores = [format_number(pooled[name]) for name in SCORE_NAMES]
    table.append(["pooled", str(pooled["n_records"]), *scores])
    return format_table(table)
