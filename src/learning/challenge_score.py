"""Scores of the PhysioNet/CinC Challenges 2020 and 2021, with the user's copy of ``weights.csv``.

Reyna et al., Will Two Do? Varying Dimensions in Electrocardiography: The PhysioNet/Computing in
Cardiology Challenge 2021, Computing in Cardiology 2021. Unlike the other metrics these have no
missing annotations: a label or output that is not there counts as absent.
"""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.labels.crosswalk import load_crosswalk
from src.labels.text_tables import read_text
from src.learning.metrics import Ranking, mean_defined, none_for_nan
from src.learning.predictions import Predictions
from src.learning.results import ChallengeClassScores, ChallengeScores
from src.utils import Float64Array, printable

logger = logging.getLogger(__name__)

Bools = NDArray[np.bool_]

_MAX_BYTES = 2**20  # the published table has 6 kB
SINUS_RHYTHM = "426783006"
"""SNOMED CT code of the class that the inactive model always predicts."""


# The table of weights -----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class WeightTable:
    """The scored classes and the rewards of predictions.

    Attributes
    ----------
    names
        Header cells of the table: a SNOMED CT code, or several that count as the same class,
        separated by ``|``.
    weights
        Reward of predicting the column's class where the row's is true, shape (n_scored, n_scored).
    """

    names: tuple[str, ...]
    weights: Float64Array

    @classmethod
    def load(cls, path: str | Path) -> WeightTable:
        """Read ``weights.csv`` as published with the evaluation code of the Challenge 2021.

        Raises
        ------
        ValueError
            If it is missing or no such table; the message names the file.
        """
        try:
            lines = io.StringIO(read_text(Path(path), _MAX_BYTES), newline="")
            rows = [[cell.strip() for cell in row] for row in csv.reader(lines) if row]
        except (ValueError, csv.Error) as error:
            problem = printable(str(error).removeprefix(f"{path}: "))
            raise ValueError(
                f"{path}: cannot be read ({problem}); give the Challenge's weights.csv"
            ) from None
        if not rows:
            raise ValueError(f"{path}: is empty; give the Challenge's weights.csv")
        header, *rows = rows
        names = tuple(header[1:])
        if tuple(row[0] for row in rows) != names or any(len(row) != len(header) for row in rows):
            raise ValueError(
                f"{path}: expected a square table with the same codes in the first row and the "
                "first column"
            )
        try:
            weights = np.array([[float(cell) for cell in row[1:]] for row in rows])
        except ValueError as error:
            raise ValueError(f"{path}: {printable(str(error))}; expected numbers") from None
        codes = [code for name in names for code in name.split("|")]
        if len(set(codes)) < len(codes) or SINUS_RHYTHM not in codes:
            raise ValueError(
                f"{path}: expected each code once, and {SINUS_RHYTHM} (sinus rhythm) among them"
            )
        return cls(names, weights)

    def columns_of(self, label: str) -> tuple[int, ...]:
        """Return the positions of the scored classes of a SNOMED CT code or crosswalk class.

        Mostly there is one or none.
        """
        codes = {label} | _scored_codes_by_class().get(label, set())
        return tuple(i for i, name in enumerate(self.names) if codes & set(name.split("|")))


def _scored_codes_by_class() -> dict[str, set[str]]:
    """Return class of the crosswalk -> its SNOMED CT codes that are scored."""
    return {row.name: set(row.scored) for row in load_crosswalk()}


# From predictions ---------------------------------------------------------------------------------


def compute_challenge_scores(
    predictions: Predictions, table: WeightTable, labels: Sequence[Iterable[str]] | None = None
) -> ChallengeScores:
    """Score predictions as the Challenge does.

    Parameters
    ----------
    predictions
        Classes named by SNOMED CT code or as in the crosswalk; others take no part. Several classes
        that the table counts as one are predicted if any of them is, and their probabilities are
        averaged.
    table
        Scored classes and weights.
    labels
        Labels of each record, including those that the model does not know. None takes them from
        `predictions`; the scores are then comparable only if the model knows all scored classes.

    Returns
    -------
    ChallengeScores
        ``challenge_score``, ``auroc``, ``auprc``, ``accuracy`` (share of records without an error),
        ``f_measure``, and from the Challenge 2020 ``f2_measure`` and ``g2_measure``; ``per_class``:
        header cell -> auroc, auprc, f_measure. Means are over the classes that have the value.

    Raises
    ------
    ValueError
        If no class of the predictions is scored, or `labels` has another length.
    """
    columns_of_class = [table.columns_of(name) for name in predictions.classes]
    if not any(columns_of_class):
        raise ValueError(
            f"none of the classes {', '.join(predictions.classes)} is scored by the Challenge: "
            "expected SNOMED CT codes or classes of the crosswalk, as labels challenge --classes "
            "challenge2021 gives"
        )
    pairs = zip(predictions.classes, columns_of_class, strict=True)
    if unscored := [name for name, columns in pairs if not columns]:
        logger.info("the Challenge does not score %s", ", ".join(unscored))

    # Scored classes that the model does not know stay absent, with a probability of 0
    y_pred = predictions.y_pred
    shape = (len(predictions.keys), len(table.names))
    predicted, scores = np.zeros(shape, bool), np.zeros(shape)
    for column in range(len(table.names)):
        members = [i for i, columns in enumerate(columns_of_class) if column in columns]
        if members:
            predicted[:, column] = (y_pred[:, members] == 1).any(axis=1)
            scores[:, column] = predictions.y_score[:, members].mean(axis=1)
    return score_outputs(_encode_labels(predictions, table, labels), predicted, scores, table)


def _encode_labels(
    predictions: Predictions, table: WeightTable, labels: Sequence[Iterable[str]] | None
) -> Bools:
    """Return which scored classes are true, (n_records, n_scored)."""
    if labels is None:
        labels = [
            [predictions.classes[i] for i in np.flatnonzero(row == 1)] for row in predictions.y_true
        ]
    if len(labels) != len(predictions.keys):
        raise ValueError(
            f"labels of {len(labels)} records for {len(predictions.keys)} predictions: expected as "
            "many"
        )
    # Cached, as many records share few labels
    columns_of = cache(table.columns_of)
    truth = np.zeros((len(labels), len(table.names)), bool)
    for row, labels_of_record in enumerate(labels):
        truth[row, list(chain.from_iterable(map(columns_of, labels_of_record)))] = True
    return truth


# Scores -------------------------------------------------------------------------------------------


def score_outputs(
    truth: Bools, predicted: Bools, scores: Float64Array, table: WeightTable
) -> ChallengeScores:
    """Return the scores of labels, decisions and probabilities, each (n_records, n_scored).

    See `compute_challenge_scores`.
    """
    n_scored = truth.shape[1]
    auroc, auprc = np.empty(n_scored), np.empty(n_scored)
    for i in range(n_scored):
        ranking = Ranking.of(truth[:, i], scores[:, i])
        auroc[i], auprc[i] = ranking.auroc()[0], ranking.average_precision()[0]
    # Without a negative every prediction is right
    auprc[truth.all(axis=0)] = 1.0
    f1 = f_measure(truth, predicted)
    f2 = f_measure(truth, predicted, beta=2, share_records=True)
    g2 = g_measure(truth, predicted, beta=2, share_records=True)
    per_class: dict[str, ChallengeClassScores] = {}
    for i, name in enumerate(table.names):
        per_class[name] = {
            "auroc": none_for_nan(auroc[i]),
            "auprc": none_for_nan(auprc[i]),
            "f_measure": none_for_nan(f1[i]),
        }
    return {
        "challenge_score": challenge_score(truth, predicted, table),
        "auroc": mean_defined(auroc),
        "auprc": mean_defined(auprc),
        "accuracy": float((truth == predicted).all(axis=1).mean()),
        "f_measure": mean_defined(f1),
        "f2_measure": mean_defined(f2),
        "g2_measure": mean_defined(g2),
        "n_records": len(truth),
        "per_class": per_class,
    }


def challenge_score(truth: Bools, predicted: Bools, table: WeightTable) -> float:
    """Return the weighted score of decisions: 1 for the true labels, 0 for the inactive model.

    Each pair of a true and a predicted class earns its weight, divided by the number of classes
    that are true or predicted in the record.

    Parameters
    ----------
    truth, predicted
        Shape (n_records, n_scored).
    table
        Scored classes and weights.
    """

    def reward(decisions: Bools) -> float:
        n_classes = np.maximum((truth | decisions).sum(axis=1, keepdims=True), 1)
        # (n_scored, n_scored): how often the column's class is predicted where the row's is true
        confusion = (truth / n_classes).T @ decisions
        return float(np.nansum(table.weights * confusion))

    inactive = np.zeros_like(truth)
    inactive[:, table.columns_of(SINUS_RHYTHM)] = True
    observed, correct, least = reward(predicted), reward(truth), reward(inactive)
    # Records of sinus rhythm alone leave nothing to gain over the inactive model
    return (observed - least) / (correct - least) if correct != least else 0.0


def f_measure(
    truth: Bools, predicted: Bools, beta: float = 1.0, *, share_records: bool = False
) -> Float64Array:
    """Return F-beta of each class, (n_classes,), NaN where it is neither true nor predicted.

    Parameters
    ----------
    truth, predicted
        Shape (n_records, n_classes).
    beta
        Weight of recall, where precision has 1.
    share_records
        Divide each record among its true labels, as the Challenge 2020 does for its F2 and G2.
    """
    hits, false_alarms, misses = _count_outcomes(truth, predicted, share_records)
    return _divide((1 + beta**2) * hits, (1 + beta**2) * hits + false_alarms + beta**2 * misses)


def g_measure(
    truth: Bools, predicted: Bools, beta: float = 1.0, *, share_records: bool = False
) -> Float64Array:
    """Return G-beta of each class, a weighted Jaccard index, (n_classes,).

    It is hits / (hits + false alarms + beta misses). Parameters and NaN are as for `f_measure`.
    """
    hits, false_alarms, misses = _count_outcomes(truth, predicted, share_records)
    return _divide(hits, hits + false_alarms + beta * misses)


def _count_outcomes(
    truth: Bools, predicted: Bools, share_records: bool
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Return hits, false alarms and misses of each class."""
    weights = 1 / np.maximum(truth.sum(axis=1), 1) if share_records else np.ones(len(truth))
    hits = weights @ (truth & predicted)
    false_alarms = weights @ (~truth & predicted)
    misses = weights @ (truth & ~predicted)
    return hits, false_alarms, misses


def _divide(part: Float64Array, whole: Float64Array) -> Float64Array:
    """Divide, giving NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)
