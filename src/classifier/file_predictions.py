"""Predictions for record files, one batch at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from src.classifier.inputs import NoInput, Source, iter_inputs
from src.learning.checkpoints import Checkpoint, ModelCard
from src.learning.leaks import TrainingRecordings
from src.model import load_model, predict_logits, to_scores
from src.records.reading import record_name
from src.records.record import NO_HINTS, ECGRecord, ReadingHints

N = TypeVar("N")
TRAINED_ON = "the model was trained on this recording"


@dataclass(frozen=True)
class FilePrediction:
    """The prediction for one file.

    Attributes
    ----------
    record_id
        Name of the record.
    scores
        Probabilities in the order of the classes; None where the status is not ok.
    status
        ``ok``, ``unreadable`` or ``rejected``.
    reason
        The reason for another status than ok, or `TRAINED_ON`.
    """

    record_id: str
    scores: tuple[float, ...] | None
    status: str
    reason: str = ""


def predict_files(
    checkpoint: Checkpoint,
    paths: Iterable[str | Path],
    *,
    source_fs: float | None = None,
    source_gain_per_mv: float | None = None,
    leads: Sequence[str] = (),
    batch_size: int = 64,
    device: str = "cpu",
    allow_overlap: bool = False,
) -> Iterator[FilePrediction]:
    """Yield a prediction per record file, in order, holding one batch at a time.

    A file that cannot be read or is rejected yields its status and reason. For a model trained on
    windows of long records, a file is cut into windows and their probabilities are averaged.

    Parameters
    ----------
    checkpoint
        As returned by `src.learning.checkpoints.load_checkpoint`.
    paths
        Files that `src.records.read_record` takes.
    source_fs, source_gain_per_mv
        Sampling rate in Hz and ADC units per mV of files that do not give them.
    leads
        Leads of files that do not give them, as `src.records.read_record` takes them.
    batch_size
        Inputs per batch.
    device
        The torch device that predicts.
    allow_overlap
        Do not mark recordings that the model was trained on.
    """
    return predict_sources(
        load_model(checkpoint, device),
        checkpoint.card,
        paths,
        hints=ReadingHints(source_fs, source_gain_per_mv, tuple(leads)),
        batch_size=batch_size,
        device=device,
        trained_on=TrainingRecordings(() if allow_overlap else checkpoint.card.train_hashes),
    )


def predict_sources(
    model: nn.Module,
    card: ModelCard,
    sources: Iterable[Source],
    *,
    trained_on: TrainingRecordings,
    hints: ReadingHints = NO_HINTS,
    batch_size: int = 64,
    device: str = "cpu",
) -> Iterator[FilePrediction]:
    """Yield a prediction per record file or record in memory, as `predict_files` does.

    Parameters
    ----------
    model, card
        The network in evaluation mode, and its card.
    sources
        Files, or records in memory (`ECGRecord`).
    trained_on
        Recordings that the model was trained on, which are marked.
    hints
        Facts that the files may not state.
    batch_size, device
        As for `predict_files`.
    """

    def iter_named() -> Iterator[tuple[tuple[str, list[str]], Iterable[torch.Tensor | NoInput]]]:
        for source in sources:
            name = source.record_id if isinstance(source, ECGRecord) else record_name(source)
            # Filled while the inputs are read
            fingerprints: list[str] = []
            yield (name, fingerprints), iter_inputs(source, card, hints, fingerprints=fingerprints)

    for (name, fingerprints), items in _score(model, card, iter_named(), batch_size, device):
        row = _average(name, items)
        if row.status == "ok" and trained_on.count(fingerprints) > 0:
            row = replace(row, reason=TRAINED_ON)
        yield row


def predict_inputs(
    model: nn.Module,
    card: ModelCard,
    inputs: Iterable[tuple[str, Iterable[torch.Tensor | NoInput]]],
    *,
    batch_size: int = 64,
    device: str = "cpu",
) -> Iterator[FilePrediction]:
    """Yield a prediction per record, from its name and its inputs, holding one batch at a time.

    Parameters
    ----------
    model, card
        The network in evaluation mode, and its card.
    inputs
        Names and inputs of the records (`src.classifier.inputs.iter_inputs`).
    batch_size, device
        As for `predict_files`.
    """
    for name, items in _score(model, card, inputs, batch_size, device):
        yield _average(name, items)


def _score(
    model: nn.Module,
    card: ModelCard,
    inputs: Iterable[tuple[N, Iterable[torch.Tensor | NoInput]]],
    batch_size: int,
    device: str,
) -> Iterator[tuple[N, list[torch.Tensor | NoInput]]]:
    """Yield each name with the probabilities (n_classes,) of its inputs, or why there are none."""
    # A batch may hold inputs of many records. The number of a record tells apart those of one name.
    numbered = (
        (number, name, item) for number, (name, items) in enumerate(inputs) for item in items
    )
    scored = _score_batches(model, card, numbered, batch_size, device)
    for (_, name), rows in groupby(scored, key=lambda row: row[:2]):
        yield name, [item for *_, item in rows]


def _score_batches(
    model: nn.Module,
    card: ModelCard,
    inputs: Iterable[tuple[int, N, torch.Tensor | NoInput]],
    batch_size: int,
    device: str,
) -> Iterator[tuple[int, N, torch.Tensor | NoInput]]:
    """Replace inputs by their probabilities (n_classes,); a `NoInput` stays as it is."""
    iterator = iter(inputs)
    while chunk := list(islice(iterator, batch_size)):
        signals = [item for *_, item in chunk if isinstance(item, torch.Tensor)]
        scores: Iterator[Any] = iter(())
        if signals:
            batch = torch.stack(signals).to(device)  # (B, n_leads, n_samples)
            with torch.inference_mode():
                logits = predict_logits(model, batch, card.crop_samples).cpu()
            scores = iter(to_scores(logits, card.single_label))
        for number, name, item in chunk:
            if isinstance(item, torch.Tensor):
                yield number, name, torch.as_tensor(next(scores))
            else:
                yield number, name, item


def _average(name: str, items: Sequence[torch.Tensor | NoInput]) -> FilePrediction:
    """Return the mean prediction over the windows of a record.

    Rejected windows do not count, unless all were rejected. A window that cannot be read makes the
    whole record unreadable.
    """
    scores = [item for item in items if isinstance(item, torch.Tensor)]
    failures = [item for item in items if isinstance(item, NoInput)]
    unreadable = [failure for failure in failures if failure.status == "unreadable"]
    if unreadable or not scores:
        failure = (unreadable or failures)[0]
        return FilePrediction(name, None, failure.status, failure.reason)
    return FilePrediction(name, tuple(torch.stack(scores).mean(0).tolist()), "ok")
