"""The sections on the numbers: results, calibration and subgroups, from what `evaluate_predictions`
found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from src.plots.report.content import (
    Block,
    Cell,
    Facts,
    Heading,
    Note,
    Picture,
    Pictures,
    Section,
    Table,
    dense,
    number,
    score,
    text,
    whole,
)
from src.plots.report.page import picture
from src.plots.report.run_files import RunFiles, SplitEvaluation
from src.plots.saved import draw_scores
from src.processed.splits import SPLIT_NAMES

Drawn = dict[str, Picture]

_MACROS = {
    "macro F1": "f1_macro",
    "macro AUROC": "auroc_macro",
    "macro AP": "average_precision_macro",
    "accuracy": "accuracy",
}
_OTHERS = {
    "macro precision": "precision_macro",
    "macro recall": "recall_macro",
    "F1 of all entries": "f1_micro",
    "F1 weighted by support": "f1_weighted",
}
_PER_CLASS = {
    "F1": "f1",
    "AUROC": "auroc",
    "AP": "average_precision",
    "precision": "precision",
    "recall": "recall",
}
_CAPTIONS = {
    "f1_scores": "F1 score of each class",
    "roc": "Receiver operating characteristic",
    "precision_recall": "Precision and recall",
    "confusion_matrix": "Confusion matrix: records, and their share of the true class",
    "reliability": "How often a class is there, by its predicted probability",
}
_CALIBRATION = {
    "expected calibration error": "ece",
    "mean of the classes": "ece_macro",
    "of the class called": "ece_top",
    "Brier score": "brier",
}


def summarize(files: RunFiles) -> list[Block]:
    """Return what a reader looks for first."""
    if not files.evaluations:
        return [
            Note(
                "This run was not judged yet: python -m src evaluate writes its results.",
                warns=True,
            )
        ]
    main = files.evaluations[0]
    intervals = main.metrics.get("intervals", {})
    facts = [
        (shown, score(main.metrics[name], intervals.get(name))) for shown, name in _MACROS.items()
    ]
    level = f", with {intervals['level']:.0%} intervals" if intervals else ""
    what = (
        f"{main.metrics['n_records']:,} records of the {_describe(main)}, "
        f"{len(main.metrics['per_class'])} classes{level}."
    )
    return [Facts(facts, large=True), Note(f"On {what}")]


def _describe(judged: SplitEvaluation) -> str:
    name = judged.name.replace("_", " ")
    return f"{name} split" if name in SPLIT_NAMES else f"records called {name}"


def build_score_sections(files: RunFiles) -> list[Section]:
    """Return results, calibration and subgroups of everything that was judged."""
    drawn = [_draw(judged, f"s{n}") for n, judged in enumerate(files.evaluations)]
    parts: dict[str, Callable[[SplitEvaluation, Drawn], list[Block]]] = {
        "Results": describe_results,
        "Calibration": describe_calibration,
        "Subgroups": describe_subgroups,
    }
    sections = []
    for title, describe in parts.items():
        blocks: list[Block] = []
        for judged, pictures in zip(files.evaluations, drawn, strict=True):
            found = describe(judged, pictures)
            heading = (
                [Heading(_describe(judged).capitalize())]
                if found and len(files.evaluations) > 1
                else []
            )
            blocks += [*heading, *found]
        sections.append(Section(title.lower(), title, blocks))
    return sections


def _draw(judged: SplitEvaluation, ident: str) -> Drawn:
    if judged.predictions is None:
        return {}
    figures = draw_scores(judged.metrics, judged.predictions)
    return {
        name: picture(figure, f"{ident}{name}", _CAPTIONS[name], plain=name == "confusion_matrix")
        for name, figure in figures
    }


# Results ------------------------------------------------------------------------------------------


def describe_results(judged: SplitEvaluation, drawn: Drawn) -> list[Block]:
    """Return averages, the table of classes and the figures of scores."""
    metrics = judged.metrics
    intervals = metrics.get("intervals", {})
    facts = [
        (shown, score(metrics[name], intervals.get(name)))
        for shown, name in (_MACROS | _OTHERS).items()
    ]
    blocks: list[Block] = [Facts(facts), *_averages(metrics), dense(_class_table(metrics))]
    names = ("roc", "precision_recall", "f1_scores", "confusion_matrix")
    if shown := [drawn[name] for name in names if name in drawn]:
        blocks.append(Pictures(shown))
    return [*blocks, *_remarks(metrics), *_challenge(metrics)]


_RECORDS = {"labelled": "that carry a class", "all": "that were looked at for one"}


def _averages(metrics: dict[str, Any]) -> Iterator[Table]:
    """Return the averages with and without the records that carry no class, over all classes and
    over the frequent ones.
    """
    protocols, shown = metrics.get("protocols") or {"": metrics}, list(_MACROS)[:3]
    rows = []
    for name, found in protocols.items():
        frequent = found.get("frequent") or {"n_classes": 0}
        over = [
            (metrics["n_classes"], found),
            *(
                [(frequent["n_classes"], frequent)]
                if 0 < frequent["n_classes"] < metrics["n_classes"]
                else []
            ),
        ]
        rows += [
            [
                text(_RECORDS.get(name)),
                whole(found["n_records"]),
                whole(n),
                *(score(values[_MACROS[macro]]) for macro in shown),
            ]
            for n, values in over
        ]
    if len(rows) > 1:
        note = (
            f"Fewer classes: those with {metrics['frequent']['min_positives']} positives or more."
            if len(rows) > len(protocols)
            else ""
        )
        yield dense(Table("Averages", ("records", "number", "classes", *shown), rows, note))


def _class_table(metrics: dict[str, Any]) -> Table:
    intervals = metrics.get("intervals", {}).get("per_class", {})
    rows = [
        [
            text(name),
            whole(row["support"]),
            *(score(row[key], intervals.get(name, {}).get(key)) for key in _PER_CLASS.values()),
            number(row["threshold"]),
            whole(row["n_annotated"]),
        ]
        for name, row in metrics["per_class"].items()
    ]
    columns = ("class", "positive", *_PER_CLASS, "threshold", "annotated")
    return Table("Classes", columns, rows, _describe_intervals(metrics))


def _describe_intervals(metrics: dict[str, Any]) -> str:
    found = metrics.get("intervals")
    if not found:
        return ""
    return (
        f"Intervals of {found['level']:.0%}: {found['method']} ({found['n_patients']:,} "
        f"patients, {found['n_resamples']:,} resamples)."
    )


def _remarks(metrics: dict[str, Any]) -> Iterator[Note]:
    if undefined := metrics.get("undefined_classes"):
        yield Note(
            f"Positives or negatives only, left out of the averages: {', '.join(undefined)}.",
            warns=True,
        )
    if few := metrics.get("intervals", {}).get("few_patients"):
        yield Note(f"Few patients, so that the interval says little: {', '.join(few)}.", warns=True)
    if learned := metrics.get("thresholds"):
        left = f"; {', '.join(learned['unchanged'])} stayed at 0.5" if learned["unchanged"] else ""
        yield Note(
            f"Thresholds: {learned['rule']}, chosen on {learned['n_records']:,} records "
            f"of the {learned['learned_on']} split{left}."
        )


def _challenge(metrics: dict[str, Any]) -> list[Block]:
    found = metrics.get("challenge")
    if not found:
        return []
    names = {
        "score": "challenge_score",
        "AUROC": "auroc",
        "AUPRC": "auprc",
        "accuracy": "accuracy",
        "F": "f_measure",
        "F2": "f2_measure",
        "G2": "g2_measure",
    }
    facts = [(f"Challenge {shown}", number(found[name])) for shown, name in names.items()]
    rows = [[text(name), *map(score, row.values())] for name, row in found["per_class"].items()]
    table = Table(
        "Classes of the Challenge", ("codes", "AUROC", "AUPRC", "F measure"), rows, folded=True
    )
    return [Facts(facts), table]


# Calibration --------------------------------------------------------------------------------------


def describe_calibration(judged: SplitEvaluation, drawn: Drawn) -> list[Block]:
    """Return how far probabilities are from frequencies, before and after a calibration where there
    was one.
    """
    after = judged.metrics.get("reliability")
    if not after:
        return []
    learned = judged.metrics.get("calibration")
    before = learned["reliability_before"] if learned else {}
    measures = [
        [text(shown), number(before.get(name), 4), number(after.get(name), 4)]
        for shown, name in _CALIBRATION.items()
    ]
    classes = [
        [text(name), number(before.get("per_class", {}).get(name), 4), number(error, 4)]
        for name, error in after["per_class"].items()
    ]
    found = "after calibration" if learned else "value"
    blocks: list[Block] = [
        _without_empty(
            Table(
                "Calibration",
                ("measure", "before", found),
                measures,
                f"Errors over {after['n_bins']} bins of equal width.",
            )
        ),
        dense(
            Table(
                "Error of each class", ("class", "before", found), classes, folded=len(classes) > 15
            )
        ),
    ]
    if "reliability" in drawn:
        blocks.insert(0, Pictures([drawn["reliability"]]))
    return [*blocks, *([_describe_learned(learned)] if learned else [])]


def _without_empty(table: Table) -> Table:
    """Return the table without rows and columns that hold no number."""
    rows = [row for row in table.rows if any(cell.order is not None for cell in row)]
    return dense(replace(table, rows=rows))


def _describe_learned(learned: dict[str, Any]) -> Note:
    how = (
        f"temperature {learned['temperature']:.3f}"
        if "temperature" in learned
        else "a sigmoid for each class"
    )
    return Note(
        f"Calibrated by {how}, fitted to {learned['n_records']:,} records of the "
        f"{learned['learned_on']} split."
    )


# Subgroups ----------------------------------------------------------------------------------------


def describe_subgroups(judged: SplitEvaluation, drawn: Drawn) -> list[Block]:
    """Return a table for each grouping that has several groups, and one of the classes in all
    groups.
    """
    blocks: list[Block] = []
    for grouping, groups in judged.metrics.get("subgroups", {}).items():
        if len(groups) < 2:
            continue
        rows = [_group_row(group, row) for group, row in groups.items()]
        columns = (grouping, "records", "patients", *_MACROS, "undefined classes")
        blocks.append(Table(f"By {grouping}", columns, rows))
        blocks.append(
            Table(
                f"F1 of each class by {grouping}",
                ("class", *groups),
                _class_rows(groups),
                folded=True,
            )
        )
    if blocks:
        blocks.append(
            Note(
                "Averages are over the classes that a group has: where these differ, "
                "compare class by class."
            )
        )
    return blocks


def _group_row(group: str, row: dict[str, Any]) -> list[Cell]:
    counts = whole(row["n_records"]), whole(row["n_patients"])
    return [
        text(group),
        *counts,
        *(score(row[name]) for name in _MACROS.values()),
        whole(len(row["undefined_classes"])),
    ]


def _class_rows(groups: dict[str, dict[str, Any]]) -> list[list[Cell]]:
    names = next(iter(groups.values()))["per_class"]
    return [
        [text(name), *(_with_support(group["per_class"][name]) for group in groups.values())]
        for name in names
    ]


def _with_support(row: dict[str, Any]) -> Cell:
    cell = score(row["f1"])
    return Cell(cell.text, cell.order, f"n {row['support']:,}", cell.bar)
