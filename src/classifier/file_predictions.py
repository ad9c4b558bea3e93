"""Predictions for record files, one batch at a time, with notes on what the files hold."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch

from src.classifier.inputs import (
    LONG_MODES,
    Input,
    InputFacts,
    NoInput,
    Source,
    build_inputs,
    read_parts,
    to_input,
)
from src.classifier.notes import list_notes
from src.learning.checkpoints import Checkpoint, ModelCard
from src.learning.leaks import TrainingRecordings
from src.learning.unlike import UNLIKE_FROM
from src.model import Member, load_members, to_scores
from src.processed.runs.pool import chunked
from src.records.reading import record_name
from src.records.record import NO_HINTS, ECGRecord, ReadingHints

K = TypeVar("K")

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
        ``ok``; ``unfit`` where a prediction would mean nothing, as too few leads are usable or a
        flag voids it; ``unreadable`` or ``rejected``.
    reason
        The reason for another status than ok, or `TRAINED_ON`.
    notes
        What the recording is and how it was used (`src.classifier.notes`).
    path
        The file, ``file::id`` for a record of many; empty for a record in memory.
    labels
        The predicted classes (`ModelCard.predict_labels`); none without probabilities.
    not_sure
        Classes whose answer is not sure (`ModelCard.list_unsure`); none without limits of coverage.
    unlike
        Share of the training recordings that are less unlike them than this one, of windows the
        median (`src.learning.unlike`); None where the checkpoint does not sum them up, or several
        are used as one.
    """

    record_id: str
    scores: tuple[float, ...] | None
    status: str
    reason: str = ""
    notes: tuple[str, ...] = ()
    path: str = ""
    labels: tuple[str, ...] = ()
    not_sure: tuple[str, ...] = ()
    unlike: float | None = None


class _Owner(NamedTuple):
    """Where a prediction comes from: the name and the path of a record.

    Its number tells apart records of one name.
    """

    number: int
    record_id: str
    path: str


class _Scored(NamedTuple):
    """The probabilities (n_classes,) of an input, and its facts.

    `is_known` says whether the model was trained on it, and `unlike` how unlike the training it is.
    """

    scores: torch.Tensor
    facts: InputFacts
    is_known: bool = False
    unlike: float = math.nan


def _is_known(item: _Scored | NoInput) -> bool:
    return isinstance(item, _Scored) and item.is_known


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
    long: str = "mean",
    predict_unfit: bool = False,
) -> Iterator[FilePrediction]:
    """Yield a prediction per record file, in order, holding one batch at a time.

    A file that cannot be read, is rejected or is unfit for the network yields its status and
    reason. A file longer than the input is cut into windows (`src.classifier.inputs.iter_parts`).

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
    long
        For recordings longer than the input: the ``mean`` or the highest (``max``) probability over
        their windows, or the ``first`` window alone.
    predict_unfit
        Return the probabilities of unfit recordings too; their status stays ``unfit``.

    Raises
    ------
    ValueError
        If `long` is none of these.
    """
    return predict_sources(
        load_members(checkpoint, device),
        checkpoint.card,
        paths,
        hints=ReadingHints(source_fs, source_gain_per_mv, tuple(leads)),
        batch_size=batch_size,
        device=device,
        trained_on=TrainingRecordings(() if allow_overlap else checkpoint.card.train_hashes),
        long=long,
        predict_unfit=predict_unfit,
    )


def predict_sources(
    members: Sequence[Member],
    card: ModelCard,
    sources: Iterable[Source],
    *,
    trained_on: TrainingRecordings,
    hints: ReadingHints = NO_HINTS,
    batch_size: int = 64,
    device: str = "cpu",
    long: str = "mean",
    predict_unfit: bool = False,
) -> Iterator[FilePrediction]:
    """Yield a prediction per record file or record in memory, as `predict_files` does.

    Parameters
    ----------
    members
        The networks whose logits are averaged.
    card
        The card of all of them.
    sources
        Files, or records in memory (`ECGRecord`).
    trained_on
        Recordings that the model was trained on, which are marked.
    hints
        Facts that the files may not state.
    batch_size, device, long, predict_unfit
        As for `predict_files`.
    """
    if long not in LONG_MODES:
        raise ValueError(f"long is {long!r}: expected one of {', '.join(LONG_MODES)}")

    def iter_parts() -> Iterator[tuple[_Owner, ECGRecord | NoInput]]:
        for number, source in enumerate(sources):
            if isinstance(source, ECGRecord):
                owner = _Owner(number, source.record_id, "")
            else:
                owner = _Owner(number, record_name(source), str(source))
            for part in read_parts(source, card.preprocess, hints, long):
                yield owner, part

    # Without a generator of its own, this function would check `long` only when iterated.
    def iter_rows() -> Iterator[FilePrediction]:
        inputs = build_inputs(iter_parts(), card)
        scored = _score_batches(members, card, inputs, batch_size, device, trained_on)
        for owner, rows in groupby(scored, key=itemgetter(0)):
            items = [item for _, item in rows]
            row = _summarize(owner, items, card, long, predict_unfit)
            if row.status == "ok" and any(_is_known(item) for item in items):
                row = replace(row, reason=TRAINED_ON)
            yield row

    return iter_rows()


def score_inputs(
    members: Sequence[Member],
    card: ModelCard,
    inputs: Iterable[Input],
    *,
    batch_size: int = 64,
    device: str = "cpu",
) -> Iterator[torch.Tensor]:
    """Yield the probabilities (n_classes,) of inputs, in order, holding one batch at a time.

    Parameters
    ----------
    members
        The networks whose logits are averaged.
    card
        The card of all of them.
    inputs
        As `src.classifier.inputs.iter_inputs` yields them.
    batch_size, device
        As for `predict_files`.
    """
    for chunk in chunked(inputs, batch_size):
        yield from _score(members, card, chunk, device)


def _score_batches(
    members: Sequence[Member],
    card: ModelCard,
    inputs: Iterable[tuple[K, Input | NoInput]],
    batch_size: int,
    device: str,
    trained_on: TrainingRecordings,
) -> Iterator[tuple[K, _Scored | NoInput]]:
    """Replace inputs by their probabilities and facts; a `NoInput` stays as it is.

    A batch may hold inputs of many records.
    """
    for chunk in chunked(inputs, batch_size):
        found = [item for _, item in chunk if isinstance(item, Input)]
        scored: Iterator[_Scored] = iter(())
        if found:
            scores = _score(members, card, found, device)
            facts = [item.facts for item in found]
            are_known = trained_on.contains([each.fingerprint for each in facts]).tolist()
            scored = map(_Scored, scores, facts, are_known, _rank_unlike(members, found, device))
        for owner, item in chunk:
            yield owner, next(scored) if isinstance(item, Input) else item


def _score(
    members: Sequence[Member], card: ModelCard, inputs: Sequence[Input], device: str
) -> torch.Tensor:
    """Return the probabilities (B, n_classes) of all networks together."""
    logits = torch.stack([_predict(member, inputs, device) for member in members])
    return torch.from_numpy(to_scores(logits.mean(dim=0), card.single_label))


def _predict(member: Member, inputs: Sequence[Input], device: str) -> torch.Tensor:
    """Return the logits (B, n_classes) of a network for inputs."""
    with torch.inference_mode():
        return member.predict(_stack(member, inputs, device)).cpu()


def _rank_unlike(members: Sequence[Member], inputs: Sequence[Input], device: str) -> list[float]:
    """Return how unlike the training recordings of a network inputs are; NaN for several."""
    if len(members) > 1 or members[0].reference is None:
        return [math.nan] * len(inputs)
    with torch.inference_mode():
        ranks: list[float] = members[0].rank_unlike(_stack(members[0], inputs, device)).tolist()
    return ranks


def _stack(member: Member, inputs: Sequence[Input], device: str) -> torch.Tensor:
    """Return inputs as a batch (B, n_leads, n_samples), scaled as a network expects them."""
    return torch.stack([to_input(item.arrays, member.card) for item in inputs]).to(device)


def _summarize(
    owner: _Owner,
    items: Sequence[_Scored | NoInput],
    card: ModelCard,
    long: str,
    predict_unfit: bool,
) -> FilePrediction:
    """Return the prediction for a record from those for its windows.

    Rejected and unfit windows do not count, unless all are. A window that cannot be read makes the
    whole record unreadable.
    """
    scored = [item for item in items if isinstance(item, _Scored)]
    failures = [item for item in items if isinstance(item, NoInput)]
    unreadable = [failure for failure in failures if failure.status == "unreadable"]
    notes = list_notes([item.facts for item in scored], failures, card, long)
    scores: tuple[float, ...] | None = None
    status, reason = "ok", ""
    if unreadable or not scored:
        failure = (unreadable or failures)[0]
        status, reason = failure.status, failure.reason
    elif fit := [item for item in scored if not item.facts.unfit]:
        scores = _combine(fit, long)
    else:
        status, reason = "unfit", scored[0].facts.unfit
        if predict_unfit:
            scores = _combine(scored, long)
    row = FilePrediction(owner.record_id, scores, status, reason, notes, owner.path)
    if scored and not unreadable:
        row = _note_unlike(row, [item for item in scored if not item.facts.unfit] or scored)
    if scores is None:
        return row
    labels = card.predict_labels(scores)
    return replace(row, labels=labels, not_sure=card.list_unsure(scores, labels))


def _note_unlike(row: FilePrediction, scored: Sequence[_Scored]) -> FilePrediction:
    """Return a prediction with how unlike the training its recording is, noted if it is far off."""
    unlike = statistics.median(item.unlike for item in scored)
    if math.isnan(unlike):
        return row
    notes = row.notes
    if unlike >= UNLIKE_FROM:
        notes = (*notes, f"unlike:{unlike:.3f}")
    return replace(row, unlike=unlike, notes=notes)


def rank_scores(
    classes: Sequence[str],
    scores: Sequence[float],
    labels: Sequence[str],
    not_sure: Sequence[str] = (),
) -> list[tuple[str, str]]:
    """Return each class and its probability as text, the most probable first.

    Predicted classes (`labels`) are marked by a star, those that are not sure by a question mark:
    ``MI 0.981*``, ``CD 0.620*?``.
    """
    ranked = sorted(zip(classes, scores, strict=True), key=lambda pair: -pair[1])
    found = []
    for name, score in ranked:
        marks = ("*" if name in labels else "") + ("?" if name in not_sure else "")
        found.append((name, f"{name} {score:.3f}{marks}"))
    return found


def _combine(scored: Sequence[_Scored], long: str) -> tuple[float, ...]:
    """Return the mean or the highest probabilities over windows."""
    scores = torch.stack([item.scores for item in scored])  # (n_windows, n_classes)
    combined = scores.amax(0) if long == "max" else scores.mean(0)
    return tuple(combined.tolist())
