"""The areas below the ROC and the precision-recall curve, from one sort of the scores and for many
weightings at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Ranking:
    """The annotated records of one class in the order of their scores.

    Attributes
    ----------
    rows
        Positions of these records in the arrays that were ranked, by rising score, shape (n,).
    positive
        Their outcomes, shape (n,).
    starts
        Where each group of equal scores starts, shape (n_groups,).

    Notes
    -----
    A weighting counts each record so many times; a bootstrap resample is one. Shape (n_weightings,
    n_records) below is that of the arrays ranked, so that one weighting serves every class.
    """

    rows: NDArray[np.intp]
    positive: NDArray[np.bool_]
    starts: NDArray[np.intp]

    @classmethod
    def of(cls, y_true: ArrayLike, y_score: ArrayLike) -> Ranking:
        """Rank the scores (n_records,) of one class; records with the outcome NaN are left out."""
        outcome, score = np.asarray(y_true, np.float64), np.asarray(y_score, np.float64)
        known = np.flatnonzero(~np.isnan(outcome))
        rows = known[np.argsort(score[known], kind="stable")]
        is_first = np.append(True, np.diff(score[rows]) > 0)[: len(rows)]
        return cls(rows, outcome[rows] > 0, np.flatnonzero(is_first))

    def auroc(self, weights: Floats | None = None) -> Floats:
        """Return the area below the ROC curve under each weighting, shape (n_weightings,).

        It is the probability that a positive outranks a negative, ties counting half (Hanley and
        McNeil, Radiology 1982).

        Parameters
        ----------
        weights
            Shape (n_weightings, n_records); None counts every record once.

        Returns
        -------
        Floats
            NaN where a weighting leaves no positive or no negative.
        """
        return self.areas(weights)[0]

    def average_precision(self, weights: Floats | None = None) -> Floats:
        """Return the average precision under each weighting, shape (n_weightings,).

        The sum over thresholds of precision times the step in recall, without interpolation;
        parameters and NaN as for `auroc`.
        """
        return self.areas(weights)[1]

    def areas(self, weights: Floats | None = None) -> tuple[Floats, Floats]:
        """Return `auroc` and `average_precision`, which share most of the work.

        Only groups of equal scores with a positive in them add to either area, so rare classes cost
        little.
        """
        n_weightings = 1 if weights is None else len(weights)
        places = np.flatnonzero(self.positive)
        if not len(places):
            return np.full(n_weightings, np.nan), np.full(n_weightings, np.nan)
        group = np.searchsorted(self.starts, places, "right") - 1
        first = np.flatnonzero(
            np.append(True, np.diff(group) > 0)
        )  # of the positives in each such group
        ends = np.append(self.starts[1:], len(self.rows))[group[first]]
        ordered = (
            np.ones((1, len(self.rows))) if weights is None else np.take(weights, self.rows, axis=1)
        )
        found = _running_sum(ordered[:, places])
        called = _running_sum(ordered)
        found_below, found_up_to = found[:, first], found[:, np.append(first[1:], len(places))]
        called_below, called_up_to = called[:, self.starts[group[first]]], called[:, ends]
        step, n_positive, n_all = found_up_to - found_below, found[:, -1], called[:, -1]
        negatives_below = (
            called_below - found_below + called_up_to - found_up_to
        ) / 2  # those of equal score by half
        from_here_up = n_all[:, None] - called_below
        precision = np.divide(
            n_positive[:, None] - found_below,
            from_here_up,
            out=np.zeros_like(step),
            where=from_here_up > 0,
        )
        n_negative = n_all - n_positive
        auroc = _ratio((step * negatives_below).sum(axis=1), n_positive * n_negative)
        return auroc, _ratio(
            (step * precision).sum(axis=1), np.where(n_negative > 0, n_positive, 0.0)
        )


def _running_sum(values: Floats) -> Floats:
    """Return the sum of the first 0, 1, ... n values of each row, shape (n_rows, n + 1)."""
    sums = np.zeros((len(values), values.shape[1] + 1))
    np.cumsum(values, axis=1, out=sums[:, 1:])
    return sums


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Divide, giving NaN where the denominator is 0."""
    return np.divide(
        numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0
    )
