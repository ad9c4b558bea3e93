"""Metrics by source, sex and age, from what the manifest says of the records judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from src.learning.metrics import compute_metrics
from src.learning.predictions import Predictions
from src.processed.manifest import patients_of
from src.records.facts import parse_age, parse_sex

if TYPE_CHECKING:
    import pandas as pd


AGE_BANDS = ((0, 18), (18, 40), (40, 60), (60, 80), (80, 121))
"""Years from the first up to below the second."""
UNKNOWN = "unknown"
SUBGROUP_METRICS = {
    "accuracy": "accuracy",
    "f1_macro": "F1",
    "auroc_macro": "AUROC",
    "average_precision_macro": "AP",
}


def age_band(age: object) -> str:
    """Return the band of an age in years, ``60-79`` say, or ``unknown``."""
    years = parse_age(age)
    if years is None:
        return UNKNOWN
    low, high = next(band for band in AGE_BANDS if band[0] <= years < band[1])
    return f"{low}-{high - 1}" if high < AGE_BANDS[-1][1] else f"{low}+"


def compute_subgroups(
    predictions: Predictions, rows: pd.DataFrame
) -> dict[str, dict[str, dict[str, Any]]]:
    """Judge the records of each source, sex and age band on their own.

    Parameters
    ----------
    predictions
        The records judged.
    rows
        Their rows of the manifest, as `select_rows` gives them.

    Returns
    -------
    dict
        ``dataset``, ``sex`` and ``age``: group -> n_records, n_patients, accuracy, f1_macro,
        auroc_macro, average_precision_macro, undefined_classes, and per_class: name -> support, f1,
        auroc. Macro averages are over the classes that the group has, so compare groups with
        different ``undefined_classes`` class by class.
    """
    labels = {
        "dataset": rows["dataset"].to_numpy(str),
        "sex": np.array([parse_sex(cell) or UNKNOWN for cell in rows["sex"]]),
        "age": np.array([age_band(cell) for cell in rows["age"]]),
    }
    patients = np.array(patients_of(rows))
    return {
        name: {
            group: _judge_group(predictions, patients, groups == group)
            for group in _in_order(groups)
        }
        for name, groups in labels.items()
    }


def _in_order(groups: NDArray[np.str_]) -> list[str]:
    """Return the groups that occur, the unknown last."""
    return sorted(
        (str(group) for group in np.unique(groups)), key=lambda group: (group == UNKNOWN, group)
    )


def _judge_group(
    predictions: Predictions, patients: NDArray[np.str_], members: NDArray[np.bool_]
) -> dict[str, Any]:
    metrics = compute_metrics(predictions.subset(np.flatnonzero(members)))
    rows = {
        c: {name: row[name] for name in ("support", "f1", "auroc")}
        for c, row in metrics["per_class"].items()
    }
    return {
        "n_records": metrics["n_records"],
        "n_patients": len(np.unique(patients[members])),
        **{name: metrics[name] for name in SUBGROUP_METRICS},
        "undefined_classes": metrics["undefined_classes"],
        "per_class": rows,
    }
