"""The areas below the ROC and the precision-recall curve, from one sort of the scores and for many weightings at once."""

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
    A weighting counts each record so many times; a bootstrap resample is one. Shape (n_weightings, n_records) below is
    that of the arrays ranked, so that one weighting serves every class.
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

    @property
    def is_defined(self) -> bool:
        """Whether there are positives and negatives, without which neither area exists."""
        return bool(self.positive.any() and not self.positive.all())

    def auroc(self, weights: Floats | None = None) -> Floats:
        """Return the area below the ROC curve under each weighting, shape (n_weightings,).

        It is the probability that a positive outranks a negative, ties counting half (Hanley and McNeil, Radiology 1982).

        Parameters
        ----------
        weights
            Shape (n_weightings, n_records); None counts every record once.

        Returns
        -------
        Floats
            NaN where a weighting leaves no positive or no negative.
        """
        positive, negative = self._groups(weights)
        below = np.cumsum(negative, axis=1) - 0.5 * negative
        pairs = positive.sum(axis=1) * negative.sum(axis=1)
        return _ratio((positive * below).sum(axis=1), pairs)

    def average_precision(self, weights: Floats | None = None) -> Floats:
        """Return the average precision under each weighting, shape (n_weightings,).

        The sum over thresholds of precision times the step in recall, without interpolation; parameters and NaN as for
        `auroc`.
        """
        positive, negative = (part[:, ::-1] for part in self._groups(weights))  # from the highest score down
        found = np.cumsum(positive, axis=1)
        called = found + np.cumsum(negative, axis=1)
        precision = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
        n_positive = np.where(negative.sum(axis=1) > 0, positive.sum(axis=1), 0.0)
        return _ratio((positive * precision).sum(axis=1), n_positive)

    def _groups(self, weights: Floats | None) -> tuple[Floats, Floats]:
        """Return the weight of positives and of negatives in each group of equal scores, each (n_weightings, n_groups)."""
        ordered = np.ones((1, len(self.rows))) if weights is None else weights[:, self.rows]
        if not len(self.rows):
            return ordered, ordered
        positive = np.add.reduceat(ordered * self.positive, self.starts, axis=1)
        return positive, np.add.reduceat(ordered, self.starts, axis=1) - positive


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Divide, giving NaN where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0)
