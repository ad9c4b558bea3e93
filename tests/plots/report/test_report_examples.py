"""The records shown with their ECG: choice, saliency and encoding."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest

from src.config import STANDARD_LEADS
from src.learning.mistakes import RankedRecord
from src.plots.report.content import Note
from src.plots.report.examples import (
    Example,
    build_example_sections,
    collect_examples,
    encode_example,
    shade_stretches,
)
from src.plots.report.run_files import load_run
from src.plots.report.writer import write_report


def test_no_examples_and_no_saliency(run: Path, processed: Path, tmp_path: Path) -> None:
    without = write_report(run, processed, tmp_path / "r.html", n_examples=0).read_text(
        encoding="utf-8"
    )
    assert 'id="ecg-browser"' not in without
    examples = collect_examples(load_run(run, processed), 2, with_saliency=False)
    assert examples and all(example.shade is None for example in examples)
    with pytest.raises(ValueError, match="n_examples is -1"):
        write_report(run, processed, n_examples=-1)


def test_stretches_are_summed_smoothed_and_scaled() -> None:
    values = np.zeros((2, 100), np.float32)  # ten stretches of 0.04 s at 250 Hz
    values[0, 20:30], values[1, 90:] = 1.0, -0.5
    shade = shade_stretches(values, 250.0)
    assert shade.shape == (2, 10) and shade.max() == 1
    assert shade[0, 1:4] == pytest.approx(np.array([0.5, 1, 0.5]), rel=0.3)
    assert shade[1, 9] < shade[1, 8] < 0 == shade[1, 0]


def test_signals_come_back_from_the_page(run: Path, processed: Path) -> None:
    example = collect_examples(load_run(run, processed), 1, with_saliency=False)[0]
    signal = example.signal.copy()
    signal[3, 10] = np.nan
    coded = encode_example(Example(example.ranked, "", signal, example.fs, np.arange(12) != 5))
    codes = np.frombuffer(base64.b64decode(str(coded["data"])), "<i2").reshape(12, -1)
    step = coded["step_mv"]
    assert isinstance(step, float) and codes[3, 10] == -32768 and (codes[5] == -32768).all()
    assert coded["leads"] == list(STANDARD_LEADS)
    assert codes[0] * step == pytest.approx(signal[0], abs=0.51 * step)


def test_without_a_mistake_the_gallery_says_so() -> None:
    ranked = RankedRecord("d__1", ("AF",), ("AF",), {"AF": 0.9}, 0.0)
    example = Example(ranked, "", np.zeros((12, 100), np.float32), 100.0, np.ones(12, bool))
    gallery, browser = build_example_sections([example])
    assert gallery.title == "Mistakes"
    assert gallery.blocks == [Note("Every record was predicted correctly.")]
    assert len(browser.blocks) == 1
    assert not any(section.blocks for section in build_example_sections([]))
