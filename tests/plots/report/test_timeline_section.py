"""The section on one long record: which record, and where its windows lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from src.learning.predictions import Predictions
from src.plots.report import timeline_section
from src.plots.report.content import Pictures
from src.plots.report.run_files import RunFiles, SplitEvaluation
from src.plots.report.timeline_section import build_timeline_section

KEYS = ("d__a__w00000", "d__b__w00011", "d__b__w00001", "d__b__w00002", "d__c")
Y_TRUE = [[1, 0], [0, 1], [1, 0], [1, 0], [1, 0]]
Y_SCORE = [[0.9, 0.1], [0.3, 0.7], [0.8, 0.2], [0.4, 0.6], [0.9, 0.1]]


def files(predictions: Predictions | None, **preprocess: object) -> RunFiles:
    evaluations = (SplitEvaluation("test", {}, predictions),)
    return RunFiles("r", Path("r"), {}, evaluations, (), (), None, None, {}, preprocess)


def predictions(keys: tuple[str, ...] = KEYS) -> Predictions:
    n = len(keys)
    return Predictions(keys, np.array(Y_TRUE[:n]), np.array(Y_SCORE[:n]), ("N", "AFIB"))


def test_the_record_with_most_windows_is_shown_in_the_order_of_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = {}
    plot = timeline_section.plot_timeline

    def spy(*arguments: object, **options: object) -> object:
        drawn.update(options, arguments=arguments)
        return plot(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(timeline_section, "plot_timeline", spy)
    section = build_timeline_section(files(predictions(), window_s=10.0, stride_s=5.0))
    [pictures] = section.blocks
    assert isinstance(pictures, Pictures)
    [picture] = pictures.items
    assert picture.caption.startswith("d__b: 3 windows of split test") and "<svg" in picture.svg
    starts, ends, scores, classes = drawn["arguments"]
    assert starts.tolist() == [5, 10, 55] and ends.tolist() == [15, 20, 65]
    assert scores.tolist() == [Y_SCORE[2], Y_SCORE[3], Y_SCORE[1]] and classes == ("N", "AFIB")
    assert drawn["true"] == [["N"], ["N"], ["AFIB"]]
    assert drawn["predicted"] == [["N"], ["AFIB"], ["AFIB"]]


@pytest.mark.parametrize(
    "files",
    [
        files(predictions()),
        files(predictions(), window_s=0.0),
        files(None, window_s=10.0),
        files(predictions(KEYS[:2]), window_s=10.0),
    ],
)
def test_without_windows_there_is_no_section(files: RunFiles) -> None:
    assert not build_timeline_section(files).blocks
