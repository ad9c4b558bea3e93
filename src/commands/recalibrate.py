"""Recalibrate a checkpoint: fit what it decides by on records of another collection."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from src.eval import predict_records, require_one, split_records
from src.learning.checkpoints import Checkpoint, ModelCard, load_checkpoint, save_checkpoint
from src.learning.decisions import fit_decisions, put_into_card
from src.learning.leaks import refuse_to_fit_on
from src.learning.predictions import DEFAULT_THRESHOLD, Predictions
from src.learning.text import format_table
from src.learning.thresholds import ThresholdRule
from src.processed.mirror import local_copy


def recalibrate(
    checkpoint: str | Path | Checkpoint,
    processed: str | Path,
    out: str | Path,
    *,
    split: str = "val",
    thresholds: str | None = None,
    coverage: float | None = None,
    batch_size: int = 64,
    device: str = "cpu",
) -> ModelCard:
    """Write a checkpoint whose probabilities and decisions fit the records of a split.

    Parameters
    ----------
    checkpoint
        The checkpoint; it stays as it is.
    processed
        The folder that preprocessing filled.
    out
        The checkpoint to write.
    split
        The split to fit on: val or train.
    thresholds
        ``f1``, ``sensitivity=X`` or ``none``; by default f1 with several labels per record, and
        none with one, where the most probable class is predicted.
    coverage
        Fit limits of coverage, such as 0.9; by default those of the checkpoint are fitted anew, if
        it has some.
    batch_size, device
        Records at a time, and the torch device that predicts them.

    Returns
    -------
    ModelCard
        The card of the new checkpoint. Classes without a positive or without a negative record stay
        as they were; it names them.

    Raises
    ------
    ValueError
        If the split is the test split, is empty, or holds recordings that the network was trained
        on; if nothing can be fitted to it; or if several checkpoints are given.
    """
    if split == "test":
        raise ValueError(
            "split is 'test': expected val or train, as numbers from the records that thresholds "
            "were chosen on say nothing"
        )
    loaded = load_checkpoint(checkpoint)
    require_one(loaded)
    card = loaded.card
    if thresholds is None:
        thresholds = "none" if card.single_label else "f1"
    rule = ThresholdRule.parse(thresholds)
    if coverage is None and card.coverage is not None:
        coverage = card.coverage.coverage
    processed = local_copy(processed)
    records = split_records(loaded, processed, split)
    refuse_to_fit_on(card.train_hashes, records, split)
    predictions = predict_records(loaded, records, batch_size=batch_size, device=device)
    _require_both_outcomes(predictions, split)
    fits = fit_decisions(
        predictions, calibrate=True, rule=rule, coverage=coverage, patients=records.patients
    )
    card = put_into_card(card, fits, records, split)
    save_checkpoint(out, card, loaded.weights, loaded.state, loaded.reference)
    return card


def _require_both_outcomes(predictions: Predictions, split: str) -> None:
    """Refuse records of which every class has positives or negatives only."""
    y_true = predictions.y_true
    has_both = (y_true == 1).any(axis=0) & (y_true == 0).any(axis=0)
    if not has_both.any():
        raise ValueError(
            f"no class has records with and records without it among the {len(y_true)} records of "
            f"split {split}: nothing can be fitted"
        )


def describe_decisions(card: ModelCard) -> str:
    """Return calibration, thresholds and limits of a card as a table, and what they come from."""
    lines = []
    for name, chosen_on in (
        ("calibration", card.calibration_on),
        ("thresholds", card.thresholds_on),
        ("limits", card.coverage_on),
    ):
        if chosen_on is not None:
            lines.append(f"{name}: {chosen_on}")
            if chosen_on.unchanged:
                remark = "without a positive or a negative record, as before"
                if chosen_on is card.coverage_on:
                    remark = "too few patients to exclude an answer"
                lines.append(f"  {remark}: {', '.join(chosen_on.unchanged)}")
    scale = card.calibration
    if scale is not None:
        thresholds = card.thresholds or (DEFAULT_THRESHOLD,) * len(card.classes)
        rows = [["class", "slope", "intercept", "threshold"]]
        for name, *values in zip(
            card.classes, scale.slope, scale.intercept, thresholds, strict=True
        ):
            rows.append([name, *(f"{value:.3f}" for value in np.array(values).tolist())])
        if card.single_label:
            # The most probable class is predicted, so there is no threshold to show.
            rows = [row[:-1] for row in rows]
        lines.append(format_table(rows))
    return "\n".join(lines)
