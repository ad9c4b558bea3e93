"""Windows of a long recording: where they start, how many there are, their names."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from src.records.record import ECGRecord, Extent


def cut_windows(
    record: ECGRecord, window_s: float, stride_s: float | None = None
) -> Iterator[ECGRecord]:
    """Yield the windows of a record in memory, as `iter_records` yields those of a file."""
    spans = window_spans(
        Extent(record.n_samples, record.fs), window_s, window_s if stride_s is None else stride_s
    )
    for index, (start, stop) in enumerate(spans):
        name = window_name(record.record_id, index)
        yield dataclasses.replace(record, signal=record.signal[:, start:stop], record_id=name)


def window_name(name: str, index: int) -> str:
    """Return the name of a window from that of its record, an id or a key."""
    return f"{name}__w{index:05d}"


def count_windows(n_samples: int, fs: float, window_s: float, stride_s: float) -> int:
    """Return how many windows `iter_records` cuts a record into."""
    return len(_starts(Extent(n_samples, fs), window_s, stride_s))


def window_spans(extent: Extent, window_s: float, stride_s: float) -> Iterator[tuple[int, int]]:
    """Yield the first sample of each full window and the sample after its last, or those of a
    record shorter than one.
    """
    size = max(1, round(window_s * extent.fs))
    yield from (
        (start, min(start + size, extent.n_samples))
        for start in _starts(extent, window_s, stride_s)
    )


def _starts(extent: Extent, window_s: float, stride_s: float) -> range:
    size, step = max(1, round(window_s * extent.fs)), max(1, round(stride_s * extent.fs))
    return range(0, max(extent.n_samples - size, 0) + 1, step)
