"""Recordings to the inputs of a network, from files and from records in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from src.config import PreprocessConfig
from src.learning.checkpoints import ModelCard
from src.preprocessing import build_tensor
from src.processed.datasets import View, scale_signal
from src.processed.runs.tasks import RejectedError
from src.records.reading import iter_with_hints, list_records, read_with_hints
from src.records.record import NO_HINTS, ECGRecord, ReadingHints, RecordError
from src.records.windows import cut_windows

Source = str | Path | ECGRecord


@dataclass(frozen=True)
class NoInput:
    """The reason why a recording gives no input; `status` is ``unreadable`` or ``rejected``."""

    status: str
    reason: str


def to_input(arrays: dict[str, NDArray[Any]], card: ModelCard) -> torch.Tensor:
    """Return the input (n_leads, n_samples) of a model.

    Parameters
    ----------
    arrays
        The arrays of a record file, or those of `src.preprocessing.build_tensor`.
    card
        Leads and normalization of the model.
    """
    rows = View(card.leads).lead_rows()
    signal = scale_signal(arrays, card.normalization)  # (12, n_samples)
    return torch.from_numpy(np.ascontiguousarray(signal[rows]))


def iter_windows(
    source: Source, config: PreprocessConfig, hints: ReadingHints = NO_HINTS
) -> Iterator[ECGRecord]:
    """Yield a recording, or its windows if `config` cuts records into windows.

    Parameters
    ----------
    source
        A file, or a record in memory.
    config
        Length and stride of the windows.
    hints
        Facts that the file may not state.

    Raises
    ------
    RecordError
        If a file cannot be read, or holds many records to cut into windows.
    """
    window_s, stride_s = config.window_s, config.stride_s or None
    if isinstance(source, ECGRecord):
        yield from cut_windows(source, window_s, stride_s) if window_s else [source]
    elif window_s:
        if (n_records := len(list_records(source))) > 1:
            raise RecordError(
                source,
                f"holds {n_records} records: name one as {Path(source).name}::ID",
            )
        yield from iter_with_hints(source, hints, window_s=window_s, stride_s=stride_s)
    else:
        yield read_with_hints(source, hints)


def iter_inputs(
    source: Source,
    card: ModelCard,
    hints: ReadingHints = NO_HINTS,
    *,
    fingerprints: list[str] | None = None,
) -> Iterator[torch.Tensor | NoInput]:
    """Yield the input (n_leads, n_samples) of a recording or of each of its windows.

    A recording that cannot be read and a rejected window yield a `NoInput`.

    Parameters
    ----------
    source, hints
        As for `iter_windows`.
    card
        Card of the model.
    fingerprints
        Gets the fingerprint of each input before it is yielded.
    """
    try:
        for window in iter_windows(source, card.preprocess, hints):
            try:
                tensor = build_tensor(window, card.preprocess)
            except RejectedError as error:
                yield NoInput("rejected", str(error))
                continue
            if fingerprints is not None:
                fingerprints.append(tensor.fingerprint)
            yield to_input(tensor.arrays, card)
    except RecordError as error:
        yield NoInput("unreadable", error.message)
