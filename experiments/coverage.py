"""Do limits of coverage keep their promise? Fit them on half of the patients, measure the others.

``python -m experiments.coverage PREDICTIONS PROCESSED [--coverage 0.9] [--repeats 20]`` takes the
predictions that evaluate wrote for one split, draws halves of its patients, and prints for each
class the mean over the draws: coverage of the records with and without it, and sure answers.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from src.learning.conformal import fit_limits, measure_coverage
from src.learning.predictions import Predictions
from src.learning.text import format_table
from src.processed.manifest import load_manifest, patients_of, select_rows
from src.utils import format_number

_MEASURES = ("covered_with", "covered_without", "answered")


def measure(
    predictions: Predictions,
    patients: tuple[str, ...],
    coverage: float,
    repeats: int,
    seed: int = 0,
) -> list[list[str]]:
    """Return a row per class, its coverage and sure answers as means over random halves."""
    names = np.unique(patients)
    rng = np.random.default_rng(seed)
    found: dict[str, list[list[float]]] = {}
    for _ in range(repeats):
        half = set(rng.permutation(names)[: len(names) // 2].tolist())
        is_fitted = np.array([patient in half for patient in patients])
        rows = np.flatnonzero(is_fitted)
        of_rows = [patients[row] for row in rows]
        limits = fit_limits(predictions.subset(rows), of_rows, coverage).limits
        measures = measure_coverage(predictions.subset(np.flatnonzero(~is_fitted)), limits, {})
        for name, row in {**measures["per_class"], "all classes": measures["all"]}.items():
            values = [row[measure] for measure in _MEASURES]  # type: ignore[literal-required]
            found.setdefault(name, []).append(
                [np.nan if value is None else value for value in values]
            )
    n_with = dict(zip(predictions.classes, (predictions.y_true == 1).sum(axis=0), strict=True))
    table = [["class", "with it", "covered", "covered, without", "answered"]]
    for name, of_class in found.items():
        means = np.nanmean(np.array(of_class), axis=0).tolist()
        table.append([name, str(n_with.get(name, "")), *map(format_number, means)])
    return table


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("processed", type=Path)
    parser.add_argument("--coverage", type=float, default=0.9)
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    predictions = Predictions.load(args.predictions)
    rows = select_rows(load_manifest(args.processed), predictions.keys)
    table = measure(predictions, patients_of(rows), args.coverage, args.repeats)
    sys.stdout.write(format_table(table) + "\n")


if __name__ == "__main__":
    main()
