"""Windows around the beats of a record: where they lie, and the RR intervals beside each beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from src.config import PreprocessConfig
from src.labels.intervals import LabelInterval, find_beyond
from src.processed.record_files import RR_SIDE
from src.processed.runs.tasks import RejectedError
from src.records.record import Extent
from src.utils import Float32Array, Float64Array


class BeatWindows:
    """The windows around the beats of one record.

    A window that leaves the record is no window: its beat is rejected.

    Parameters
    ----------
    beats
        Beats in order of time, as `src.labels.beats.load_beats` checks them.
    config
        Seconds before and after a beat.

    Attributes
    ----------
    beats
        The beats.
    rr
        Their RR intervals (n_beats, 2 * RR_SIDE + 1), see `compute_rr`.
    inside
        Numbers of the beats whose windows lie in the record, once `place` was called.
    """

    def __init__(self, beats: Sequence[LabelInterval], config: PreprocessConfig) -> None:
        self.beats = beats
        self.rr = compute_rr(np.array([beat.start_s for beat in beats]))
        self.inside: list[int] = []
        self._config = config

    def place(self, extent: Extent) -> list[tuple[int, int]]:
        """Return the first sample of each window, and the one after its last.

        Raises
        ------
        RejectedError
            If a beat lies beyond the record's end.
        """
        fs, duration_s = extent.fs, extent.n_samples / extent.fs
        if beyond := find_beyond(self.beats, duration_s):
            raise RejectedError(
                f"the beat {';'.join(beyond.labels)} at {beyond.start_s:g} s lies beyond the "
                f"record's end at {duration_s:g} s: expected seconds from its beginning"
            )
        n_before = round(self._config.before_s * fs)
        size = max(1, round((self._config.before_s + self._config.after_s) * fs))
        spans = []
        self.inside = []
        for number, beat in enumerate(self.beats):
            start = round(beat.start_s * fs) - n_before
            if start >= 0 and start + size <= extent.n_samples:
                self.inside.append(number)
                spans.append((start, start + size))
        return spans

    def explain_outside(self) -> str:
        """Return why a beat whose window leaves the record is rejected."""
        return (
            f"its window, {self._config.before_s:g} s before the beat to "
            f"{self._config.after_s:g} s after it, leaves the record"
        )


def compute_rr(times: Float64Array) -> Float32Array:
    """Return the RR intervals around each beat, and the median of the record.

    Parameters
    ----------
    times
        Seconds of the beats, in order, shape (n_beats,).

    Returns
    -------
    ndarray
        Shape (n_beats, 2 * RR_SIDE + 1): the intervals before a beat and those after it, in order
        of time, then the median. It is 0 where there is no beat so far before or after.
    """
    if not len(times):
        return np.zeros((0, 2 * RR_SIDE + 1), np.float32)
    intervals = np.diff(times)
    none = np.zeros(RR_SIDE)
    around = sliding_window_view(np.concatenate([none, intervals, none]), 2 * RR_SIDE)
    median = np.median(intervals) if len(intervals) else 0.0
    return np.column_stack([around, np.full(len(times), median)]).astype(np.float32)
