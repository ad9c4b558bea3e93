"""The sections on an evaluation's numbers: results, calibration, coverage and subgroups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from src.config import SPLIT_NAMES
from src.learning.predictions import DEFAULT_THRESHOLD
from src.learning.text import UNKNOWN_TRAINING
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
    drop_empty_columns,
    number,
    score,
    text,
    whole,
)
from src.plots.report.page import picture
from src.plots.report.run_files import Results, RunFiles, SplitEvaluation
from src.plots.saved import draw_scores

PicturesByName = Mapping[str, Picture]

# Label on the page -> key of the results
_MACROS = {
    "macro F1": "f1_macro",
    "macro AUROC": "auroc_macro",
    "macro AP": "average_precision_macro",
    "accuracy": "accuracy",
}
_OTHER_AVERAGES = {
    "macro precision": "precision_macro",
    "macro recall": "recall_macro",
    "micro F1": "f1_micro",
    "weighted F1": "f1_weighted",
}
_PER_CLASS = {
    "F1": "f1",
    "AUROC": "auroc",
    "AP": "average_precision",
    "precision": "precision",
    "recall": "recall",
}
_CALIBRATION = {
    "expected calibration error": "ece",
    "mean of the classes": "ece_macro",
    "of the predicted class": "ece_top",
    "Brier score": "brier",
}
_CHALLENGE = {
    "score": "challenge_score",
    "AUROC": "auroc",
    "AUPRC": "auprc",
    "accuracy": "accuracy",
    "F": "f_measure",
    "F2": "f2_measure",
    "G2": "g2_measure",
}
# Of several labels: the share of records whose labels are all right
_SUBSET_ACCURACY = "subset accuracy"
# Averages that depend on thresholds
_AT_THRESHOLDS = {"f1_macro", "accuracy"}
# Protocol -> description of its records
_PROTOCOLS = {"labelled": "with a class", "all": "annotated, with or without a class"}

_CAPTIONS = {
    "f1_scores": "F1 score of each class",
    "roc": "Receiver operating characteristic",
    "precision_recall": "Precision and recall",
    "confusion_matrix": "Confusion matrix: records, and their share of the true class",
    "reliability": "Observed frequency of a class by its predicted probability",
}


def build_summary(files: RunFiles) -> list[Block]:
    """Return the main results of the first evaluation."""
    if not files.evaluations:
        note = "This run has not been evaluated yet: python -m src evaluate writes its results."
        return [Note(note, warns=True)]
    main = files.evaluations[0]
    intervals = main.metrics.get("intervals", {})
    labels = _average_labels(main.metrics)
    if not _is_single_label(main.metrics):
        # With many labels hardly a record has all of them right, which says little of the model
        del labels[_SUBSET_ACCURACY]
    never_predicted = _predicts_nothing(main.metrics)
    if never_predicted:
        labels = {label: key for label, key in labels.items() if key not in _AT_THRESHOLDS}
    facts = [(label, score(main.metrics[key], intervals.get(key))) for label, key in labels.items()]
    remark = (
        f"On {main.metrics['n_records']:,} records of the {_set_name(main)}, "
        f"{len(main.metrics['per_class'])} classes"
    )
    if intervals:
        remark += f", with {intervals['level']:.0%} intervals"
    if source := main.metrics.get("predictions"):
        remark += f"; predictions from {source}"
    return [Facts(facts, large=True), Note(f"{remark}."), *_remark_on_thresholds(main.metrics)]


def _is_single_label(metrics: Results) -> bool:
    """Return whether each record has one class, as in results without an entry about it."""
    return bool(metrics.get("single_label", True))


def _has_default_thresholds(metrics: Results) -> bool:
    """Return whether several labels were decided at 0.5, without thresholds of their own."""
    if _is_single_label(metrics) or metrics.get("thresholds"):
        return False
    rows = metrics["per_class"].values()
    return all(row.get("threshold") in (None, DEFAULT_THRESHOLD) for row in rows)


def _predicts_nothing(metrics: Results) -> bool:
    """Return whether no class of any record reached its threshold correctly."""
    return not _is_single_label(metrics) and metrics.get("f1_micro") == 0


def _average_labels(metrics: Results) -> dict[str, str]:
    """Return label -> key of the main averages, by what they mean for this kind of labels."""
    if _is_single_label(metrics):
        return dict(_MACROS)
    f1 = "macro F1 at 0.5" if _has_default_thresholds(metrics) else "macro F1"
    # Averages that need no threshold come first
    return {
        "macro AUROC": "auroc_macro",
        "macro AP": "average_precision_macro",
        f1: "f1_macro",
        _SUBSET_ACCURACY: "accuracy",
    }


def _remark_on_thresholds(metrics: Results) -> Iterator[Note]:
    """Yield what a reader must know of the thresholds behind F1, precision and recall."""
    if not _has_default_thresholds(metrics):
        return
    advice = "evaluate --thresholds chooses one for each class on the validation split"
    if _predicts_nothing(metrics):
        yield Note(
            f"No true class reaches a probability of 0.5, so F1 is 0 and left out here: {advice}.",
            warns=True,
        )
    else:
        yield Note(f"Classes are predicted from a probability of 0.5 on: {advice}.")


def build_score_sections(files: RunFiles) -> list[Section]:
    """Return results, calibration, coverage and subgroups of all evaluations."""
    drawn = [_draw(evaluation, f"s{n}") for n, evaluation in enumerate(files.evaluations)]
    describe: dict[str, Callable[[SplitEvaluation, PicturesByName], list[Block]]] = {
        "Results": describe_results,
        "Calibration": describe_calibration,
        "Coverage": describe_coverage,
        "Subgroups": describe_subgroups,
    }
    sections = []
    for title, describe_evaluation in describe.items():
        blocks: list[Block] = []
        for evaluation, pictures in zip(files.evaluations, drawn, strict=True):
            part = describe_evaluation(evaluation, pictures)
            if part and len(files.evaluations) > 1:
                blocks.append(Heading(_set_name(evaluation).capitalize()))
            blocks += part
        sections.append(Section(title.lower(), title, blocks))
    return sections


def _set_name(evaluation: SplitEvaluation) -> str:
    name = evaluation.name.replace("_", " ")
    return f"{name} split" if name in SPLIT_NAMES else f"{name} set"


def _draw(evaluation: SplitEvaluation, ident: str) -> PicturesByName:
    """Return the figures of the scores, none without predictions."""
    if evaluation.predictions is None:
        return {}
    pictures = {}
    for name, figure in draw_scores(evaluation.metrics, evaluation.predictions):
        is_plain = name == "confusion_matrix"
        pictures[name] = picture(figure, f"{ident}{name}", _CAPTIONS[name], plain=is_plain)
    return pictures


# Results ------------------------------------------------------------------------------------------


def describe_results(evaluation: SplitEvaluation, pictures: PicturesByName) -> list[Block]:
    """Return averages, the table of classes and the figures of scores."""
    metrics = evaluation.metrics
    intervals = metrics.get("intervals", {})
    averages = _average_labels(metrics) | _OTHER_AVERAGES
    facts = [(label, score(metrics[key], intervals.get(key))) for label, key in averages.items()]
    blocks: list[Block] = [Facts(facts), *_compare_averages(metrics), _class_table(metrics)]
    names = ("roc", "precision_recall", "f1_scores", "confusion_matrix")
    shown = [pictures[name] for name in names if name in pictures]
    if shown:
        blocks.append(Pictures(shown))
    return [*blocks, *_remarks(metrics), *_challenge(metrics)]


def _compare_averages(metrics: Results) -> Iterator[Table]:
    """Yield the averages of each protocol over all and over the frequent classes, if they differ.

    The protocols are with and without the records that carry no class.
    """
    protocols = metrics.get("protocols") or {"": metrics}
    n_classes = metrics["n_classes"]
    labels = list(_average_labels(metrics).items())[:3]

    def row(protocol: str, n_records: int, classes: str, averages: Results) -> list[Cell]:
        scores = [score(averages[key]) for _, key in labels]
        records = f"{n_records:,} {_PROTOCOLS.get(protocol, 'records')}"
        return [text(records), text(classes), *scores]

    rows = []
    for protocol, results in protocols.items():
        rows.append(row(protocol, results["n_records"], f"all {n_classes}", results))
        frequent = results.get("frequent")
        if frequent and 0 < frequent["n_classes"] < n_classes:
            classes = f"{frequent['n_classes']} with {frequent['min_positives']} positives or more"
            rows.append(row(protocol, results["n_records"], classes, frequent))
    if len(rows) > 1:
        columns = ("records", "classes averaged", *(label for label, _ in labels))
        yield drop_empty_columns(Table("Averages", columns, rows))


def _class_table(metrics: Results) -> Table:
    intervals = metrics.get("intervals", {}).get("per_class", {})
    rows = []
    for name, results in metrics["per_class"].items():
        of_class = intervals.get(name, {})
        scores = [score(results[key], of_class.get(key)) for key in _PER_CLASS.values()]
        counts = whole(results["support"]), whole(results["n_annotated"])
        rows.append([text(name), counts[0], *scores, number(results["threshold"]), counts[1]])
    columns = ("class", "positive", *_PER_CLASS, "threshold", "annotated")
    return drop_empty_columns(Table("Classes", columns, rows, _describe_intervals(metrics)))


def _describe_intervals(metrics: Results) -> str:
    intervals = metrics.get("intervals")
    if not intervals:
        return ""
    return (
        f"Intervals of {intervals['level']:.0%}: {intervals['method']} "
        f"({intervals['n_patients']:,} patients, {intervals['n_resamples']:,} resamples)."
    )


def _remarks(metrics: Results) -> Iterator[Note]:
    undefined = metrics.get("undefined_classes")
    if undefined:
        names = ", ".join(undefined)
        yield Note(
            f"No positive (or no negative) record, excluded from the averages: {names}.", warns=True
        )
    few_patients = metrics.get("intervals", {}).get("few_patients")
    if few_patients:
        names = ", ".join(few_patients)
        yield Note(f"Few patients, so the interval is too narrow: {names}.", warns=True)
    thresholds = metrics.get("thresholds")
    if thresholds:
        remark = (
            f"Thresholds: {thresholds['rule']}, chosen on {thresholds['n_records']:,} records of "
            f"the {thresholds['learned_on']} split{_name_datasets(thresholds)}"
        )
        if thresholds["unchanged"]:
            remark += f"; {', '.join(thresholds['unchanged'])} stayed as they were"
        yield Note(f"{remark}.")
    yield from _remark_on_records(metrics)


def _remark_on_records(metrics: Results) -> Iterator[Note]:
    """Yield what makes scores too high, and which records they leave out."""
    if n_trained_on := metrics.get("n_trained_on"):
        remark = f"The model was trained on {n_trained_on:,} of these records: scores are too high."
        yield Note(remark, warns=True)
    if metrics.get("trained_on"):
        yield Note(f"{UNKNOWN_TRAINING}.", warns=True)
    if n_missing := metrics.get("n_missing"):
        yield Note(f"{n_missing:,} records of the split have no prediction: left out.", warns=True)


def _challenge(metrics: Results) -> list[Block]:
    """Return the scores of the PhysioNet Challenge, nothing where they were not computed."""
    challenge = metrics.get("challenge")
    if not challenge:
        return []
    facts = [(f"Challenge {label}", number(challenge[key])) for label, key in _CHALLENGE.items()]
    rows = [[text(name), *map(score, row.values())] for name, row in challenge["per_class"].items()]
    columns = ("codes", "AUROC", "AUPRC", "F measure")
    return [Facts(facts), Table("Classes of the Challenge", columns, rows, folded=True)]


# Calibration --------------------------------------------------------------------------------------


def describe_calibration(evaluation: SplitEvaluation, pictures: PicturesByName) -> list[Block]:
    """Return calibration errors, also those before a calibration if there was one."""
    after = evaluation.metrics.get("reliability")
    if not after:
        return []
    calibration = evaluation.metrics.get("calibration")
    before = calibration.get("reliability_before", {}) if calibration else {}
    columns = ("before", "after calibration" if calibration else "value")

    blocks: list[Block] = []
    if "reliability" in pictures:
        blocks.append(Pictures([pictures["reliability"]]))
    measures = []
    for label, key in _CALIBRATION.items():
        values = number(before.get(key), 4), number(after.get(key), 4)
        if any(cell.order is not None for cell in values):
            measures.append([text(label), *values])
    note = f"Errors over {after['n_bins']} bins of equal width."
    measure_table = Table("Calibration", ("measure", *columns), measures, note)
    classes = []
    for name, error in after["per_class"].items():
        error_before = before.get("per_class", {}).get(name)
        classes.append([text(name), number(error_before, 4), number(error, 4)])
    class_table = Table(
        "Error of each class", ("class", *columns), classes, folded=len(classes) > 15
    )
    blocks += [drop_empty_columns(measure_table), drop_empty_columns(class_table)]
    if calibration:
        blocks.append(_describe_calibration(calibration))
    return blocks


def _describe_calibration(calibration: Results) -> Note:
    method = "a sigmoid for each class"
    if "temperature" in calibration:
        method = f"temperature {calibration['temperature']:.3f}"
    return Note(
        f"Calibrated by {method}, fitted to {calibration['n_records']:,} records of the "
        f"{calibration['learned_on']} split{_name_datasets(calibration)}."
    )


def _name_datasets(fitted: Results) -> str:
    """Return the datasets that a calibration or thresholds of the checkpoint were chosen on."""
    names = fitted.get("datasets")
    return f" of {', '.join(names)}" if names else ""


# Coverage -----------------------------------------------------------------------------------------


def describe_coverage(evaluation: SplitEvaluation, pictures: PicturesByName) -> list[Block]:
    """Return how often the true answer is not excluded, by class and by subgroup."""
    coverage = evaluation.metrics.get("coverage")
    if not coverage:
        return []
    rows = [_coverage_row(name, row) for name, row in coverage["per_class"].items()]
    rows.append(_coverage_row("all classes", coverage["all"]))
    columns = ("with it", "covered", "without it", "covered, without", "answered")
    blocks: list[Block] = [
        _describe_level(coverage),
        drop_empty_columns(Table("Coverage by class", ("class", *columns), rows)),
    ]
    for grouping, groups in coverage["subgroups"].items():
        if len(groups) < 2:
            continue
        rows = [_coverage_row(name, group["all"]) for name, group in groups.items()]
        table = Table(f"Coverage by {grouping}", (grouping, *columns), rows)
        blocks.append(drop_empty_columns(table))
        names = list(coverage["per_class"])
        of_groups = [[text(name), *_covered_cells(name, groups)] for name in names]
        title = f"Coverage of each class by {grouping}"
        blocks.append(Table(title, ("class", *groups), of_groups, folded=True))
    return blocks


def _describe_level(coverage: Results) -> Note:
    remark = (
        f"An answer is sure if the other one is excluded. Of records with a class, and of those "
        f"without it, at most {1 - coverage['level']:.0%} are to get a sure and wrong answer. "
        f"Limits from {coverage['n_fitted_on']:,} records of the {coverage['learned_on']} "
        f"split{_name_datasets(coverage)}, one of each patient."
    )
    if coverage["undecided"]:
        remark += f" Too few patients to exclude an answer: {', '.join(coverage['undecided'])}."
    return Note(remark)


def _coverage_row(title: str, row: Results) -> list[Cell]:
    without = whole(row["n_without"]) if row["n_without"] else text(None)
    return [
        text(title),
        whole(row["n_with"]),
        score(row["covered_with"]),
        without,
        score(row["covered_without"]),
        score(row["answered"]),
    ]


def _covered_cells(name: str, groups: Mapping[str, Results]) -> list[Cell]:
    """Return the coverage of the records with a class in each group."""
    cells = []
    for group in groups.values():
        row = group["per_class"][name]
        cells.append(replace(score(row["covered_with"]), detail=f"n {row['n_with']:,}"))
    return cells


# Subgroups ----------------------------------------------------------------------------------------


def describe_subgroups(evaluation: SplitEvaluation, pictures: PicturesByName) -> list[Block]:
    """Return two tables for each grouping of several groups: averages, and F1 of each class."""
    blocks: list[Block] = []
    for grouping, groups in evaluation.metrics.get("subgroups", {}).items():
        if len(groups) < 2:
            continue
        labels = _average_labels(evaluation.metrics)
        columns = (grouping, "records", "patients", *labels, "undefined classes")
        rows = [_group_row(group, results, labels.values()) for group, results in groups.items()]
        blocks.append(Table(f"By {grouping}", columns, rows))
        title = f"F1 of each class by {grouping}"
        blocks.append(Table(title, ("class", *groups), _class_rows(groups), folded=True))
    if blocks:
        note = (
            "Averages are over the classes present in a group; where these differ, compare "
            "class by class."
        )
        blocks.append(Note(note))
    return blocks


def _group_row(group: str, results: Results, keys: Iterable[str]) -> list[Cell]:
    return [
        text(group),
        whole(results["n_records"]),
        whole(results["n_patients"]),
        *(score(results[key]) for key in keys),
        whole(len(results["undefined_classes"])),
    ]


def _class_rows(groups: Mapping[str, Results]) -> list[list[Cell]]:
    """Return a row for each class, with its F1 and support in each group."""
    rows = []
    for name in next(iter(groups.values()))["per_class"]:
        row = [text(name)]
        for results in groups.values():
            of_class = results["per_class"][name]
            row.append(replace(score(of_class["f1"]), detail=f"n {of_class['support']:,}"))
        rows.append(row)
    return rows
