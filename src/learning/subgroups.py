"""Metrics by source, sex and age, as the manifest gives them for the records evaluated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from src.learning.metrics import compute_metrics
from src.learning.predictions import Predictions
from src.learning.results import (
    SubgroupClassMetrics,
    SubgroupMetricName,
    SubgroupMetrics,
    Subgroups,
)
from src.processed.manifest import patients_of
from src.records.facts import parse_age, parse_sex

if TYPE_CHECKING:
    import pandas as pd


AGE_BANDS = ((0, 18), (18, 40), (40, 60), (60, 80), (80, 121))
"""Years, from the first number up to but without the second."""

UNKNOWN = "unknown"

SUBGROUP_METRICS: dict[SubgroupMetricName, str] = {
    "accuracy": "accuracy",
    "f1_macro": "F1",
    "auroc_macro": "AUROC",
    "average_precision_macro": "AP",
}
"""Metrics of a subgroup, and their names in tables."""


def age_band(age: object) -> str:
    """Return the band of an age in years, such as ``60-79``, or ``unknown``."""
    years = parse_age(age)
    if years is None:
        return UNKNOWN
    low, high = next(band for band in AGE_BANDS if band[0] <= years < band[1])
    is_last = high == AGE_BANDS[-1][1]
    return f"{low}+" if is_last else f"{low}-{high - 1}"


def compute_subgroups(predictions: Predictions, rows: pd.DataFrame) -> Subgroups:
    """Compute the metrics of each source, sex and age band.

    Parameters
    ----------
    predictions
        The records evaluated.
    rows
        Their rows of the manifest, as `select_rows` gives them.

    Returns
    -------
    Subgroups
        ``dataset``, ``sex`` and ``age``: group -> n_records, n_patients, accuracy, f1_macro,
        auroc_macro, average_precision_macro, undefined_classes, and per_class: name -> support, f1,
        auroc. Macro averages are over the classes that the group has, so compare groups with
        different ``undefined_classes`` class by class.
    """
    patients = np.array(patients_of(rows))
    subgroups: Subgroups = {}
    for grouping, members_of in find_groups(rows).items():
        subgroups[grouping] = {
            group: _evaluate_group(predictions, patients, members)
            for group, members in members_of.items()
        }
    return subgroups


def find_groups(rows: pd.DataFrame) -> dict[str, dict[str, NDArray[np.bool_]]]:
    """Return ``dataset``, ``sex`` and ``age``: group -> whether each row of a manifest is of it."""
    groupings = {
        "dataset": rows["dataset"].to_numpy(str),
        "sex": np.array([parse_sex(cell) or UNKNOWN for cell in rows["sex"]]),
        "age": np.array([age_band(cell) for cell in rows["age"]]),
    }
    return {
        grouping: {group: of_record == group for group in _sorted_groups(of_record)}
        for grouping, of_record in groupings.items()
    }


def _sorted_groups(group_of_record: NDArray[np.str_]) -> list[str]:
    """Return the groups that occur, the unknown last."""
    groups = [str(group) for group in np.unique(group_of_record)]
    return sorted(groups, key=lambda group: (group == UNKNOWN, group))


def _evaluate_group(
    predictions: Predictions, patients: NDArray[np.str_], members: NDArray[np.bool_]
) -> SubgroupMetrics:
    metrics = compute_metrics(predictions.subset(np.flatnonzero(members)))
    per_class: dict[str, SubgroupClassMetrics] = {}
    for name, row in metrics["per_class"].items():
        per_class[name] = {"support": row["support"], "f1": row["f1"], "auroc": row["auroc"]}
    return {
        "n_records": metrics["n_records"],
        "n_patients": len(np.unique(patients[members])),
        "accuracy": metrics["accuracy"],
        "f1_macro": metrics["f1_macro"],
        "auroc_macro": metrics["auroc_macro"],
        "average_precision_macro": metrics["average_precision_macro"],
        "undefined_classes": metrics["undefined_classes"],
        "per_class": per_class,
    }
