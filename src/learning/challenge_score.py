"""The scores of the PhysioNet/CinC Challenges 2020 and 2021 on predictions, with the user's copy of
``weights.csv``.

Reyna et al., Will Two Do? Varying Dimensions in Electrocardiography: The PhysioNet/Computing in
Cardiology Challenge 2021, Computing in Cardiology 2021. Unlike the other metrics these know no
missing annotation: what is not there counts as absent, for labels and for outputs.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.labels.crosswalk import load_crosswalk
from src.learning.metrics import Ranking, mean_defined
from src.learning.predictions import Predictions
from src.utils import Float64Array

logger = logging.getLogger(__name__)


Bools = NDArray[np.bool_]

SINUS_RHYTHM = "426783006"
"""SNOMED CT code of the class that the inactive model always answers."""


@dataclass(frozen=True, eq=False)
class WeightTable:
    """The scored classes, each one SNOMED CT code or several that count as the same, and the
    rewards.

    Attributes
    ----------
    names
        Header cells of the table, equivalent codes separated by ``|``.
    weights
        Reward of answering the column's class where the row's is true, shape (n_scored, n_scored).
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
            with open(path, newline="", encoding="utf-8-sig") as stream:
                header, *rows = [
                    [cell.strip() for cell in row] for row in csv.reader(stream) if row
                ]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise ValueError(
                f"{path}: cannot be read ({error}); give the Challenge's weights.csv"
            ) from None
        except ValueError:
            raise ValueError(f"{path}: is empty; give the Challenge's weights.csv") from None
        names = tuple(header[1:])
        if tuple(row[0] for row in rows) != names or any(len(row) != len(header) for row in rows):
            raise ValueError(
                f"{path}: expected a square table with the same codes in the first row "
                "and the first column"
            )
        try:
            weights = np.array([[float(cell) for cell in row[1:]] for row in rows])
        except ValueError as error:
            raise ValueError(f"{path}: {error}; expected numbers") from None
        table = cls(names, weights)
        codes = [code for name in names for code in name.split("|")]
        if len(set(codes)) < len(codes) or SINUS_RHYTHM not in codes:
            raise ValueError(
                f"{path}: expected each code once, and {SINUS_RHYTHM} (sinus rhythm) among them"
            )
        return table

    def columns_of(self, label: str) -> tuple[int, ...]:
        """Return the positions of the scored classes that a SNOMED CT code or a crosswalk class
        means, mostly one or none.
        """
        codes = {label} | _scored_codes().get(label, set())
        return tuple(i for i, name in enumerate(self.names) if codes & set(name.split("|")))


def _scored_codes() -> dict[str, set[str]]:
    """Return class of the crosswalk -> its SNOMED CT codes that are scored."""
    return {row.name: set(row.scored) for row in load_crosswalk()}


# From predictions ---------------------------------------------------------------------------------


def compute_challenge_scores(
    predictions: Predictions, table: WeightTable, labels: Sequence[Iterable[str]] | None = None
) -> dict[str, Any]:
    """Score predictions as the Challenge does.

    Parameters
    ----------
    predictions
        Classes named by SNOMED CT code or as in the crosswalk; others take no part. Of several
        classes that the table counts as one, any may be called and the probabilities are averaged.
    table
        Scored classes and weights.
    labels
        Labels of each record, with those that the model does not know; None takes them from
        `predictions`, which then must know all scored classes for the scores to be comparable.

    Returns
    -------
    dict
        ``challenge_score``, ``auroc``, ``auprc``, ``accuracy`` (share of records without an error),
        ``f_measure``, and from the Challenge 2020 ``f2_measure`` and ``g2_measure``; ``per_class``:
        header cell -> auroc, auprc, f_measure. Means are over the classes that have the value.

    Raises
    ------
    ValueError
        If no class of the predictions is scored, or `labels` has another length.
    """
    places = [table.columns_of(name) for name in predictions.classes]
    if not any(places):
        raise ValueError(
            f"none of the classes {', '.join(predictions.classes)} is scored by the "
            "Challenge: expected SNOMED CT codes or "
            "classes of the crosswalk, as labels challenge --classes challenge2021 gives"
        )
    if unscored := [
        name for name, place in zip(predictions.classes, places, strict=True) if not place
    ]:
        logger.info("the Challenge does not score %s", ", ".join(unscored))
    n_scored = len(table.names)
    called, scores = (
        np.zeros((len(predictions.keys), n_scored), bool),
        np.zeros((len(predictions.keys), n_scored)),
    )
    for column in range(n_scored):
        members = [i for i, place in enumerate(places) if column in place]
        if members:
            called[:, column] = (predictions.y_pred[:, members] == 1).any(axis=1)
            scores[:, column] = predictions.y_score[:, members].mean(axis=1)
    return score_outputs(_encode_labels(predictions, table, labels), called, scores, table)


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
            f"labels of {len(labels)} records for {len(predictions.keys)} predictions: "
            "expected as many"
        )
    places: dict[str, list[int]] = {
        name: list(table.columns_of(name)) for name in {n for names in labels for n in names}
    }
    truth = np.zeros((len(labels), len(table.names)), bool)
    for row, names in enumerate(labels):
        truth[row, [column for name in names for column in places[name]]] = True
    return truth


# The scores ---------------------------------------------------------------------------------------


def score_outputs(
    truth: Bools, called: Bools, scores: Float64Array, table: WeightTable
) -> dict[str, Any]:
    """Return the scores of labels, decisions and probabilities, each (n_records, n_scored); see
    `compute_challenge_scores`.
    """
    rankings = [Ranking.of(t, s) for t, s in zip(truth.T, scores.T, strict=True)]
    auroc = np.array([ranking.auroc()[0] for ranking in rankings])
    auprc = np.array([ranking.average_precision()[0] for ranking in rankings])
    auprc[truth.all(axis=0)] = 1.0  # positives only: every call is right
    f1 = f_measure(truth, called)
    columns = {"auroc": auroc, "auprc": auprc, "f_measure": f1}
    rows = [
        {name: mean_defined(values[i : i + 1]) for name, values in columns.items()}
        for i in range(len(f1))
    ]
    return {
        "challenge_score": challenge_score(truth, called, table),
        "auroc": mean_defined(auroc),
        "auprc": mean_defined(auprc),
        "accuracy": float((truth == called).all(axis=1).mean()),
        "f_measure": mean_defined(f1),
        "f2_measure": mean_defined(f_measure(truth, called, beta=2, share_records=True)),
        "g2_measure": mean_defined(g_measure(truth, called, beta=2, share_records=True)),
        "n_records": len(truth),
        "per_class": dict(zip(table.names, rows, strict=True)),
    }


def challenge_score(truth: Bools, called: Bools, table: WeightTable) -> float:
    """Return the weighted score of decisions: 1 for the true labels, 0 for the inactive model.

    Each pair of a true and a called class earns its weight, divided by the number of classes that
    are true or called in the record.

    Parameters
    ----------
    truth, called
        Shape (n_records, n_scored).
    table
        Scored classes and weights.
    """
    inactive = np.zeros_like(truth)
    inactive[:, table.columns_of(SINUS_RHYTHM)] = True

    def total(answers: Bools) -> float:
        size = np.maximum((truth | answers).sum(axis=1, keepdims=True), 1)
        return float(np.nansum(table.weights * ((truth / size).T @ answers)))

    observed, correct, nothing = total(called), total(truth), total(inactive)
    return (observed - nothing) / (correct - nothing) if correct != nothing else 0.0


def f_measure(
    truth: Bools, called: Bools, beta: float = 1.0, *, share_records: bool = False
) -> Float64Array:
    """Return F-beta of each class, (n_classes,), NaN where a class is neither true nor called.

    Parameters
    ----------
    truth, called
        Shape (n_records, n_classes).
    beta
        How much more recall weighs than precision.
    share_records
        Divide each record among its true labels, as the Challenge 2020 does for its F2 and G2.
    """
    hits, false_alarms, misses = _count(truth, called, share_records)
    return _divide((1 + beta**2) * hits, (1 + beta**2) * hits + false_alarms + beta**2 * misses)


def g_measure(
    truth: Bools, called: Bools, beta: float = 1.0, *, share_records: bool = False
) -> Float64Array:
    """Return G-beta of each class, hits / (hits + false alarms + beta misses), a weighted Jaccard
    index.

    Parameters as for `f_measure`, as are shape and NaN.
    """
    hits, false_alarms, misses = _count(truth, called, share_records)
    return _divide(hits, hits + false_alarms + beta * misses)


def _count(
    truth: Bools, called: Bools, share_records: bool
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Return hits, false alarms and misses of each class."""
    weights = 1 / np.maximum(truth.sum(axis=1), 1) if share_records else np.ones(len(truth))
    return weights @ (truth & called), weights @ (~truth & called), weights @ (truth & ~called)


def _divide(part: Float64Array, whole: Float64Array) -> Float64Array:
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)
