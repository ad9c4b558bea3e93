"""A table of beats: a label mapping in which each row is a beat, at a time of its record."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from src.labels.ids import clean_id
from src.labels.mapping import MappingError, load_mapping
from src.labels.text_tables import zip_cells
from src.utils import printable

if TYPE_CHECKING:
    import pandas as pd


def load_beats(path: str | Path) -> pd.DataFrame:
    """Read and validate a label mapping whose rows are beats, those of a record in order of time.

    Raises
    ------
    MappingError
        As `src.labels.mapping.load_mapping`; or if a row has no time, is longer than a moment, or
        is not later than the row before it of the same record.
    """
    frame = load_mapping(path)
    problems = list(_find_problems(frame))
    if problems:
        raise MappingError(path, problems)
    return frame


def _find_problems(frame: pd.DataFrame) -> Iterator[str]:
    """Yield the problem of each row that is no beat, or comes too late in the table."""
    latest: dict[tuple[str, str], tuple[float, int]] = {}
    times = zip_cells(frame["start_s"], frame["end_s"])
    names = zip_cells(frame["dataset"], frame["record_id"])
    for number, ((start, end), (dataset, record_id)) in enumerate(
        zip(times, names, strict=True), start=2
    ):
        if start != end and start and end and float(start) != float(end):
            yield (
                f"row {number}, column end_s, value {end!r}: start_s is {start!r}: expected the "
                "same time in both, that of a beat; rhythms are labels of windows (--window-s)"
            )
        elif not start:
            yield (
                f"row {number}, column start_s, value '': expected the time of a beat, in start_s "
                "and in end_s"
            )
        else:
            time_s, key = float(start), (dataset, clean_id(record_id))
            before, row = latest.get(key, (-np.inf, 0))
            latest[key] = (time_s, number)
            if time_s <= before:
                yield (
                    f"row {number}, column start_s, value {start!r}: record "
                    f"{printable(repr(record_id))} has a beat at {before:g} s in row {row}: "
                    "expected the beats of a record in order of time, each once"
                )
