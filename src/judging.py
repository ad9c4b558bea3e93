"""From predictions to everything that is said of a model: what `src.eval.evaluate` writes, without
the model.

What is learned after training, thresholds and calibration, is learned on the validation split and
never on the one judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from src.calibration import (
    Calibration,
    ThresholdRule,
    Thresholds,
    choose_thresholds,
    fit_calibration,
    measure_calibration,
)
from src.metrics import Predictions, compute_metrics, format_metrics
from src.rich import format_cell, html_facts, html_table
from src.store import load_manifest, patients_of, split_list
from src.subgroups import compute_subgroups, format_subgroups, select_rows

if TYPE_CHECKING:
    import pandas as pd

LEARNED_ON = "val"


@dataclass(frozen=True)
class JudgeOptions:
    """What to do beyond the metrics.

    Attributes
    ----------
    intervals
        Bootstrap resamples for confidence intervals; 0 gives none.
    thresholds
        ``f1``, ``sensitivity=X`` or ``none``, which leaves those of the checkpoint, or 0.5.
    calibrate
        Calibrate the probabilities first.
    challenge_weights
        The Challenge's ``weights.csv``, to score with it as well.
    """

    intervals: int = 0
    thresholds: str = "none"
    calibrate: bool = False
    challenge_weights: str | Path | None = None

    def __post_init__(self) -> None:
        if self.intervals < 0:
            raise ValueError(
                f"intervals is {self.intervals}: expected a number of resamples, or 0 for none"
            )
        ThresholdRule.parse(self.thresholds)

    @property
    def learns(self) -> bool:
        """Whether something is learned on validation records."""
        return self.calibrate or self.thresholds != "none"

    def check(self, split: str, single_label: bool) -> None:
        """Refuse what cannot or must not be done, before a model has run.

        Parameters
        ----------
        split
            The split to be judged.
        single_label
            Whether the model answers one label per record.

        Raises
        ------
        ValueError
            If something would be learned on the split that is judged, thresholds are asked for one
            label per record, or the weights cannot be read.
        """
        if self.learns and split == LEARNED_ON:
            what = "the calibration" if self.calibrate else "thresholds"
            raise ValueError(
                f"split is {split!r}, and {what} would be chosen on it: numbers from the "
                "records that they were chosen on "
                "say nothing; judge test, or leave out --thresholds and --calibrate"
            )
        if single_label and self.thresholds != "none":
            raise ValueError(
                f"thresholds is {self.thresholds!r}, but the model answers one label per "
                "record, the most probable: "
                "thresholds are for models of several labels (--target multi)"
            )
        if self.challenge_weights is not None:
            from src.challenge_score import WeightTable

            WeightTable.load(self.challenge_weights)


def judge(
    predictions: Predictions,
    rows: pd.DataFrame,
    options: JudgeOptions,
    validation: Predictions | None = None,
    everyone: Predictions | None = None,
) -> tuple[Predictions, dict[str, Any]]:
    """Judge the predictions for a split.

    Parameters
    ----------
    predictions
        The split judged.
    rows
        Its rows of the manifest, as `src.subgroups.select_rows` gives them.
    options
        What to do beyond the metrics.
    validation
        The same model's predictions for the validation split; needed where something is learned.
    everyone
        Those for the split with the records that carry none of the classes, where the metrics with
        and without them are wanted side by side.

    Returns
    -------
    Predictions
        With calibrated probabilities and chosen thresholds.
    dict
        What `compute_metrics` gives, with ``reliability``, ``subgroups`` and, as asked for,
        ``calibration``, ``thresholds``, ``intervals`` and ``challenge``; with `everyone` and
        several labels ``protocols``: ``labelled`` (the records that carry a class) and ``all``
        (those that were looked at for one) -> n_records, accuracy, macro averages, frequent. Plain
        JSON values.

    Raises
    ------
    ValueError
        If a record is in both sets, there is no validation record to learn on, or an option does
        not fit the model.
    """
    maps, learned = _learn(predictions, options, validation) if options.learns else ((), {})
    for learned_map in maps:
        predictions = learned_map.apply(predictions)
        everyone = everyone and learned_map.apply(everyone)
    metrics = compute_metrics(predictions)
    metrics |= {
        "reliability": measure_calibration(predictions),
        **learned,
        "subgroups": compute_subgroups(predictions, rows),
    }
    if everyone is not None and not everyone.single_label:
        metrics["protocols"] = _judge_protocols(everyone)
    if options.intervals:
        from src.intervals import bootstrap_intervals

        metrics["intervals"] = bootstrap_intervals(
            predictions, patients_of(rows), n_resamples=options.intervals
        )
    if options.challenge_weights is not None:
        from src.challenge_score import WeightTable, compute_challenge_scores

        labels = [split_list(cell) for cell in rows["labels"]]
        metrics["challenge"] = compute_challenge_scores(
            predictions, WeightTable.load(options.challenge_weights), labels
        )
    return predictions, metrics


def _judge_protocols(everyone: Predictions) -> dict[str, dict[str, Any]]:
    """Judge the records that carry a class, as published results on PTB-XL do, and all that were
    looked at for one.
    """
    rows = {
        "labelled": (everyone.y_true == 1).any(axis=1),
        "all": ~np.isnan(everyone.y_true).all(axis=1),
    }
    names = (
        "n_records",
        "accuracy",
        "f1_macro",
        "auroc_macro",
        "average_precision_macro",
        "frequent",
    )
    found = {
        name: compute_metrics(everyone.subset(np.flatnonzero(which)))
        for name, which in rows.items()
        if which.any()
    }
    return {
        protocol: {name: metrics[name] for name in names} for protocol, metrics in found.items()
    }


def _learn(
    predictions: Predictions, options: JudgeOptions, validation: Predictions | None
) -> tuple[tuple[Calibration | Thresholds, ...], dict[str, Any]]:
    """Fit a calibration, then thresholds for the calibrated probabilities; returns what to apply
    and what to tell.
    """
    if validation is None or not validation.keys:
        raise ValueError("there are no validation records to choose thresholds or a calibration on")
    both = set(validation.keys) & set(predictions.keys)
    if both:
        raise ValueError(
            f"{len(both)} records judged are validation records too, such as {min(both)}: "
            "expected none"
        )
    origin = {"learned_on": LEARNED_ON, "n_records": len(validation.keys)}
    maps: tuple[Calibration | Thresholds, ...] = ()
    learned: dict[str, Any] = {}
    if options.calibrate:
        calibration = fit_calibration(validation)
        learned["calibration"] = {
            **origin,
            **calibration.to_json(),
            "reliability_before": measure_calibration(predictions),
        }
        maps, validation = (calibration,), calibration.apply(validation)
    rule = ThresholdRule.parse(options.thresholds)
    if rule is not None:
        thresholds = choose_thresholds(validation, rule)
        learned["thresholds"] = {**origin, **thresholds.to_json()}
        maps = (*maps, thresholds)
    return maps, learned


def compare_prediction_files(
    a: str | Path,
    b: str | Path,
    manifest: str | Path | None = None,
    *,
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare two saved sets of predictions for the same records; see
    `src.intervals.compare_predictions`.

    Parameters
    ----------
    a, b
        Files that `evaluate` wrote.
    manifest
        ``manifest.csv`` or its folder, for the patients; None makes each record its own patient.
    n_resamples, seed
        As for `src.intervals.bootstrap_intervals`.

    Raises
    ------
    ValueError
        If a file is missing or wrong, or the records are not the same.
    """
    from src.intervals import compare_predictions

    first, second, patients = Predictions.load(a), Predictions.load(b), None
    if manifest is not None:
        folder = Path(manifest) if Path(manifest).is_dir() else Path(manifest).parent
        if not (folder / "manifest.csv").is_file():
            raise ValueError(
                f"{manifest}: no manifest; expected manifest.csv of a processed folder"
            )
        patients = patients_of(select_rows(load_manifest(folder), first.keys))
    return compare_predictions(first, second, patients, n_resamples=n_resamples, seed=seed)


def format_judgement(metrics: dict[str, Any]) -> str:
    """Return what `judge` found as plain text."""
    parts = [format_metrics(metrics)]
    if protocols := metrics.get("protocols"):
        parts += _format_protocols(protocols)
    if "intervals" in metrics:
        from src.intervals import format_intervals

        parts.append(format_intervals(metrics["intervals"]))
    if "challenge" in metrics:
        from src.challenge_score import format_challenge

        parts.append(format_challenge(metrics["challenge"]))
    if subgroups := format_subgroups(metrics.get("subgroups", {})):
        parts.append(subgroups)
    return "\n".join(parts)


def _format_protocols(protocols: dict[str, dict[str, Any]]) -> list[str]:
    """Return a line for each protocol, nothing where every record carries a class."""
    if len({found["n_records"] for found in protocols.values()}) == 1:
        return []
    what = {"labelled": "records that carry a class", "all": "records with and without one"}
    averages = {"F1": "f1_macro", "AUROC": "auroc_macro", "AP": "average_precision_macro"}
    return [
        f"{found['n_records']} {what[name]}: "
        + ", ".join(f"macro {shown} {format_cell(found[key])}" for shown, key in averages.items())
        for name, found in protocols.items()
    ]


def html_judgement(split: str, metrics: dict[str, Any]) -> str:
    """Return the main numbers of a split as HTML: averages, and a row per class."""
    found = metrics.get("intervals", {})

    def number(row: dict[str, Any], name: str, intervals: dict[str, Any]) -> str:
        interval = intervals.get(name)
        return format_cell(row[name]) + (
            f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
        )

    macros = {
        "macro F1": "f1_macro",
        "macro AUROC": "auroc_macro",
        "macro AP": "average_precision_macro",
    }
    facts = {"split": split, "records": metrics["n_records"]}
    facts |= {shown: number(metrics, name, found) for shown, name in macros.items()}
    facts |= {"accuracy": format_cell(metrics["accuracy"])}
    names = ("f1", "auroc", "average_precision")
    rows = [
        [
            label,
            row["support"],
            *(number(row, name, found.get("per_class", {}).get(label, {})) for name in names),
        ]
        for label, row in metrics["per_class"].items()
    ]
    return html_facts(facts) + html_table(["class", "positive", "F1", "AUROC", "AP"], rows)
