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
    """The answer for one file: probabilities in the order of the classes, or None with the reason.

    An answer, too, has a reason where the model was trained on the recording: `TRAINED_ON`.
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
    batch_size: int = 64,
    device: str = "cpu",
    allow_overlap: bool = False,
) -> Iterator[FilePrediction]:
    """Yield a prediction per record file, in order, holding one batch at a time.

    A file that cannot be read or is rejected yields its status and reason. A model trained on
    windows of long records sees those of the file, and their probabilities are averaged.

    Parameters
    ----------
    checkpoint
        As `src.checkpoints.load_checkpoint` returns it.
    paths
        Files that `src.records.read_record` takes.
    source_fs, source_gain_per_mv
        Rate in Hz and ADC units per mV of files that do not say them.
    batch_size, device
        Inputs at a time, and the torch device that answers for them.
    allow_overlap
        Do not mark recordings that the model was trained on.
    """
    return predict_sources(
        load_model(checkpoint, device),
        checkpoint.card,
        paths,
        hints=ReadingHints(source_fs, source_gain_per_mv),
        batch_size=batch_size,
        device=device,
        known=TrainingRecordings(() if allow_overlap else checkpoint.card.train_hashes),
    )


def predict_sources(
    model: nn.Module,
    card: ModelCard,
    sources: Iterable[Source],
    *,
    known: TrainingRecordings,
    hints: ReadingHints = NO_HINTS,
    batch_size: int = 64,
    device: str = "cpu",
) -> Iterator[FilePrediction]:
    """Yield a prediction per record file or record in memory, as `predict_files` does.

    Parameters
    ----------
    model, card
        The network, and what it expects.
    sources
        Files, or records in memory (`ECGRecord`).
    known
        Recordings that are marked, because the model was trained on them.
    hints
        Facts that the files may not state.
    batch_size, device
        As for `predict_files`.
    """

    def inputs() -> Iterator[tuple[tuple[str, list[str]], Iterable[torch.Tensor | NoInput]]]:
        for source in sources:
            prints: list[str] = []
            name = source.record_id if isinstance(source, ECGRecord) else record_name(source)
            yield (name, prints), iter_inputs(source, card, hints, fingerprints=prints)

    for (name, prints), items in _score(model, card, inputs(), batch_size, device):
        row = _sum_up(name, items)
        learned = row.status == "ok" and known.count(prints) > 0
        yield replace(row, reason=TRAINED_ON) if learned else row


def predict_inputs(
    model: nn.Module,
    card: ModelCard,
    inputs: Iterable[tuple[str, Iterable[torch.Tensor | NoInput]]],
    *,
    batch_size: int = 64,
    device: str = "cpu",
) -> Iterator[FilePrediction]:
    """Yield a prediction per name and its inputs (`src.inputs.iter_inputs`), in order, holding one
    batch at a time.
    """
    for name, items in _score(model, card, inputs, batch_size, device):
        yield _sum_up(name, items)


def _score(
    model: nn.Module,
    card: ModelCard,
    inputs: Iterable[tuple[N, Iterable[torch.Tensor | NoInput]]],
    batch_size: int,
    device: str,
) -> Iterator[tuple[N, list[torch.Tensor | NoInput]]]:
    """Yield each name with its probabilities (n_classes,), or with what gave none."""
    flat = ((number, name, item) for number, (name, items) in enumerate(inputs) for item in items)
    scored = _score_batches(model, card, flat, batch_size, device)
    for (_, name), rows in groupby(scored, key=lambda row: row[:2]):
        yield name, [item for *_, item in rows]


def _score_batches(
    model: nn.Module,
    card: ModelCard,
    inputs: Iterable[tuple[int, N, torch.Tensor | NoInput]],
    batch_size: int,
    device: str,
) -> Iterator[tuple[int, N, torch.Tensor | NoInput]]:
    """Put probabilities (n_classes,) in the place of inputs; what gave none stays as it is."""
    iterator = iter(inputs)
    while chunk := list(islice(iterator, batch_size)):
        signals = [item for *_, item in chunk if isinstance(item, torch.Tensor)]
        scores: Iterator[Any] = iter(())
        if signals:
            with torch.inference_mode():
                logits = predict_logits(
                    model, torch.stack(signals).to(device), card.crop_samples
                ).cpu()
            scores = iter(to_scores(logits, card.single_label))
        for number, name, item in chunk:
            yield (
                number,
                name,
                torch.as_tensor(next(scores)) if isinstance(item, torch.Tensor) else item,
            )


def _sum_up(name: str, items: Sequence[torch.Tensor | NoInput]) -> FilePrediction:
    """Return the mean over the windows of a record; windows that were rejected do not count unless
    all were.
    """
    scores = [item for item in items if isinstance(item, torch.Tensor)]
    failures = [item for item in items if isinstance(item, NoInput)]
    if not scores or any(failure.status == "unreadable" for failure in failures):
        worst = next(
            (failure for failure in failures if failure.status == "unreadable"), failures[0]
        )
        return FilePrediction(name, None, worst.status, worst.reason)
    return FilePrediction(name, tuple(torch.stack(scores).mean(0).tolist()), "ok")
