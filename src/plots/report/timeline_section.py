"""The section on one long record over time, for a model that was evaluated on windows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from src.learning.predictions import Predictions
from src.plots.report.content import Pictures, Section
from src.plots.report.page import picture
from src.plots.report.run_files import RunFiles
from src.plots.timeline import plot_timeline
from src.records.windows import window_number, window_parent


def build_timeline_section(files: RunFiles) -> Section:
    """Return labels and predictions of the record with most windows in the first evaluation.

    Without windows, the section has no blocks. A window begins at its number times the stride: a
    gap of the recording, after which windows begin anew, is not shown.
    """
    section = Section("timeline", "Timeline")
    predictions = files.evaluations[0].predictions if files.evaluations else None
    window_s = float(str(files.preprocess.get("window_s") or 0))
    if predictions is None or not window_s:
        return section
    windows = Counter(map(window_parent, predictions.keys))
    key, n_windows = windows.most_common(1)[0]
    if n_windows < 2:
        return section
    stride_s = float(str(files.preprocess.get("stride_s") or window_s))
    rows = [row for row, name in enumerate(predictions.keys) if window_parent(name) == key]
    rows.sort(key=lambda row: window_number(predictions.keys[row]))
    shown = predictions.subset(np.array(rows))
    starts = stride_s * np.array([window_number(name) for name in shown.keys])
    figure = plot_timeline(
        starts,
        starts + window_s,
        shown.y_score,
        shown.classes,
        predicted=_name_classes(shown, shown.y_pred),
        true=_name_classes(shown, shown.y_true == 1),
    )
    caption = (
        f"{key}: {n_windows} windows of split {files.evaluations[0].name}, the most of a record; "
        "labels above, predictions below"
    )
    # Its shades must keep their white paper.
    return Section(
        section.ident, section.title, [Pictures([picture(figure, "l0", caption, plain=True)])]
    )


def _name_classes(predictions: Predictions, marks: NDArray[np.generic]) -> Sequence[list[str]]:
    """Return the names of the classes that are marked in each row."""
    return [
        [name for name, mark in zip(predictions.classes, row, strict=True) if mark]
        for row in marks.tolist()
    ]
