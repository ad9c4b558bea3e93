"""Recordings to the inputs of a network, from files and from records in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from src.classifier.fitness import find_unfit
from src.config import STANDARD_LEADS, PreprocessConfig
from src.learning.checkpoints import ModelCard
from src.preprocessing import build_tensors
from src.processed.datasets import View, scale_signal
from src.processed.resampling import source_samples_needed
from src.processed.runs.tasks import RecordTensor, RejectedError
from src.records.reading import iter_with_hints, list_records, read_with_hints
from src.records.record import NO_HINTS, ECGRecord, ReadingHints, RecordError
from src.records.windows import cut_windows, window_name

Source = str | Path | ECGRecord

LONG_MODES = ("mean", "first", "max")
"""Ways to predict for a recording that is longer than the input: the mean or the highest
probability over its windows, or its beginning alone.
"""

K = TypeVar("K")

# Recordings that are measured together: so many, or fewer of more voltages than these
_CHUNK = 16
_CHUNK_VALUES = 16 * 12 * 5000

# A rest shorter than this share of a window gets no window of its own.
_NEGLIGIBLE = 0.01


@dataclass(frozen=True)
class NoInput:
    """The reason why a recording gives no input; `status` is ``unreadable`` or ``rejected``."""

    status: str
    reason: str


@dataclass(frozen=True)
class InputFacts:
    """What is known of an input beside its samples.

    Attributes
    ----------
    flags
        Quality and integrity flags, as in the manifest.
    absent
        Leads of the network that the recording lacks.
    unfit
        Why a prediction would mean nothing; empty if it means something.
    n_valid
        Samples before the padding.
    duration_s
        Length of the recording in seconds, or of the window that was read.
    fingerprint
        Of the recording, or of the window.
    """

    flags: tuple[str, ...]
    absent: tuple[str, ...]
    unfit: str
    n_valid: int
    duration_s: float
    fingerprint: str


@dataclass(frozen=True, eq=False)
class Input:
    """An input of a network, made of a recording or of a window of it.

    Attributes
    ----------
    facts
        Its flags, leads and length.
    arrays
        Its arrays (`src.preprocessing.build_tensor`), of which `to_input` makes the signal.
    """

    facts: InputFacts
    arrays: dict[str, NDArray[Any]]


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


def iter_parts(
    source: Source, config: PreprocessConfig, hints: ReadingHints = NO_HINTS, long: str = "mean"
) -> Iterator[ECGRecord]:
    """Yield a recording, or the windows of it that a network predicts for.

    A network of windows gets the windows that `config` sets. For any other network, a recording
    longer than the input is cut into windows of the input's length, which reach both its ends and
    overlap no more than they must. The first of these is the whole recording, of which
    `src.preprocessing.build_tensor` keeps the beginning.

    Parameters
    ----------
    source, config, hints
        As for `iter_windows`.
    long
        One of `LONG_MODES`; ``first`` yields the first window alone.

    Raises
    ------
    RecordError
        As `iter_windows`.
    ValueError
        If the network predicts windows around beats.
    """
    if config.cuts_beats:
        raise ValueError(
            "the network predicts windows around beats, whose times a recording does not tell: "
            "preprocess it with --beats CSV, and run evaluate on the result"
        )
    windows = iter_windows(source, config, hints)
    if long == "first":
        yield from islice(windows, 1)
    elif config.window_s:
        yield from windows
    else:
        for record in windows:
            yield record
            yield from _cut_rest(record, config)


def _cut_rest(record: ECGRecord, config: PreprocessConfig) -> Iterator[ECGRecord]:
    """Yield the windows of a recording after its first one."""
    size = config.n_samples * record.fs / config.fs
    n_rest = record.n_samples - size
    if n_rest <= _NEGLIGIBLE * size:
        return
    count = int(np.ceil(record.n_samples / size - _NEGLIGIBLE))
    n_read = source_samples_needed(config.n_samples, record.fs, config.fs)
    for index in range(1, count):
        start = int(n_rest * index / (count - 1))
        yield dataclasses.replace(
            record,
            signal=record.signal[:, start : start + n_read],
            record_id=window_name(record.record_id, index),
        )


def read_parts(
    source: Source, config: PreprocessConfig, hints: ReadingHints = NO_HINTS, long: str = "mean"
) -> Iterator[ECGRecord | NoInput]:
    """Yield the recordings of `iter_parts`; a file that cannot be read yields a `NoInput`."""
    try:
        yield from iter_parts(source, config, hints, long)
    except RecordError as error:
        yield NoInput("unreadable", error.message)


def iter_inputs(
    source: Source, card: ModelCard, hints: ReadingHints = NO_HINTS, long: str = "mean"
) -> Iterator[Input | NoInput]:
    """Yield the input of a recording or of each of its windows.

    A recording that cannot be read and a rejected window yield a `NoInput`.

    Parameters
    ----------
    source, hints, long
        As for `iter_parts`.
    card
        Card of the model.
    """
    parts = read_parts(source, card.preprocess, hints, long)
    for _, item in build_inputs(((None, part) for part in parts), card):
        yield item


def build_inputs(
    parts: Iterable[tuple[K, ECGRecord | NoInput]], card: ModelCard
) -> Iterator[tuple[K, Input | NoInput]]:
    """Replace recordings by their inputs, or by the reason why they give none.

    Recordings of one rate and length are measured some at a time, which takes half the time.

    Parameters
    ----------
    parts
        Recordings, each with what tells whose it is.
    card
        Card of the model.
    """
    for chunk in _iter_chunks(parts):
        records = [part for _, part in chunk if isinstance(part, ECGRecord)]
        # The matrices are too small for several threads.
        with _threads().limit(limits=1, user_api="blas"):
            tensors = iter(build_tensors(records, card.preprocess))
        for owner, part in chunk:
            if isinstance(part, NoInput):
                yield owner, part
                continue
            tensor = next(tensors)
            if isinstance(tensor, RejectedError):
                yield owner, NoInput("rejected", str(tensor))
            else:
                yield owner, _make_input(tensor, part.duration_s, card)


@cache
def _threads() -> ThreadpoolController:
    return ThreadpoolController()


def _iter_chunks(
    parts: Iterable[tuple[K, ECGRecord | NoInput]],
) -> Iterator[list[tuple[K, ECGRecord | NoInput]]]:
    """Yield the parts in lists of a bounded number and size."""
    chunk: list[tuple[K, ECGRecord | NoInput]] = []
    n_values = 0
    for owner, part in parts:
        chunk.append((owner, part))
        n_values += part.signal.size if isinstance(part, ECGRecord) else 0
        if len(chunk) == _CHUNK or n_values >= _CHUNK_VALUES:
            yield chunk
            chunk, n_values = [], 0
    if chunk:
        yield chunk


def _make_input(tensor: RecordTensor, duration_s: float, card: ModelCard) -> Input:
    """Return the input and its facts."""
    rows = [STANDARD_LEADS.index(lead) for lead in card.leads]
    present = tensor.arrays["lead_present"][rows]
    facts = InputFacts(
        flags=tensor.flags,
        absent=tuple(lead for lead, has in zip(card.leads, present, strict=True) if not has),
        unfit=find_unfit(tensor, card),
        n_valid=int(tensor.arrays["n_valid"]),
        duration_s=duration_s,
        fingerprint=tensor.fingerprint,
    )
    return Input(facts, tensor.arrays)
