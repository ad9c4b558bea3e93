"""Results of evaluations and comparisons as plain text and HTML tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from src.learning.intervals import FEW_PATIENTS, MACROS
from src.learning.metrics import AVERAGED_METRICS, FREQUENT
from src.learning.results import (
    ChallengeScores,
    ClassCoverage,
    ClassIntervals,
    ClassMetrics,
    Comparison,
    CoverageSummary,
    DeLongSummary,
    Difference,
    EvaluationMetrics,
    Interval,
    IntervalName,
    Intervals,
    MacroAverages,
    MacroIntervals,
    MacroName,
    Metrics,
    ProtocolMetrics,
    SubgroupMetrics,
    Subgroups,
)
from src.learning.subgroups import SUBGROUP_METRICS
from src.utils import format_cell, format_interval, format_number, html_facts, html_table

_MACRO_TITLES: dict[str, MacroName] = {
    "F1": "f1_macro",
    "AUROC": "auroc_macro",
    "AP": "average_precision_macro",
}
_CLASS_METRICS: tuple[IntervalName, ...] = ("f1", "auroc", "average_precision")
_PROTOCOL_TITLES = {
    "labelled": "records that carry a class",
    "all": "records with and without one",
}
UNKNOWN_TRAINING = (
    "Which recordings the model was trained on is unknown; if these are among them, the scores are "
    "too high"
)
"""Remark on scores of a model that carries no fingerprints of its training recordings."""


# An evaluation ------------------------------------------------------------------------------------


def format_evaluation(metrics: EvaluationMetrics) -> str:
    """Return the results of `compute_evaluation` as plain text."""
    parts = [format_metrics(metrics)]
    if "protocols" in metrics:
        parts += _format_protocols(metrics["protocols"])
    if "intervals" in metrics:
        parts.append(format_intervals(metrics["intervals"]))
    if "challenge" in metrics:
        parts.append(format_challenge(metrics["challenge"]))
    if subgroups := format_subgroups(metrics["subgroups"]):
        parts.append(subgroups)
    if "coverage" in metrics:
        parts.append(format_coverage(metrics["coverage"]))
    if "n_trained_on" in metrics:
        parts.append(
            f"{metrics['n_trained_on']} of these records are recordings that the model was trained "
            "on: the scores are too high"
        )
    if "trained_on" in metrics:
        parts.append(f"{UNKNOWN_TRAINING}.")
    if "n_missing" in metrics:
        parts.append(f"{metrics['n_missing']} records of the split have no prediction: left out")
    return "\n".join(parts)


def format_metrics(metrics: Metrics) -> str:
    """Return a table of the metrics, a row per class and the macro averages, and pooled values."""
    header = ["class", "positive", "annotated", "threshold", *AVERAGED_METRICS.values()]
    table = [header]
    for name, row in metrics["per_class"].items():
        counts = [str(row["support"]), str(row["n_annotated"])]
        numbers = [format_number(row[metric]) for metric in AVERAGED_METRICS]
        table.append([name, *counts, format_number(row["threshold"]), *numbers])
    n_records, frequent = str(metrics["n_records"]), metrics["frequent"]
    table.append(["macro", "", n_records, "", *_macro_numbers(metrics)])
    if frequent["n_classes"] < metrics["n_classes"]:
        title, n_classes = (
            f"macro, {FREQUENT} positives or more",
            f"{frequent['n_classes']} classes",
        )
        table.append([title, n_classes, "", "", *_macro_numbers(frequent)])
    if metrics["single_label"]:
        # The most probable class is predicted, so there is no threshold to show
        column = header.index("threshold")
        table = [row[:column] + row[column + 1 :] for row in table]
    pooled = (
        f"accuracy {format_number(metrics['accuracy'])}, "
        f"F1 micro {format_number(metrics['f1_micro'])}, "
        f"F1 weighted {format_number(metrics['f1_weighted'])}"
    )
    lines = [format_table(table), pooled]
    if metrics["undefined_classes"]:
        lines.append(
            "no positive (or no negative) record, excluded from the averages: "
            f"{', '.join(metrics['undefined_classes'])}"
        )
    return "\n".join(lines)


def _macro_numbers(averages: MacroAverages) -> list[str]:
    """Return the macro averages in the order of `AVERAGED_METRICS`."""
    return [
        format_number(averages["precision_macro"]),
        format_number(averages["recall_macro"]),
        format_number(averages["f1_macro"]),
        format_number(averages["auroc_macro"]),
        format_number(averages["average_precision_macro"]),
    ]


def _format_protocols(protocols: Mapping[str, ProtocolMetrics]) -> list[str]:
    """Return a line for each protocol, none where every record carries a class."""
    if len({metrics["n_records"] for metrics in protocols.values()}) == 1:
        return []
    lines = []
    for name, metrics in protocols.items():
        averages = [
            f"macro {title} {format_cell(metrics[macro])}" for title, macro in _MACRO_TITLES.items()
        ]
        lines.append(f"{metrics['n_records']} {_PROTOCOL_TITLES[name]}: {', '.join(averages)}")
    return lines


def html_evaluation(split: str, metrics: EvaluationMetrics) -> str:
    """Return the main numbers of a split as HTML: averages, and a row per class."""
    intervals = metrics.get("intervals")
    facts: dict[str, object] = {"split": split, "records": metrics["n_records"]}
    for title, macro in _MACRO_TITLES.items():
        interval = None if intervals is None else intervals[macro]
        facts[f"macro {title}"] = _number_with_interval(metrics[macro], interval)
    facts["accuracy"] = format_cell(metrics["accuracy"])
    if "trained_on" in metrics:
        facts["training recordings"] = metrics["trained_on"]
    rows = []
    for name, row in metrics["per_class"].items():
        intervals_of_class = None if intervals is None else intervals["per_class"][name]
        rows.append([name, row["support"], *_class_numbers(row, intervals_of_class)])
    return html_facts(facts) + html_table(["class", "positive", "F1", "AUROC", "AP"], rows)


def _class_numbers(row: ClassMetrics, intervals: ClassIntervals | None) -> list[str]:
    numbers = []
    for metric in _CLASS_METRICS:
        interval = None if intervals is None else intervals[metric]
        numbers.append(_number_with_interval(row[metric], interval))
    return numbers


def _number_with_interval(value: float | None, interval: Interval | None) -> str:
    text = format_cell(value)
    if interval is not None:
        text += f" ({interval[0]:.3f} to {interval[1]:.3f})"
    return text


# Its parts ----------------------------------------------------------------------------------------


def format_intervals(intervals: Intervals) -> str:
    """Return the intervals of the macro averages as text."""
    lines = [
        f"{intervals['level']:.0%} intervals over {intervals['n_patients']} patients: "
        f"{_macro_ranges(intervals)}"
    ]
    frequent = intervals["frequent"]
    if any(frequent[macro] != intervals[macro] for macro in MACROS):
        lines.append(
            f"over the classes with {FREQUENT} positives or more: {_macro_ranges(frequent)}"
        )
    return "\n".join([*lines, *_few_patients_warning(intervals["few_patients"])])


def _macro_ranges(intervals: MacroIntervals) -> str:
    return ", ".join(f"{macro} {format_interval(intervals[macro])}" for macro in MACROS)


def _few_patients_warning(classes: Sequence[str]) -> list[str]:
    """Return a line that names classes of few patients, none without such classes."""
    if not classes:
        return []
    return [
        f"fewer than {FEW_PATIENTS} patients with (or without) these classes, whose intervals are "
        f"uncertain: {', '.join(classes)}"
    ]


def format_challenge(scores: ChallengeScores) -> str:
    """Return the scores of `compute_challenge_scores` as one line."""
    parts = {
        "challenge_score": scores["challenge_score"],
        "auroc": scores["auroc"],
        "auprc": scores["auprc"],
        "f_measure": scores["f_measure"],
        "f2_measure": scores["f2_measure"],
        "g2_measure": scores["g2_measure"],
        "accuracy": scores["accuracy"],
    }
    return "Challenge: " + ", ".join(
        f"{name} {format_number(value)}" for name, value in parts.items()
    )


def format_subgroups(subgroups: Subgroups) -> str:
    """Return the results of `compute_subgroups` as a table, without groupings of a single group."""
    table = [["group", "records", "patients", *SUBGROUP_METRICS.values(), "undefined classes"]]
    for grouping, groups in subgroups.items():
        if len(groups) > 1:
            table += [_subgroup_cells(f"{grouping} {name}", row) for name, row in groups.items()]
    return format_table(table) if len(table) > 1 else ""


def _subgroup_cells(title: str, row: SubgroupMetrics) -> list[str]:
    counts = [str(row["n_records"]), str(row["n_patients"])]
    numbers = [format_number(row[metric]) for metric in SUBGROUP_METRICS]
    return [title, *counts, *numbers, str(len(row["undefined_classes"]))]


def format_coverage(coverage: CoverageSummary) -> str:
    """Return the results of `src.learning.conformal.measure_coverage` as a table."""
    table = [["coverage", "with", "covered", "without", "covered", "answered"]]
    for name, row in coverage["per_class"].items():
        table.append(_coverage_cells(name, row))
    table.append(_coverage_cells("all classes", coverage["all"]))
    for grouping, groups in coverage["subgroups"].items():
        if len(groups) > 1:
            for name, group in groups.items():
                table.append(_coverage_cells(f"{grouping} {name}", group["all"]))
    if not coverage["all"]["n_without"]:
        table = [[*row[:3], *row[5:]] for row in table]
    lines = [
        f"coverage {coverage['level']:g}, limits from {coverage['n_fitted_on']} records of split "
        f"{coverage['learned_on']}: share of records whose true answer is not excluded",
        format_table(table),
    ]
    if coverage["undecided"]:
        lines.append(f"too few patients to exclude an answer: {', '.join(coverage['undecided'])}")
    return "\n".join(lines)


def _coverage_cells(title: str, row: ClassCoverage) -> list[str]:
    return [
        title,
        str(row["n_with"]),
        format_number(row["covered_with"]),
        str(row["n_without"]),
        format_number(row["covered_without"]),
        format_number(row["answered"]),
    ]


# A comparison -------------------------------------------------------------------------------------


def format_comparison(comparison: Comparison) -> str:
    """Return the results of `compare_predictions` as an aligned plain table."""
    interval_title = f"{comparison['level']:.0%} interval"
    table = [["metric", "A", "B", "B - A", interval_title, "p", "DeLong p (Holm)"]]
    for macro in MACROS:
        table.append(_difference_cells(macro, comparison[macro]))
    for name, row in comparison["per_class"].items():
        table.append(_difference_cells(f"{name} auroc", row["auroc"], row["delong"]))
        table.append(_difference_cells(f"{name} f1", row["f1"]))
    units = (
        f"{comparison['n_records']} records of {comparison['n_patients']} patients, "
        f"{comparison['n_resamples']} resamples of patients"
    )
    warning = _few_patients_warning(comparison["few_patients"])
    return "\n".join([units, format_table(table), *warning])


def _difference_cells(
    title: str, difference: Difference | None, delong: DeLongSummary | None = None
) -> list[str]:
    if difference is None:
        return [title, *["-"] * 5, ""]
    p_value = difference["p_value"]
    return [
        title,
        f"{difference['a']:.3f}",
        f"{difference['b']:.3f}",
        f"{difference['difference']:+.3f}",
        format_interval(difference["interval"]),
        "-" if p_value is None else f"{p_value:.4f}",
        "" if delong is None else f"{delong['p_value']:.4f} ({delong['p_value_holm']:.4f})",
    ]


# Tables -------------------------------------------------------------------------------------------


def format_table(table: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as aligned lines, the first column to the left, others to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for first, *others in table:
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join(cells))
    return "\n".join(lines)
