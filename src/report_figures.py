"""The figures that an evaluation and a training run leave beside their tables."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from src.eval import Evaluation
from src.leads import STANDARD_LEADS
from src.plots import plot_confusion_matrix, plot_ecg, plot_f1_scores, plot_training_history, save_figure
from src.store import load_record_file, record_path, to_millivolts
from src.utils import load_json


def save_evaluation_figures(evaluation: Evaluation, processed: str | Path, figures: str | Path) -> list[Path]:
    """Save F1 scores, the confusion matrix where there is one, and an ECG of the split; returns the files."""
    figures, split, metrics = Path(figures), evaluation.split, evaluation.metrics
    found = metrics["intervals"]["per_class"] if "intervals" in metrics else {}
    intervals = {name: (row["f1"][0], row["f1"][1]) for name, row in found.items() if row["f1"] is not None}
    saved = [save_figure(plot_f1_scores(metrics["per_class"], intervals), figures / f"{split}_f1_scores.png")]
    if metrics["confusion_matrix"] is not None:
        figure = plot_confusion_matrix(metrics["confusion_matrix"], evaluation.predictions.classes)
        saved.append(save_figure(figure, figures / f"{split}_confusion_matrix.png"))
    page = plot_record(processed, evaluation.predictions.keys[0])
    saved.append(save_figure(page, figures / f"{split}_ecg_example.png"))
    return saved


def plot_record(processed: str | Path, key: str) -> Figure:
    """Draw a processed record in mV on ECG paper."""
    arrays = load_record_file(record_path(processed, key))
    return plot_ecg(
        to_millivolts(arrays), float(arrays["fs"]), STANDARD_LEADS, title=key, lead_present=arrays["lead_present"]
    )


def save_history_figure(run: str | Path, figures: str | Path) -> Figure:
    """Draw the training history of a run and save it as ``training_history.png``."""
    log = load_json(Path(run) / "training_log.json")
    figure = plot_training_history(log["history"], best_epoch=log["best_epoch"])
    save_figure(figure, Path(figures) / "training_history.png")
    return figure
