"""Labels with a time: hand-worked windows at 10 Hz, each of 10 samples."""

from __future__ import annotations

import math

import pytest

from src.labels.intervals import (
    LabelInterval,
    TimedLabels,
    WindowRule,
    find_beyond,
    find_overlap,
)

# N until 1.3 s, AFIB to 2.4 s, nothing known to 3 s, then a span of neither class.
RHYTHM = TimedLabels(
    [
        LabelInterval(1.3, 2.4, ("AFIB",)),
        LabelInterval(0.0, 1.3, ("N",)),
        LabelInterval(3.0, 4.0, (), ("N", "AFIB")),
    ],
    fs=10.0,
)
_KINDS = {0.1: "N", 0.9: "V", 1.0: "V", 1.9: "V"}
BEATS = TimedLabels([LabelInterval(s, s, (kind,)) for s, kind in _KINDS.items()], fs=10.0)


def labels_of(track: TimedLabels, text: str, first: int, min_cover: float = 0.5) -> object:
    found = track.label_window(first, first + 10, WindowRule.parse(text, min_cover))
    return found.labels if found.is_annotated else None


@pytest.mark.parametrize(
    ("rule", "min_cover", "expected"),
    [
        ("majority", 0.5, [("N",), ("AFIB",), None, ()]),
        ("majority", 0.8, [("N",), None, None, ()]),
        ("majority", 0.4, [("N",), ("AFIB",), ("AFIB",), ()]),
        ("all", 0.5, [("N",), None, None, ()]),
        ("any", 0.5, [("N",), ("N", "AFIB"), None, ()]),
        ("any", 0.4, [("N",), ("N", "AFIB"), ("AFIB",), ()]),
    ],
)
def test_spans_by_rule(rule: str, min_cover: float, expected: list[object]) -> None:
    assert [labels_of(RHYTHM, rule, first, min_cover) for first in (0, 10, 20, 30)] == expected


def test_cover_and_classes_of_a_window() -> None:
    rule = WindowRule.parse("majority", 0.5)
    assert RHYTHM.label_window(10, 20, rule).cover == ("AFIB 0.7", "N 0.3")
    assert RHYTHM.label_window(30, 40, rule).annotated == ("N", "AFIB")
    assert RHYTHM.label_window(50, 60, rule) == ((), (), False, ())
    # Of two that cover half each, neither is the majority.
    assert not RHYTHM.label_window(8, 18, rule).is_annotated


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("any", [("N", "V"), ("V",), None]),
        ("count>=2", [(), ("V",), None]),
        ("count>=3", [(), (), None]),
    ],
)
def test_beats_by_rule(rule: str, expected: list[object]) -> None:
    # The second window begins with a beat at 1.0 s; the third has none.
    assert [labels_of(BEATS, rule, first) for first in (0, 10, 20)] == expected
    found = BEATS.label_window(10, 20, WindowRule.parse(rule, 0.5))
    assert found.cover == ("V x2",)


def test_labels_of_the_whole_record_are_in_every_window() -> None:
    whole = LabelInterval(0.0, math.inf, ("LVH",), ("LVH", "MI"))
    track = TimedLabels([whole, LabelInterval(0.0, 1.0, ("AFIB",), ("AFIB", "N"))], fs=10.0)
    rule = WindowRule.parse("majority", 0.5)
    assert track.label_window(0, 10, rule)[:3] == (
        ("LVH", "AFIB"),
        ("LVH", "MI", "AFIB", "N"),
        True,
    )
    # Nothing is known about the rhythm there.
    assert track.label_window(10, 20, rule)[:3] == (("LVH",), ("LVH", "MI"), True)


def test_classes_that_all_intervals_of_a_window_looked_for() -> None:
    track = TimedLabels(
        [LabelInterval(0, 0.5, ("A",), ("A", "B", "C")), LabelInterval(0.5, 1, ("B",), ("A", "B"))],
        fs=10.0,
    )
    assert track.label_window(0, 10, WindowRule.parse("any", 0.5)).annotated == ("A", "B")


@pytest.mark.parametrize("text", ["most", "count>=0", "count>3", "count>=-1", ""])
def test_an_unknown_rule_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected majority, any, all or count>=N"):
        WindowRule.parse(text, 0.5)


def test_intervals_that_overlap_or_lie_beyond_the_end() -> None:
    first, second = LabelInterval(0, 2, ("N",)), LabelInterval(1.5, 3, ("AFIB",))
    assert find_overlap([second, first]) == (first, second)
    touching = [first, LabelInterval(2, 3, ("AFIB",)), LabelInterval(1, 1, ("V",))]
    assert find_overlap([*touching, LabelInterval(0, math.inf, ("LVH",))]) is None
    assert find_beyond(touching, 3.0) is None
    assert find_beyond([LabelInterval(0, math.inf, ("LVH",))], 3.0) is None
    assert find_beyond(touching, 2.5) == touching[1]
    assert str(touching[1]) == "AFIB from 2 s to 3 s"
