"""A network on disturbed recordings."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from src.commands.stress import format_stress, run_stress
from src.eval import evaluate
from src.plots.stress import plot_stress
from src.utils import load_json


def test_each_disturbance_has_a_row_and_none_is_what_evaluate_says(
    trained: Path, processed: Path, tmp_path: Path
) -> None:
    checkpoint = trained / "models" / "best.pth"
    table = run_stress(checkpoint, processed, out=tmp_path, kinds=["leads", "gain"])
    clean, *others = table["rows"]
    expected = evaluate(checkpoint, processed, split="val").metrics
    assert (clean["kind"], clean["change"], clean["n_unfit"]) == ("none", 0, 0)
    assert clean["auroc_macro"] == pytest.approx(expected["auroc_macro"])
    assert clean["n_records"] == expected["n_records"]
    assert {row["kind"] for row in others} == {"leads", "gain"}
    by_strength = {row["strength"]: row for row in others}
    # Of twelve leads, ten are needed; leads that follow from I and II are derived
    assert by_strength["I"]["n_unfit"] == by_strength["I II"]["n_unfit"] == clean["n_records"]
    assert by_strength["I II V1 V2 V3 V4 V5 V6"]["n_unfit"] == 0
    assert by_strength["I II V1 V2 V3 V4 V5 V6"]["change"] == pytest.approx(0, abs=0.02)

    assert load_json(tmp_path / "stress_val.json") == table
    with open(tmp_path / "stress_val.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["strength"] for row in rows] == [row["strength"] for row in table["rows"]]
    assert set(clean["auroc"]) == {
        name.removeprefix("auroc_") for name in rows[0] if name.startswith("auroc_")
    } - {"macro", "frequent"}
    text = format_stress(table)
    assert "leads I II V2" in text and text.splitlines()[2].startswith("none")


def test_recordings_of_the_training_are_refused(trained: Path, processed: Path) -> None:
    checkpoint = trained / "models" / "best.pth"
    with pytest.raises(ValueError, match="kinds has dust"):
        run_stress(checkpoint, processed, kinds=["dust"])
    table = run_stress(checkpoint, processed, kinds=["none"], max_records=3, seed=1)
    again = run_stress(checkpoint, processed, kinds=["none"], max_records=3, seed=1)
    assert table == again and table["rows"][0]["n_records"] == 3


def test_the_figure_has_a_line_per_disturbance() -> None:
    rows = [
        {"kind": "none", "strength": "", "auroc_macro": 0.9, "n_unfit": 0},
        {"kind": "leads", "strength": "I", "auroc_macro": 0.5, "n_unfit": 7},
        {"kind": "length", "strength": "2.5 s", "auroc_macro": None, "n_unfit": 0},
    ]
    [axes] = plot_stress(rows).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "none",
        "leads I",
        "length 2.5 s",
    ]
    assert [text.get_text() for text in axes.texts] == ["0", "7", "0", "unfit"]
    with pytest.raises(ValueError, match="rows is empty"):
        plot_stress([])
