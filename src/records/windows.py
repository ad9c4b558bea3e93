"""Windows of a long recording: their names, their number and where each starts and stops."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

from src.records.record import ECGRecord, Extent

MARGIN_S = 1.0
"""Seconds around a window that are kept for resampling, whose filter reaches ten samples far."""
_NAME_ENDING = re.compile(r"__w\d{5,}$")  # as `window_name` writes it


def window_name(name: str, index: int) -> str:
    """Return the name of a window, given that of its record: an id or a record key."""
    return f"{name}__w{index:05d}"


def window_parent(name: str) -> str:
    """Return the name of the record that a window belongs to; other names are returned as is."""
    # The plain search is cheaper, and a manifest holds millions of names.
    return _NAME_ENDING.sub("", name) if "__w" in name else name


def window_number(name: str) -> int:
    """Return the number of a window, given its name; 0 for other names."""
    match = _NAME_ENDING.search(name) if "__w" in name else None
    return int(match[0][3:]) if match else 0


def count_windows(n_samples: int, fs: float, window_s: float, stride_s: float) -> int:
    """Return the number of windows that `iter_records` cuts a record into."""
    return len(_window_starts(Extent(n_samples, fs), window_s, stride_s))


def window_spans(extent: Extent, window_s: float, stride_s: float) -> Iterator[tuple[int, int]]:
    """Yield the first sample of each full window, and the sample after its last.

    A record shorter than a window is its only window. In a record with gaps, windows start anew
    after each of them, and shorter runs are left out.
    """
    size = _n_samples(window_s, extent.fs)
    runs = [run for run in extent.runs if run[1] - run[0] >= size]
    if not runs:
        whole = [(0, extent.n_samples)]
        runs = [max(extent.runs or whole, key=lambda run: run[1] - run[0])]
    for first, last in runs:
        run = extent._replace(n_samples=last - first)
        for start in _window_starts(run, window_s, stride_s):
            yield first + start, min(first + start + size, last)


def cut_window(
    record: ECGRecord, name: str, start: int, stop: int, *, first: int = 0, n_whole: int = 0
) -> ECGRecord:
    """Return samples `start` to `stop` of a record, with the samples around them.

    Parameters
    ----------
    record
        A record, or the part of one that holds the window and its surroundings.
    name
        Id of the window.
    start, stop
        In samples of `record`.
    first, n_whole
        For a part of a record: its first sample in that record, and the samples of that record.
    """
    margin = round(MARGIN_S * record.fs)
    return dataclasses.replace(
        record,
        signal=record.signal[:, start:stop],
        record_id=name,
        before=record.signal[:, max(0, start - margin) : start],
        after=record.signal[:, stop : stop + margin],
        first_sample=first + start,
        n_whole=n_whole or record.n_samples,
    )


def cut_windows(
    record: ECGRecord, window_s: float, stride_s: float | None = None
) -> Iterator[ECGRecord]:
    """Yield the windows of a record in memory, as `iter_records` yields those of a file."""
    if stride_s is None:
        stride_s = window_s
    extent = Extent(record.n_samples, record.fs)
    for index, (start, stop) in enumerate(window_spans(extent, window_s, stride_s)):
        yield cut_window(record, window_name(record.record_id, index), start, stop)


def _window_starts(extent: Extent, window_s: float, stride_s: float) -> range:
    """Return the first samples of the windows; the last window is full, or the only one."""
    size = _n_samples(window_s, extent.fs)
    step = _n_samples(stride_s, extent.fs)
    return range(0, max(extent.n_samples - size, 0) + 1, step)


def _n_samples(seconds: float, fs: float) -> int:
    return max(1, round(seconds * fs))
