"""Figures of what the network sees."""

from __future__ import annotations

import numpy as np
import pytest

from src.plots import plot_batch, plot_tensor
from src.utils import Float64Array


def lines(axes: object) -> list[Float64Array]:
    """Return the drawn curves, without the baselines of two points."""
    drawn = [np.asarray(line.get_ydata(), np.float64) for line in axes.lines]  # type: ignore[attr-defined]
    return [values for values in drawn if len(values) != 2]


def test_a_tensor_has_a_row_for_each_lead_and_its_shape_above() -> None:
    signal = np.array([[0.0, 1.0, -1.0, 0.5], [2.0, 0.0, 0.0, 0.0]], np.float32)
    [axes] = plot_tensor(signal, ["I", "V1"], title="a: AF", n_valid=3).axes
    assert axes.get_title(loc="left") == "a: AF\ntensor: float32, 2 x 4"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["I", "V1"]
    first, second = lines(axes)
    assert first.tolist() == [0.0, 1.0, -1.0] and second.tolist() == [-6.0, -8.0, -8.0]
    assert [text.get_text() for text in axes.texts] == ["padding"]


@pytest.mark.parametrize("shape", [(2, 10), (12, 0), (12,)])
def test_a_tensor_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    leads = [f"L{number}" for number in range(12)]
    with pytest.raises(ValueError, match=r"the tensor has shape .*: expected \(12, n_samples\)"):
        plot_tensor(np.zeros(shape), leads)


def test_a_batch_has_a_row_for_each_class_cut_to_its_seconds() -> None:
    records = [[np.arange(50.0), np.zeros(50)], [np.ones(8)]]
    figure = plot_batch(records, ["AF", "a$b"], 10.0, lead="V2", duration_s=2.0)
    first, second, third, fourth = figure.axes
    assert first.get_ylabel() == "AF" and third.get_ylabel() == r"a\$b"
    assert [len(values) for axes in (first, second, third) for values in lines(axes)] == [20, 20, 8]
    assert lines(fourth)[0].size == 0
    assert figure.get_supxlabel() == "lead V2, the first 2 s, in standard deviations"


@pytest.mark.parametrize("records", [[], [[]], [[np.zeros(3)], []]])
def test_a_batch_without_records_is_refused(records: list[list[Float64Array]]) -> None:
    with pytest.raises(ValueError, match="rows of records for 1 classes: expected one"):
        plot_batch(records, ["AF"], 100.0)
