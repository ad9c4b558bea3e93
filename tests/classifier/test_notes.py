from __future__ import annotations

import dataclasses

import pytest

from src.classifier.inputs import InputFacts, NoInput
from src.classifier.notes import list_notes
from src.config import PreprocessConfig
from src.learning.checkpoints import ModelCard

CARD = ModelCard(("A", "B"), True, preprocess=PreprocessConfig(fs=100.0, n_samples=1000))


def facts(n_valid: int = 1000, duration_s: float = 10, **others: object) -> InputFacts:
    made = InputFacts((), (), "", n_valid, duration_s, "")
    return dataclasses.replace(made, **others)  # type: ignore[arg-type]


def test_an_ordinary_recording_gets_no_note() -> None:
    assert list_notes([facts()], [], CARD, "mean") == ()


@pytest.mark.parametrize(
    ("given", "long", "note"),
    [
        (facts(600, 6), "mean", "short:6 of 10 s"),
        (facts(1000, 38.4), "first", "cut:10 of 38.4 s"),
        (facts(1000, 1800), "first", "cut:10 of 1800 s"),
    ],
)
def test_the_length_that_was_used_is_noted(given: InputFacts, long: str, note: str) -> None:
    assert list_notes([given], [], CARD, long) == (note,)


def test_flags_of_some_windows_say_of_how_many() -> None:
    windows = [
        facts(duration_s=30, flags=("noise:V1", "gain_high"), unfit="gain_high: too large"),
        facts(flags=("noise:V1",)),
        facts(flags=("noise:V1", "clipped:I"), absent=("V6",)),
    ]
    failures = [NoInput("rejected", "0.5 s of samples are missing")]
    assert list_notes(windows, failures, CARD, "max") == (
        "windows:4 (max)",
        "unfit_windows:1 (gain_high: too large)",
        "rejected_windows:1 (0.5 s of samples are missing)",
        "absent:V6",
        "noise:V1",
        "gain_high in 1 of 3 windows",
        "clipped:I in 1 of 3 windows",
    )


def test_where_nothing_was_read_there_is_nothing_to_note() -> None:
    assert list_notes([], [NoInput("unreadable", "empty")], CARD, "mean") == ()
