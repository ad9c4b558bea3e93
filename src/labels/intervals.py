"""Labels with a time: intervals of a record, and the labels that a window takes from them.

An interval without length is a point, such as a beat. Times are turned into samples of the record,
so that a window is compared with whole numbers.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

WINDOW_RULES = "majority, any, all or count>=N"
_COUNT = re.compile(r"count>=([1-9][0-9]{0,5})")
# Seconds in a table are rounded, so an end may lie this far behind the last sample.
_TOLERANCE_S = 0.01


class LabelInterval(NamedTuple):
    """Labels of a part of a record, in seconds from its beginning.

    Attributes
    ----------
    start_s, end_s
        Equal for a point. The labels of a whole record end at infinity.
    labels
        None of them in an interval in which the classes looked for are absent.
    annotated
        Classes that were looked for; empty means all.
    """

    start_s: float
    end_s: float
    labels: tuple[str, ...]
    annotated: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether the labels are those of the whole record."""
        return self.end_s == math.inf

    def __str__(self) -> str:
        return f"{';'.join(self.labels) or 'no label'} from {self.start_s:g} s to {self.end_s:g} s"


@dataclass(frozen=True)
class WindowRule:
    """How a window takes the labels of the intervals in it.

    Attributes
    ----------
    kind
        majority: the labels that cover most of it; all: those that cover it whole; any: those of
        every interval in it; count: those of at least `least` intervals in it.
    least
        Number of intervals for count.
    min_cover
        Least share of the window, 0 to 1: of the labels for majority, of all spans for any and
        count. Points cover a window wherever one is in it.
    """

    kind: str = "majority"
    least: int = 1
    min_cover: float = 0.5

    @classmethod
    def parse(cls, text: str, min_cover: float) -> WindowRule:
        """Return the rule of a setting such as ``count>=3``.

        Raises
        ------
        ValueError
            If it is unknown.
        """
        if text in ("majority", "any", "all"):
            return cls(text, 1, min_cover)
        match = _COUNT.fullmatch(text)
        if match is None:
            raise ValueError(f"window_labels is {text!r}: expected {WINDOW_RULES}")
        return cls("count", int(match[1]), min_cover)

    @property
    def takes_points(self) -> bool:
        """Whether points, which cover nothing, count."""
        return self.kind in ("any", "count")


class WindowLabels(NamedTuple):
    """Labels of a window.

    Attributes
    ----------
    labels, annotated
        As in a `LabelInterval`.
    is_annotated
        False if no interval covers enough of the window: nothing is known about it then.
    cover
        The labels in the window with the share that each covers (``AFIB 0.85``), or for points
        their number (``V x2``).
    """

    labels: tuple[str, ...]
    annotated: tuple[str, ...]
    is_annotated: bool
    cover: tuple[str, ...]


class _Span(NamedTuple):
    """An interval in samples."""

    start: int
    stop: int
    interval: LabelInterval


class TimedLabels:
    """The intervals of one record in samples, sorted, for a look at each window.

    Parameters
    ----------
    intervals
        Intervals that do not overlap, but for points; see `find_overlap`.
    fs
        Sampling rate of the record in Hz.
    """

    def __init__(self, intervals: Iterable[LabelInterval], fs: float) -> None:
        intervals = list(intervals)
        self._whole = [item for item in intervals if item.is_whole]
        timed = sorted(item for item in intervals if not item.is_whole)
        items = [_Span(round(item.start_s * fs), round(item.end_s * fs), item) for item in timed]
        self._spans = [item for item in items if item.stop > item.start]
        self._points = [item for item in items if item.stop <= item.start]
        # Spans do not overlap, so their ends are sorted too.
        self._span_stops = [item.stop for item in self._spans]
        self._point_starts = [item.start for item in self._points]

    def label_window(self, start: int, stop: int, rule: WindowRule) -> WindowLabels:
        """Return the labels of samples `start` to `stop`, `stop` excluded."""
        spans = self._spans_in(start, stop)
        points = self._points[
            bisect_left(self._point_starts, start) : bisect_left(self._point_starts, stop)
        ]
        covers: Counter[tuple[str, ...]] = Counter()
        for span in spans:
            covers[span.interval.labels] += min(span.stop, stop) - max(span.start, start)
        chosen = _choose_labels(covers, spans, points, stop - start, rule)
        cover = _describe(covers, points, stop - start)
        if chosen is None:
            return self._with_whole((), (), False, cover)
        if rule.kind in ("majority", "all"):
            spans = [span for span in spans if span.interval.labels == chosen]
        annotated = _common_classes([item.interval for item in (*spans, *points)], chosen)
        return self._with_whole(chosen, annotated, True, cover)

    def _spans_in(self, start: int, stop: int) -> list[_Span]:
        """Return the spans that have samples in common with a window."""
        first = bisect_left(self._span_stops, start + 1)
        found = []
        for span in self._spans[first:]:
            if span.start >= stop:
                break
            found.append(span)
        return found

    def _with_whole(
        self,
        labels: tuple[str, ...],
        annotated: tuple[str, ...],
        is_annotated: bool,
        cover: tuple[str, ...],
    ) -> WindowLabels:
        """Add the labels of the whole record, which every window has.

        In a window without others, only the classes of the whole record are known.
        """
        if not self._whole:
            return WindowLabels(labels, annotated, is_annotated, cover)
        whole = self._whole[0]
        joined = tuple(dict.fromkeys((*whole.labels, *labels)))
        known = whole.annotated or whole.labels
        if is_annotated:
            known = tuple(dict.fromkeys((*known, *annotated))) if annotated else ()
        return WindowLabels(joined, known, True, cover)


def _choose_labels(
    covers: Counter[tuple[str, ...]],
    spans: Sequence[_Span],
    points: Sequence[_Span],
    n_samples: int,
    rule: WindowRule,
) -> tuple[str, ...] | None:
    """Return the labels of a window of `n_samples`, or None if it is not annotated."""
    if rule.kind in ("majority", "all"):
        ranked = covers.most_common(2)
        # Of two that cover as much, neither covers most.
        if not ranked or (len(ranked) > 1 and ranked[0][1] == ranked[1][1]):
            return None
        labels, n_covered = ranked[0]
        least = n_samples if rule.kind == "all" else rule.min_cover * n_samples
        return labels if n_covered >= least else None
    if not points and (not spans or sum(covers.values()) < rule.min_cover * n_samples):
        return None
    inside = sorted((*spans, *points))
    counts = Counter(label for item in inside for label in item.interval.labels)
    return tuple(label for label, n in counts.items() if n >= rule.least)


def _common_classes(intervals: Sequence[LabelInterval], labels: tuple[str, ...]) -> tuple[str, ...]:
    """Return the classes that were looked for in all intervals; none means all classes."""
    lists = list(dict.fromkeys(item.annotated for item in intervals if item.annotated))
    if not lists:
        return ()
    common = [name for name in lists[0] if all(name in names for names in lists[1:])]
    return tuple(dict.fromkeys((*common, *labels)))


def _describe(
    covers: Counter[tuple[str, ...]], points: Sequence[_Span], n_samples: int
) -> tuple[str, ...]:
    """Return the labels of a window with the share of it, or the number of points, of each."""
    shares: Counter[str] = Counter()
    for labels, n_covered in covers.items():
        for label in labels or ("none",):
            shares[label] += n_covered
    counts = Counter(label for point in points for label in point.interval.labels)
    texts = [f"{label} {round(n / n_samples, 4):g}" for label, n in shares.most_common()]
    return (*texts, *(f"{label} x{n}" for label, n in counts.most_common()))


# Problems -----------------------------------------------------------------------------------------


def find_overlap(
    intervals: Sequence[LabelInterval],
) -> tuple[LabelInterval, LabelInterval] | None:
    """Return the first interval that begins before an earlier one ends, after that one, or None.

    Points may lie in spans, and the labels of a whole record overlap nothing.
    """
    timed = sorted(item for item in intervals if item.start_s < item.end_s < math.inf)
    for earlier, later in pairwise(timed):
        if later.start_s < earlier.end_s:
            return earlier, later
    return None


def find_beyond(intervals: Iterable[LabelInterval], duration_s: float) -> LabelInterval | None:
    """Return an interval that begins or ends after a record of `duration_s`, or None."""
    limit = duration_s + _TOLERANCE_S
    for item in intervals:
        if item.start_s > limit or limit < item.end_s < math.inf:
            return item
    return None
