"""Conformal prediction: which answers may be given at a stated coverage, fitted on validation.

Each class is a problem of two labels, present and absent, and each label has a limit of its own
(Mondrian, label-conditional: Vovk, Gammerman and Shafer, *Algorithmic Learning in a Random World*,
2005, section 4.5; Sadinle, Lei and Wasserman, *Least ambiguous set-valued classifiers with bounded
error levels*, JASA 2019). Coverage then holds for those with a class and for those without it. Of
classes that exclude each other, each has the limit of its own records.

One record of each patient is drawn ("subsampling once": Dunn, Wasserman and Ramdas,
*Distribution-free prediction sets for two-layer hierarchical models*, JASA 2023), since records of
one patient are alike and would count as more than they are.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from src.utils import Float64Array

if TYPE_CHECKING:
    from src.learning.predictions import Predictions
    from src.learning.results import ClassCoverage, CoverageMeasures, GroupCoverage

logger = logging.getLogger(__name__)

NEVER_EXCLUDED = (0.0, 1.0)
"""Limits of a class whose presence and absence are both always plausible."""

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class CoverageLimits:
    """Probabilities that are plausible for a class, and for its absence.

    Attributes
    ----------
    coverage
        Share of the records whose true label is to be plausible.
    present_from
        Per class, the lowest probability at which its presence is plausible; 0 never excludes it.
    absent_to
        Per class, the highest probability at which its absence is plausible; 1 never excludes it.
        Empty where classes exclude each other.

    Raises
    ------
    ValueError
        If a value is no share, or the lengths differ.
    """

    coverage: float
    present_from: tuple[float, ...]
    absent_to: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_coverage(self.coverage)
        if not all(0 <= value <= 1 for value in self.present_from + self.absent_to):
            raise ValueError("coverage: expected limits from 0 to 1")
        if self.absent_to and len(self.absent_to) != len(self.present_from):
            raise ValueError(
                f"coverage: {len(self.present_from)} limits of presence and {len(self.absent_to)} "
                "of absence: expected one of each per class"
            )

    def find_unsure(self, y_score: Float64Array, y_pred: NDArray[np.integer]) -> Bools:
        """Return whether the answer for each class is not sure, shape (n_records, n_classes).

        An answer is sure if what contradicts it is not plausible. With one label per record, the
        predicted class and all plausible ones are unsure, if there is one beside the predicted.

        Parameters
        ----------
        y_score, y_pred
            Probabilities and predicted classes (0 or 1), shape (n_records, n_classes).
        """
        is_present = np.asarray(y_pred) == 1
        may_be_present = y_score >= np.array(self.present_from)
        if self.absent_to:
            return np.where(is_present, y_score <= np.array(self.absent_to), may_be_present)
        plausible = may_be_present | is_present
        unsure: Bools = plausible & (plausible.sum(axis=1, keepdims=True) > 1)
        return unsure

    def move(self, map_scores: Callable[[Float64Array], Float64Array]) -> CoverageLimits:
        """Return the limits for probabilities that `map_scores` maps without changing their order.

        What is never excluded stays so.
        """
        present, absent = np.array(self.present_from), np.array(self.absent_to)
        present = np.where(present == NEVER_EXCLUDED[0], present, map_scores(present))
        absent = np.where(absent == NEVER_EXCLUDED[1], absent, map_scores(absent))
        return replace(self, present_from=tuple(present.tolist()), absent_to=tuple(absent.tolist()))


def check_coverage(value: float) -> None:
    """Raise ValueError for what is no coverage."""
    if not 0 < value < 1:
        raise ValueError(f"coverage is {value}: expected a share between 0 and 1, such as 0.9")


@dataclass(frozen=True)
class Conformal:
    """Limits that were fitted, and what they rest on.

    Attributes
    ----------
    limits
        The limits.
    classes
        Class names, in their order.
    n_with, n_without
        Patients that gave a record with each class, and one without it.
    """

    limits: CoverageLimits
    classes: tuple[str, ...]
    n_with: tuple[int, ...]
    n_without: tuple[int, ...]

    @property
    def undecided(self) -> tuple[str, ...]:
        """Classes with too few patients to exclude one of the two answers."""
        limits = self.limits
        absent_to = limits.absent_to or (0.5,) * len(self.classes)
        pairs = zip(self.classes, limits.present_from, absent_to, strict=True)
        return tuple(name for name, low, high in pairs if low == NEVER_EXCLUDED[0] or high == 1.0)

    def apply(self, predictions: Predictions) -> Predictions:
        """Return the predictions as they are; limits change neither probabilities nor classes."""
        from src.learning.predictions import check_same_classes

        check_same_classes(self.classes, predictions)
        return predictions


def fit_limits(validation: Predictions, patients: Sequence[str], coverage: float) -> Conformal:
    """Fit limits on predictions for records that neither train nor test.

    Presence is plausible for a probability with which fewer than ``1 - coverage`` of ``n + 1``
    patients would be lower: those with the class, and the new one. Therefore the limit is that of
    rank ``floor((1 - coverage) * (n + 1))`` from below; where this is 0, no probability is too low.
    Absence alike, from above.

    Parameters
    ----------
    validation
        Predictions, calibrated if those in use are.
    patients
        The patient of each record; of each, one record with and one without a class is drawn.
    coverage
        Share of the records whose true label is to be plausible, between 0 and 1.

    Raises
    ------
    ValueError
        If there is no record, or `coverage` is no such share.
    """
    check_coverage(coverage)
    if not validation.keys:
        raise ValueError("there are no predictions to fit limits on: expected validation records")
    order = _draw_order(validation.keys)
    patient_of = np.asarray(list(patients))[order]
    y_true, y_score = validation.y_true[order], validation.y_score[order]
    limits: list[tuple[float, float]] = []
    counts: list[tuple[int, int]] = []
    for i in range(len(validation.classes)):
        present = _one_per_patient(y_score[:, i], patient_of, y_true[:, i] == 1)
        absent = _one_per_patient(y_score[:, i], patient_of, y_true[:, i] == 0)
        limits.append(
            (
                _limit_from_below(present, coverage, NEVER_EXCLUDED[0]),
                -_limit_from_below(-absent, coverage, -NEVER_EXCLUDED[1]),
            )
        )
        counts.append((len(present), len(absent)))
    present_from, absent_to = zip(*limits, strict=True)
    n_with, n_without = zip(*counts, strict=True)
    found = CoverageLimits(coverage, present_from, () if validation.single_label else absent_to)
    fitted = Conformal(found, validation.classes, n_with, n_without)
    if fitted.undecided:
        logger.warning(
            "coverage %g: too few patients with (or too few without) %s to exclude an answer; "
            "%d of each are needed",
            coverage,
            ", ".join(fitted.undecided),
            math.ceil(1 / (1 - coverage) - 1e-9) - 1,
        )
    return fitted


def _draw_order(keys: Sequence[str]) -> NDArray[np.intp]:
    """Return records in an order that is random but depends on their keys alone."""
    by_key = np.argsort(np.asarray(keys))
    drawn: NDArray[np.intp] = by_key[np.random.default_rng(0).permutation(len(keys))]
    return drawn


def _one_per_patient(
    scores: Float64Array, patients: NDArray[np.str_], chosen: Bools
) -> Float64Array:
    """Return the score of the first of the chosen records of each patient."""
    _, first = np.unique(patients[chosen], return_index=True)
    found: Float64Array = scores[chosen][first]
    return found


def _limit_from_below(scores: Float64Array, coverage: float, lowest: float) -> float:
    """Return the lowest plausible of the scores (n,) of one label; `lowest` if n is too small."""
    # Rounding must not lose a rank, as (1 - 0.9) * 10 lies below 1.
    rank = math.floor((1 - coverage) * (len(scores) + 1) + 1e-9)
    return float(np.sort(scores)[rank - 1]) if rank else lowest


# Measured on other records ------------------------------------------------------------------------


def measure_coverage(
    predictions: Predictions,
    limits: CoverageLimits,
    groups: Mapping[str, Mapping[str, Bools]],
) -> CoverageMeasures:
    """Measure how often the true label is plausible, and how often an answer is sure.

    Parameters
    ----------
    predictions
        For records that the limits were not fitted on.
    limits
        The limits of their model.
    groups
        Grouping -> group -> whether each record is of it (`src.learning.subgroups`).

    Returns
    -------
    CoverageMeasures
        ``per_class``, ``all`` (over all classes, each entry counted once) and ``subgroups``:
        grouping -> group -> the same two.
    """
    unsure = limits.find_unsure(predictions.y_score, predictions.y_pred)
    everyone = np.ones(len(predictions.keys), bool)
    subgroups: dict[str, dict[str, GroupCoverage]] = {}
    for grouping, members_of in groups.items():
        subgroups[grouping] = {
            group: _measure(predictions, unsure, members) for group, members in members_of.items()
        }
    return {**_measure(predictions, unsure, everyone), "subgroups": subgroups}


def _measure(predictions: Predictions, unsure: Bools, members: Bools) -> GroupCoverage:
    y_true, y_pred = predictions.y_true[members], predictions.y_pred[members]
    unsure = unsure[members]
    has_class, lacks_class = y_true == 1, y_true == 0
    covered = unsure | (y_pred == y_true)
    answered = ~unsure
    if predictions.single_label:
        # The answer of a record is one; it counts for the class that the record has.
        answered = np.broadcast_to(~unsure.any(axis=1, keepdims=True), unsure.shape) & has_class
        lacks_class = np.zeros_like(has_class)

    def summarize(columns: slice) -> ClassCoverage:
        present, absent = has_class[:, columns], lacks_class[:, columns]
        asked = present | absent
        return {
            "n_with": int(present.sum()),
            "n_without": int(absent.sum()),
            "covered_with": _share(covered[:, columns], present),
            "covered_without": _share(covered[:, columns], absent),
            "answered": _share(answered[:, columns], asked),
        }

    n_classes = len(predictions.classes)
    return {
        "n_records": int(members.sum()),
        "all": summarize(slice(n_classes)),
        "per_class": {
            name: summarize(slice(i, i + 1)) for i, name in enumerate(predictions.classes)
        },
    }


def _share(values: Bools, of: Bools) -> float | None:
    """Return the share of chosen entries that are true, None without any."""
    return float(values[of].mean()) if of.any() else None
