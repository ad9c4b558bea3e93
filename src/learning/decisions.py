"""Calibration, thresholds and coverage: fit them on validation, and put them into a card."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from src.learning.calibration import Calibration, fit_calibration
from src.learning.checkpoints import FittedOn, LogitScale, ModelCard
from src.learning.conformal import Conformal, CoverageLimits, fit_limits, measure_coverage
from src.learning.predictions import Predictions
from src.learning.results import CalibrationSummary, ClassLimits, CoverageSummary, ThresholdSummary
from src.learning.thresholds import ThresholdRule, Thresholds, choose_thresholds
from src.processed.targets import LabelledRecords

logger = logging.getLogger(__name__)

Fit = Calibration | Thresholds | Conformal
"""What is fitted on validation and applied to predictions."""


def fit_decisions(
    validation: Predictions,
    *,
    calibrate: bool,
    rule: ThresholdRule | None,
    coverage: float | None = None,
    patients: Sequence[str] = (),
) -> tuple[Fit, ...]:
    """Fit a calibration, then thresholds and limits of coverage for the calibrated probabilities.

    Parameters
    ----------
    validation
        Predictions for records that neither train nor test.
    calibrate
        Fit a calibration.
    rule
        Choose thresholds by it; None chooses none.
    coverage
        Fit limits for it; None fits none.
    patients
        The patient of each record, which limits need; empty means one each.

    Returns
    -------
    tuple
        What was fitted, in the order in which it applies.
    """
    fits: list[Fit] = []
    if calibrate:
        calibration = fit_calibration(validation)
        fits.append(calibration)
        validation = calibration.apply(validation)
    if rule is not None:
        fits.append(choose_thresholds(validation, rule))
    if coverage is not None:
        fits.append(fit_limits(validation, patients or validation.keys, coverage))
    return tuple(fits)


def put_into_card(
    card: ModelCard, fits: tuple[Fit, ...], records: LabelledRecords, split: str
) -> ModelCard:
    """Return the card of a model with what was fitted to its predictions.

    A calibration comes on top of the one that the card has, since its probabilities were fitted to.
    Thresholds and limits that are not fitted anew move with the probabilities. A temperature
    changes the order of records within a class, so that limits are dropped.

    Parameters
    ----------
    card
        The card that the predictions were made with.
    fits
        Of `fit_decisions`.
    records, split
        What they were fitted on.
    """
    datasets = tuple(dict.fromkeys(records.datasets))
    for fit in fits:
        if isinstance(fit, Calibration):
            chosen_on = FittedOn(fit.method, split, len(records), datasets, fit.unchanged)
            card = replace(
                card,
                calibration=_compose(card.calibration, fit),
                calibration_on=chosen_on,
                thresholds=_move(card, fit),
            )
            is_refitted = any(isinstance(later, Conformal) for later in fits)
            card = _move_coverage(card, fit, is_refitted)
        elif isinstance(fit, Conformal):
            chosen_on = _describe_limits(fit, split, len(records), datasets)
            card = replace(card, coverage=fit.limits, coverage_on=chosen_on)
        else:
            chosen_on = FittedOn(str(fit.rule), split, len(records), datasets, fit.unchanged)
            values = tuple(fit.values.tolist())
            card = replace(card, thresholds=values, thresholds_on=chosen_on)
    return card


def _compose(first: LogitScale | None, second: Calibration) -> LogitScale:
    """Return the calibration of logits that does both, one after the other."""
    slope, intercept = second.slope, second.intercept
    if first is not None:
        intercept = np.array(first.intercept) * slope + intercept
        slope = np.array(first.slope) * slope
    return LogitScale(tuple(slope.tolist()), tuple(intercept.tolist()))


def _move(card: ModelCard, calibration: Calibration) -> tuple[float, ...]:
    """Return the thresholds of a card for calibrated probabilities."""
    if card.single_label or not card.thresholds:
        return card.thresholds
    return tuple(calibration.map_scores(np.array(card.thresholds)).tolist())


def _describe_limits(
    fit: Conformal, split: str, n_records: int, datasets: tuple[str, ...]
) -> FittedOn:
    method = f"coverage {fit.limits.coverage:g}"
    return FittedOn(method, split, n_records, datasets, fit.undecided)


def _move_coverage(card: ModelCard, calibration: Calibration, is_refitted: bool) -> ModelCard:
    """Return a card with its limits of coverage for calibrated probabilities."""
    if card.coverage is None:
        return card
    if card.single_label:
        if not is_refitted:
            logger.warning("the limits of coverage are dropped: --coverage fits them anew")
        return replace(card, coverage=None, coverage_on=None)
    return replace(card, coverage=card.coverage.move(calibration.map_scores))


# What a card says ---------------------------------------------------------------------------------


def summarize_thresholds(card: ModelCard, predictions: Predictions) -> ThresholdSummary | None:
    """Return how the thresholds of predictions were chosen, if the card says it."""
    chosen_on, thresholds = card.thresholds_on, predictions.thresholds
    if chosen_on is None or thresholds is None:
        return None
    return {
        "rule": chosen_on.method,
        "values": dict(zip(card.classes, thresholds.tolist(), strict=True)),
        "unchanged": list(chosen_on.unchanged),
        "learned_on": chosen_on.split,
        "n_records": chosen_on.n_records,
        "datasets": list(chosen_on.datasets),
    }


def summarize_calibration(card: ModelCard) -> CalibrationSummary | None:
    """Return the calibration of a card and how it was chosen, if the card says it."""
    scale, chosen_on = card.calibration, card.calibration_on
    if scale is None or chosen_on is None:
        return None
    summary: CalibrationSummary = {
        "method": chosen_on.method,
        "learned_on": chosen_on.split,
        "n_records": chosen_on.n_records,
        "datasets": list(chosen_on.datasets),
    }
    if card.single_label:
        summary["temperature"] = 1 / scale.slope[0]
        return summary
    pairs = zip(card.classes, scale.slope, scale.intercept, strict=True)
    summary["values"] = {
        name: {"slope": slope, "intercept": intercept} for name, slope, intercept in pairs
    }
    summary["unchanged"] = list(chosen_on.unchanged)
    return summary


def summarize_coverage(
    limits: CoverageLimits,
    predictions: Predictions,
    groups: Mapping[str, Mapping[str, NDArray[np.bool_]]],
    fitted_on: FittedOn,
) -> CoverageSummary:
    """Return limits, what they were fitted on, and the coverage of other records.

    Parameters
    ----------
    limits
        The limits.
    predictions
        Of the records to measure.
    groups
        As for `src.learning.conformal.measure_coverage`.
    fitted_on
        What the limits were fitted on.
    """
    absent_to = limits.absent_to or (None,) * len(predictions.classes)
    of_class: dict[str, ClassLimits] = {}
    for name, low, high in zip(predictions.classes, limits.present_from, absent_to, strict=True):
        of_class[name] = {"present_from": low, "absent_to": high}
    return {
        "level": limits.coverage,
        "learned_on": fitted_on.split,
        "n_fitted_on": fitted_on.n_records,
        "datasets": list(fitted_on.datasets),
        "undecided": list(fitted_on.unchanged),
        "limits": of_class,
        **measure_coverage(predictions, limits, groups),
    }
