"""Results of an evaluation as plain text and HTML tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from src.learning.intervals import FEW_PATIENTS, MACROS
from src.learning.metrics import AVERAGED_METRICS, FREQUENT
from src.learning.subgroups import SUBGROUP_METRICS
from src.utils import format_cell, html_facts, html_table


def format_challenge(scores: dict[str, Any]) -> str:
    """Return the scores of `compute_challenge_scores` as one line."""
    names = (
        "challenge_score",
        "auroc",
        "auprc",
        "f_measure",
        "f2_measure",
        "g2_measure",
        "accuracy",
    )
    parts = (
        f"{name} {'-' if scores[name] is None else format(scores[name], '.3f')}" for name in names
    )
    return "Challenge: " + ", ".join(parts)


def format_intervals(intervals: dict[str, Any]) -> str:
    """Return the intervals of the macro averages as text."""
    line = (
        f"{intervals['level']:.0%} intervals over {intervals['n_patients']} patients: "
        f"{_ranges(intervals)}"
    )
    if intervals["frequent"] != {macro: intervals[macro] for macro in MACROS}:
        line += (
            f"\nover the classes with {FREQUENT} positives or more: "
            f"{_ranges(intervals['frequent'])}"
        )
    return line + _warn_of_few(intervals["few_patients"])


def _ranges(intervals: dict[str, Any]) -> str:
    return ", ".join(f"{macro} {_range(intervals[macro])}" for macro in MACROS)


def _warn_of_few(classes: Sequence[str]) -> str:
    if not classes:
        return ""
    return (
        f"\nfewer than {FEW_PATIENTS} patients with or without, intervals too narrow to trust: "
        f"{', '.join(classes)}"
    )


def format_comparison(result: dict[str, Any]) -> str:
    """Return what `compare_predictions` found as an aligned plain table."""
    table = [
        ["metric", "A", "B", "B - A", f"{result['level']:.0%} interval", "p", "DeLong p (Holm)"]
    ]
    rows: list[tuple[str, Any, Any]] = [(macro, result[macro], None) for macro in MACROS]
    for name, tests in result["per_class"].items():
        rows += [
            (f"{name} auroc", tests["auroc"], tests["delong"]),
            (f"{name} f1", tests["f1"], None),
        ]
    for name, found, delong in rows:
        if found is None:
            table.append([name, *["-"] * 5, ""])
            continue
        holm_p = "" if delong is None else f"{delong['p_value']:.4f} ({delong['p_value_holm']:.4f})"
        numbers = [
            f"{found['a']:.3f}",
            f"{found['b']:.3f}",
            f"{found['difference']:+.3f}",
            _range(found["interval"]),
        ]
        p_value = "-" if found["p_value"] is None else f"{found['p_value']:.4f}"
        table.append([name, *numbers, p_value, holm_p])
    units = (
        f"{result['n_records']} records of {result['n_patients']} patients, "
        f"{result['n_resamples']} resamples of patients"
    )
    return f"{units}\n{format_table(table)}{_warn_of_few(result['few_patients'])}"


def _range(interval: list[float] | None) -> str:
    return "-" if interval is None else f"[{interval[0]:.3f}, {interval[1]:.3f}]"


def format_evaluation(metrics: dict[str, Any]) -> str:
    """Return what `evaluate_predictions` found as plain text."""
    parts = [format_metrics(metrics)]
    if protocols := metrics.get("protocols"):
        parts += _format_protocols(protocols)
    if "intervals" in metrics:
        from src.learning.text import format_intervals

        parts.append(format_intervals(metrics["intervals"]))
    if "challenge" in metrics:
        from src.learning.text import format_challenge

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


def html_evaluation(split: str, metrics: dict[str, Any]) -> str:
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


def format_metrics(metrics: dict[str, Any]) -> str:
    """Return the metrics as an aligned plain table: a row per class, the macro averages, and the
    pooled values below.
    """
    table = [["class", "positive", "annotated", "threshold", *AVERAGED_METRICS.values()]]
    for name, row in metrics["per_class"].items():
        numbers = [_number(row[key]) for key in ("threshold", *AVERAGED_METRICS)]
        table.append([name, str(row["support"]), str(row["n_annotated"]), *numbers])
    table.append(["macro", "", str(metrics["n_records"]), "", *_averages(metrics)])
    if metrics["frequent"]["n_classes"] < metrics["n_classes"]:
        table.append(
            [
                f"macro, {FREQUENT} positives or more",
                f"{metrics['frequent']['n_classes']} classes",
                "",
                "",
                *_averages(metrics["frequent"]),
            ]
        )
    if metrics["single_label"]:
        table = [
            row[:3] + row[4:] for row in table
        ]  # the most probable class is called, without thresholds
    pooled = {"accuracy": "accuracy", "F1 micro": "f1_micro", "F1 weighted": "f1_weighted"}
    lines = [
        format_table(table),
        ", ".join(f"{shown} {_number(metrics[key])}" for shown, key in pooled.items()),
    ]
    if metrics["undefined_classes"]:
        lines.append(
            "positives or negatives only, left out of averages: "
            f"{', '.join(metrics['undefined_classes'])}"
        )
    return "\n".join(lines)


def _averages(metrics: dict[str, Any]) -> list[str]:
    return [_number(metrics[f"{key}_macro"]) for key in AVERAGED_METRICS]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def format_table(table: list[list[str]]) -> str:
    """Return rows of cells as lines, the first to the left and the numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in table
    )


def format_subgroups(tables: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Return the tables of `compute_subgroups` as one aligned plain table, without those of a
    single group.
    """
    lines = [["group", "records", "patients", *SUBGROUP_METRICS.values(), "undefined classes"]]
    for name, groups in tables.items():
        if len(groups) > 1:
            lines += [_cells(f"{name} {group}", row) for group, row in groups.items()]
    return format_table(lines) if len(lines) > 1 else ""


def _cells(group: str, row: dict[str, Any]) -> list[str]:
    numbers = ["-" if row[name] is None else f"{row[name]:.3f}" for name in SUBGROUP_METRICS]
    return [
        group,
        str(row["n_records"]),
        str(row["n_patients"]),
        *numbers,
        str(len(row["undefined_classes"])),
    ]
