"""The training history, by their texts and marks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from matplotlib.figure import Figure

from src.plots.history import plot_training_history

HISTORY = [
    {
        "epoch": 1,
        "train_loss": 1.0,
        "val_loss": 1.1,
        "val_f1_macro": 0.5,
        "val_auroc_macro": 0.7,
        "lr": 1e-3,
    },
    {
        "epoch": 2,
        "train_loss": 0.8,
        "val_loss": 0.9,
        "val_f1_macro": 0.7,
        "val_auroc_macro": 0.9,
        "lr": 5e-4,
    },
    {
        "epoch": 3,
        "train_loss": 0.7,
        "val_loss": 1.0,
        "val_f1_macro": 0.8,
        "val_auroc_macro": 0.8,
        "lr": 1e-4,
    },
]


def _texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def _draw(figure: Figure) -> Figure:
    figure.draw_without_rendering()  # layout and text warn here if they do
    return figure


def test_history_has_a_panel_for_losses_scores_and_rate() -> None:
    figure = _draw(plot_training_history(HISTORY))
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "Loss",
        "Validation score",
        "Learning rate",
    ]
    assert figure.axes[-1].get_xlabel() == "Epoch"
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    assert lines["training"].tolist() == [1.0, 0.8, 0.7]
    assert lines["validation"].tolist() == [1.1, 0.9, 1.0]


@pytest.mark.parametrize(("chosen", "marked"), [(None, 2), (3, 3)])
def test_history_marks_the_best_epoch(chosen: int | None, marked: int) -> None:
    figure = plot_training_history(HISTORY, best_epoch=chosen)
    assert f"best: epoch {marked}" in _texts(figure)
    assert all(list(axes.lines[-1].get_xdata()) == [marked, marked] for axes in figure.axes)


def test_history_tolerates_what_is_missing() -> None:
    rows = [
        {"epoch": 1, "train_loss": 2.0, "val_f1_macro": None},
        {"epoch": 2, "train_loss": 1.0, "lr": None},
    ]
    figure = _draw(plot_training_history(rows))
    assert [axes.get_ylabel() for axes in figure.axes] == ["Loss"]
    assert "best: epoch 2" in _texts(figure)
    gaps = (
        _draw(plot_training_history([*HISTORY, {"epoch": 4, "train_loss": math.nan}]))
        .axes[0]
        .lines[0]
        .get_ydata()
    )
    assert np.isnan(gaps).tolist() == [False, False, False, True]


def test_history_of_one_epoch_shows_points_and_a_whole_epoch() -> None:
    figure = _draw(plot_training_history(HISTORY[:1]))
    assert figure.axes[0].lines[0].get_marker() == "o"
    assert [tick for tick in figure.axes[-1].get_xticks() if 0.5 <= tick <= 1.5] == [1]


def test_history_without_an_epoch_is_refused() -> None:
    with pytest.raises(ValueError, match="no epoch"):
        plot_training_history([])
