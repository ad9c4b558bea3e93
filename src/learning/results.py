"""Types of the numbers that evaluation returns and writes as JSON.

`EvaluationMetrics` is the content of ``metrics_<split>.json`` without ``split``, ``checkpoint`` and
``predictions``; `Comparison` is the content of what ``compare-predictions`` prints. The modules
that compute, format or plot these dictionaries take their types from here. A value of None means
that the number does not exist, for example the AUROC of a class without a positive.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

MetricName = Literal["precision", "recall", "f1", "auroc", "average_precision"]
"""Metrics of a class that have a macro average."""

IntervalName = Literal["auroc", "f1", "average_precision"]
"""Metrics of a class that have a confidence interval."""

MacroName = Literal["auroc_macro", "f1_macro", "average_precision_macro"]
"""Macro averages that have a confidence interval."""

SubgroupMetricName = Literal["accuracy", "f1_macro", "auroc_macro", "average_precision_macro"]
"""Metrics of a subgroup that a table shows."""

Interval = list[float]
"""Lower and upper end."""


# Metrics ------------------------------------------------------------------------------------------


class ClassMetrics(TypedDict):
    """Metrics of one class.

    ``support`` counts the records with the class, ``n_annotated`` those annotated for it.
    ``threshold`` is None with one label per record.
    """

    precision: float | None
    recall: float | None
    f1: float | None
    support: int
    n_annotated: int
    threshold: float | None
    auroc: float | None
    average_precision: float | None


class MacroAverages(TypedDict):
    """Means of a metric over the classes that have it."""

    precision_macro: float | None
    recall_macro: float | None
    f1_macro: float | None
    auroc_macro: float | None
    average_precision_macro: float | None


class FrequentAverages(MacroAverages):
    """Macro averages over the ``n_classes`` classes with ``min_positives`` positives or more."""

    min_positives: int
    n_classes: int


class Metrics(MacroAverages):
    """Metrics of a set of predictions; see `src.learning.metrics.compute_metrics`.

    ``confusion_matrix`` has a row per true and a column per predicted class, and is None with
    several labels per record. ``undefined_classes`` have no AUROC.
    """

    n_records: int
    n_classes: int
    single_label: bool | None
    accuracy: float | None
    f1_micro: float | None
    f1_weighted: float | None
    frequent: FrequentAverages
    per_class: dict[str, ClassMetrics]
    confusion_matrix: list[list[int]] | None
    undefined_classes: list[str]


# Confidence intervals -----------------------------------------------------------------------------


class MacroIntervals(TypedDict):
    """Confidence intervals of the macro averages."""

    auroc_macro: Interval | None
    f1_macro: Interval | None
    average_precision_macro: Interval | None


class ClassIntervals(TypedDict):
    """Confidence intervals of one class."""

    auroc: Interval | None
    f1: Interval | None
    average_precision: Interval | None


class Intervals(MacroIntervals):
    """Confidence intervals of the metrics; see `src.learning.intervals.bootstrap_intervals`."""

    method: str
    level: float
    n_resamples: int
    n_patients: int
    seed: int
    frequent: MacroIntervals
    per_class: dict[str, ClassIntervals]
    few_patients: list[str]


# Comparison of two models -------------------------------------------------------------------------


class Difference(TypedDict):
    """A metric of two models: ``difference`` is b minus a; interval and p value are of it."""

    a: float
    b: float
    difference: float
    interval: Interval | None
    p_value: float | None


class DeLongSummary(TypedDict):
    """DeLong's test of one class; ``p_value_holm`` is adjusted for the number of classes."""

    z: float
    p_value: float
    p_value_holm: float


class ClassComparison(TypedDict):
    """Differences of one class."""

    auroc: Difference | None
    f1: Difference | None
    delong: DeLongSummary | None


class MacroDifferences(TypedDict):
    """Differences of the macro averages."""

    auroc_macro: Difference | None
    f1_macro: Difference | None
    average_precision_macro: Difference | None


class Comparison(MacroDifferences):
    """Differences of two models; see `src.learning.comparison.compare_predictions`."""

    n_records: int
    n_patients: int
    n_resamples: int
    level: float
    seed: int
    per_class: dict[str, ClassComparison]
    few_patients: list[str]


# Calibration and thresholds -----------------------------------------------------------------------


class CalibrationErrors(TypedDict):
    """Distances of probabilities from frequencies.

    See `src.learning.calibration.measure_calibration`.
    """

    n_bins: int
    ece: float | None
    ece_macro: float | None
    ece_top: float | None
    brier: float | None
    per_class: dict[str, float | None]


class SigmoidParameters(TypedDict):
    """Parameters of a class's sigmoid, applied to the log odds of its probability."""

    slope: float
    intercept: float


class CalibrationParameters(TypedDict):
    """A fitted calibration: ``temperature``, or with several labels a sigmoid per class.

    That of a checkpoint has the ``datasets`` of the records that it was fitted on.
    """

    method: str
    datasets: NotRequired[list[str]]
    temperature: NotRequired[float]
    values: NotRequired[dict[str, SigmoidParameters]]
    unchanged: NotRequired[list[str]]


class CalibrationSummary(CalibrationParameters):
    """A fitted calibration, the records that it was fitted on, and the errors before it.

    That of a checkpoint has no ``reliability_before``.
    """

    learned_on: str
    n_records: int
    reliability_before: NotRequired[CalibrationErrors]


class ThresholdValues(TypedDict):
    """The threshold of each class, and the classes whose threshold stayed as it was.

    Those of a checkpoint have the ``datasets`` of the records that they were chosen on.
    """

    rule: str
    datasets: NotRequired[list[str]]
    values: dict[str, float]
    unchanged: list[str]


class ThresholdSummary(ThresholdValues):
    """Chosen thresholds, and the records that they were chosen on."""

    learned_on: str
    n_records: int


# Coverage -----------------------------------------------------------------------------------------


class ClassCoverage(TypedDict):
    """Coverage of one class, or of all entries of all classes.

    ``n_with`` and ``n_without`` count the records that have the class and that lack it, and
    ``covered_with`` and ``covered_without`` are the shares of them whose true label is plausible;
    ``answered`` is the share of sure answers. Where classes exclude each other, only records with
    the class count.
    """

    n_with: int
    n_without: int
    covered_with: float | None
    covered_without: float | None
    answered: float | None


class GroupCoverage(TypedDict):
    """Coverage of a set of records: over all classes, and of each."""

    n_records: int
    all: ClassCoverage
    per_class: dict[str, ClassCoverage]


class CoverageMeasures(GroupCoverage):
    """Coverage of all records and of each subgroup: ``dataset``, ``sex`` or ``age`` -> group."""

    subgroups: dict[str, dict[str, GroupCoverage]]


class ClassLimits(TypedDict):
    """Probabilities from which a class, and up to which its absence, is plausible."""

    present_from: float
    absent_to: float | None


class CoverageSummary(CoverageMeasures):
    """The coverage aimed at (``level``), the limits, what they were fitted on, and the measures.

    ``undecided`` are the classes of too few patients to exclude one of the answers. The limits of a
    checkpoint have the ``datasets`` of the records that they were fitted on.
    """

    level: float
    learned_on: str
    n_fitted_on: int
    datasets: NotRequired[list[str]]
    undecided: list[str]
    limits: dict[str, ClassLimits]


# Subgroups, protocols and the Challenge -----------------------------------------------------------


class SubgroupClassMetrics(TypedDict):
    """Metrics of one class in a subgroup."""

    support: int
    f1: float | None
    auroc: float | None


class SubgroupMetrics(TypedDict):
    """Metrics of the records of one source, sex or age band."""

    n_records: int
    n_patients: int
    accuracy: float | None
    f1_macro: float | None
    auroc_macro: float | None
    average_precision_macro: float | None
    undefined_classes: list[str]
    per_class: dict[str, SubgroupClassMetrics]


Subgroups = dict[str, dict[str, SubgroupMetrics]]
"""``dataset``, ``sex`` or ``age`` -> group -> its metrics."""


class ProtocolMetrics(TypedDict):
    """Metrics over the records with a class, or over all that were annotated."""

    n_records: int
    accuracy: float | None
    f1_macro: float | None
    auroc_macro: float | None
    average_precision_macro: float | None
    frequent: FrequentAverages


class ChallengeClassScores(TypedDict):
    """Scores of one class of the Challenge."""

    auroc: float | None
    auprc: float | None
    f_measure: float | None


class ChallengeScores(TypedDict):
    """Scores of the PhysioNet/CinC Challenges.

    See `src.learning.challenge_score.compute_challenge_scores`.
    """

    challenge_score: float
    auroc: float | None
    auprc: float | None
    accuracy: float
    f_measure: float | None
    f2_measure: float | None
    g2_measure: float | None
    n_records: int
    per_class: dict[str, ChallengeClassScores]


# Disturbed recordings -----------------------------------------------------------------------------


class StressRow(TypedDict):
    """Results under one disturbance.

    ``auroc`` has a value per class, ``auroc_macro`` is their mean and ``auroc_frequent`` that of
    the classes with ten or more positives; None where undefined. ``change`` is ``auroc_macro``
    minus that of the undisturbed recordings. ``unlike`` is the AUROC with which `predict` tells the
    disturbed recordings from the undisturbed ones by how unlike the training they are, None for
    these themselves and without a summary of the training in the checkpoint. ``n_unfit`` counts
    recordings that `predict` calls unfit (they are predicted all the same), ``n_rejected`` those
    that it cannot use.
    """

    kind: str
    strength: str
    n_records: int
    n_unfit: int
    n_rejected: int
    auroc_macro: float | None
    auroc_frequent: float | None
    change: float | None
    unlike: NotRequired[float | None]
    auroc: dict[str, float | None]


class StressTable(TypedDict):
    """The content of ``stress_<split>.json``."""

    split: str
    checkpoint: str
    seed: int
    rows: list[StressRow]


# A whole evaluation -------------------------------------------------------------------------------


class OptionalResults(TypedDict, total=False):
    """Parts of an evaluation that depend on its options and on the model.

    ``n_trained_on`` is the number of evaluated recordings that the model was trained on, given
    where they were allowed; ``trained_on`` is given where it is unknown what the model was trained
    on. ``n_missing`` is the number of records that a file of predictions lacks, where that was
    allowed.
    """

    calibration: CalibrationSummary
    thresholds: ThresholdSummary
    coverage: CoverageSummary
    protocols: dict[str, ProtocolMetrics]
    intervals: Intervals
    challenge: ChallengeScores
    n_trained_on: int
    trained_on: Literal["unknown"]
    n_missing: int


class EvaluationMetrics(Metrics, OptionalResults):
    """Metrics with everything that `src.eval.compute_evaluation` adds to them."""

    reliability: CalibrationErrors
    subgroups: Subgroups


_Score = Literal["f1_macro", "auroc_macro", "average_precision_macro", "accuracy"]
SCORE_NAMES: tuple[_Score, ...] = (
    "f1_macro",
    "auroc_macro",
    "average_precision_macro",
    "accuracy",
)
"""The averages that tables of several evaluations show."""


class ScoreSummary(TypedDict):
    """The averages of an evaluation; a score is None where it is undefined."""

    n_records: int
    f1_macro: float | None
    auroc_macro: float | None
    average_precision_macro: float | None
    accuracy: float | None
    undefined_classes: list[str]
    intervals: NotRequired[Intervals]


class CrossValidation(TypedDict):
    """The scores of each fold, and all metrics of the records of all folds together."""

    folds: list[ScoreSummary]
    checkpoints: list[str]
    pooled: EvaluationMetrics


def summarize_scores(metrics: EvaluationMetrics) -> ScoreSummary:
    """Return the averages of an evaluation, with their intervals if it has some."""
    summary: ScoreSummary = {
        "n_records": metrics["n_records"],
        "f1_macro": metrics["f1_macro"],
        "auroc_macro": metrics["auroc_macro"],
        "average_precision_macro": metrics["average_precision_macro"],
        "accuracy": metrics["accuracy"],
        "undefined_classes": metrics["undefined_classes"],
    }
    if "intervals" in metrics:
        summary["intervals"] = metrics["intervals"]
    return summary
