"""The figures that an evaluation and a training run leave beside their tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from src.config import SPLIT_NAMES, STANDARD_LEADS
from src.labels.text_tables import split_list
from src.learning.mistakes import RankedRecord, find_doubtful, find_worst, rank_record
from src.learning.predictions import Predictions
from src.learning.run_files import load_training_log
from src.plots.ages import plot_ages
from src.plots.balance import plot_class_balance, plot_source_balance
from src.plots.canvas import save_figure
from src.plots.confusion_matrix import plot_confusion_matrix
from src.plots.curves import plot_precision_recall_curves, plot_roc_curves
from src.plots.ecg import plot_ecg
from src.plots.f1_scores import plot_f1_scores
from src.plots.gallery import GalleryRecord, plot_gallery
from src.plots.history import plot_training_history
from src.plots.quality import plot_collection_quality, plot_quality_summary
from src.plots.reliability import plot_reliability_diagram
from src.processed.manifest import load_manifest
from src.processed.record_files import load_record_file, record_path, to_millivolts
from src.records.facts import parse_age, parse_sex

if TYPE_CHECKING:
    import pandas as pd

    from src.eval import Evaluation


_N_MISTAKES = 4


# Saving -------------------------------------------------------------------------------------------


def save_evaluation_figures(
    evaluation: Evaluation, processed: str | Path, figures: str | Path, figure_format: str = "png"
) -> list[Path]:
    """Save the figures of scores, mistakes and data, and an ECG of the split; return the files.

    Parameters
    ----------
    evaluation
        As `src.eval.evaluate` returned it.
    processed
        The folder of its records.
    figures
        Gets ``<split>_<name>`` for each figure of the split, and ``data_<name>`` for those of all
        records.
    figure_format
        png, svg or pdf.
    """
    split, predictions = evaluation.split, evaluation.predictions
    drawn = [
        (f"{split}_{name}", figure)
        for name, figure in draw_scores(dict(evaluation.metrics), predictions)
    ]
    # A split that is all right has no figure of mistakes
    if find_worst(predictions, 1):
        drawn.append((f"{split}_mistakes", plot_mistakes(predictions, processed)))
    first = rank_record(predictions, 0)
    drawn.append(
        (f"{split}_ecg_example", plot_record(processed, first.key, f"{first.key}: {first}"))
    )
    for name, figure in draw_data(load_manifest(processed)):
        drawn.append((f"data_{name}", figure))
    return [
        save_figure(figure, Path(figures) / f"{name}.{figure_format}") for name, figure in drawn
    ]


def save_quality_figures(
    processed: str | Path, figures: str | Path, figure_format: str = "png"
) -> list[Path]:
    """Save a page on the quality of each collection, ``quality_<dataset>``; return the files."""
    manifest = load_manifest(processed)
    # Only records that were read have flags; those that were not would lower every share
    was_read = manifest["status"].isin(["ok", "rejected"])
    files = []
    for name in sorted(set(manifest.loc[was_read, "dataset"])):
        page = plot_collection_quality(manifest, name)
        files.append(save_figure(page, Path(figures) / f"quality_{name}.{figure_format}"))
    return files


def save_history_figure(run: str | Path, figures: str | Path, figure_format: str = "png") -> Figure:
    """Draw the training history of a run and save it as ``training_history`` (png, svg or pdf)."""
    log = load_training_log(Path(run) / "training_log.json")
    figure = plot_training_history(log["history"], best_epoch=log["best_epoch"])
    save_figure(figure, Path(figures) / f"training_history.{figure_format}")
    return figure


# Drawing ------------------------------------------------------------------------------------------


def draw_scores(
    metrics: Mapping[str, Any], predictions: Predictions
) -> Iterator[tuple[str, Figure]]:
    """Yield name and figure of everything to draw of a split's scores.

    Parameters
    ----------
    metrics
        As `src.eval.compute_evaluation` returned them.
    predictions
        From which they were computed.
    """
    scores = predictions.y_true, predictions.y_score, predictions.classes
    level = metrics["intervals"]["level"] if "intervals" in metrics else 0.95
    intervals = class_intervals(metrics, "f1")
    yield "f1_scores", plot_f1_scores(metrics["per_class"], intervals, level=level)
    yield "roc", plot_roc_curves(*scores)
    yield "precision_recall", plot_precision_recall_curves(*scores)
    yield "reliability", plot_reliability_diagram(*scores)
    matrix = metrics["confusion_matrix"]
    if matrix is not None:
        yield "confusion_matrix", plot_confusion_matrix(matrix, predictions.classes)


def plot_scores(metrics: Mapping[str, Any], predictions: Predictions, *names: str) -> list[Figure]:
    """Return the figures of `draw_scores` with the given names, those that there are."""
    drawn = dict(draw_scores(metrics, predictions))
    return [drawn[name] for name in names if name in drawn]


def plot_mistakes(
    predictions: Predictions, processed: str | Path, n_records: int = _N_MISTAKES
) -> Figure:
    """Draw the records that are most wrong; if all are right, those that are so most narrowly."""
    records = find_worst(predictions, n_records)
    remark = ""
    if not records:
        records, remark = find_doubtful(predictions, n_records), "right, but closest to a mistake; "
    return plot_gallery([_gallery_record(processed, record, remark) for record in records])


def class_intervals(metrics: Mapping[str, Any], name: str) -> dict[str, tuple[float, float]]:
    """Return class -> interval of a metric, for the classes that have one."""
    if "intervals" not in metrics:
        return {}
    intervals = {}
    for label, row in metrics["intervals"]["per_class"].items():
        if row[name] is not None:
            low, high = row[name]
            intervals[label] = (low, high)
    return intervals


def draw_data(manifest: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    """Yield name and figure of everything to draw of a processed folder's records."""
    yield from draw_balance(manifest)
    yield "quality", plot_quality_summary(manifest)


def draw_balance(manifest: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    """Yield name and figure of the balance of classes, sources and ages, where they are known."""
    rows = manifest[manifest["status"] == "ok"]
    by_split = count_labels(rows, "split", SPLIT_NAMES)
    has_labels = any(by_split.values())
    if has_labels:
        yield "class_balance", plot_class_balance(by_split)
    datasets = sorted(set(rows["dataset"]))
    if has_labels and len(datasets) > 1:
        yield "source_balance", plot_source_balance(count_labels(rows, "dataset", datasets))
    ages = [parse_age(cell) for cell in rows["age"]]
    if any(age is not None for age in ages):
        yield "ages", plot_ages(ages, [parse_sex(cell) for cell in rows["sex"]])


def count_labels(
    rows: pd.DataFrame, column: str, groups: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Return group -> label -> number of records, for the groups of a column that have records."""
    counts: dict[str, Counter[str]] = {
        group: Counter() for group in groups if (rows[column] == group).any()
    }
    for group, cell in zip(rows[column], rows["labels"], strict=True):
        if group in counts:
            counts[group].update(split_list(cell))
    return {group: dict(of_group) for group, of_group in counts.items()}


def plot_record(processed: str | Path, key: str, title: str = "") -> Figure:
    """Draw a processed record in mV on ECG paper, by default with its key as the title."""
    arrays = load_record_file(record_path(processed, key))
    return plot_ecg(
        to_millivolts(arrays),
        float(arrays["fs"]),
        STANDARD_LEADS,
        title=title or key,
        lead_present=arrays["lead_present"],
    )


def _gallery_record(processed: str | Path, ranked: RankedRecord, remark: str) -> GalleryRecord:
    arrays = load_record_file(record_path(processed, ranked.key))
    scores = ", ".join(f"{name} {score:.2f}" for name, score in ranked.scores.items())
    return GalleryRecord(
        title="\n".join([ranked.key, *ranked.lines]),
        note=f"{remark}probabilities: {scores}",
        signal=to_millivolts(arrays),
        fs=float(arrays["fs"]),
        leads=STANDARD_LEADS,
        lead_present=arrays["lead_present"],
    )
