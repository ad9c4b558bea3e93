"""Predictions for the windows of a long recording, in the order of time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from src.classifier.file_predictions import TRAINED_ON, score_inputs
from src.classifier.inputs import Input, NoInput, Source, build_inputs, iter_windows
from src.classifier.notes import list_notes
from src.config import STANDARD_LEADS, PreprocessConfig
from src.learning.checkpoints import ModelCard
from src.learning.leaks import TrainingRecordings
from src.model import Member
from src.processed.record_files import to_millivolts
from src.processed.runs.pool import chunked
from src.records.reading import record_name
from src.records.record import NO_HINTS, ECGRecord, ReadingHints, RecordError
from src.utils import Float32Array, Float64Array, printable_lines

EXCERPT_S = 10.0
"""Seconds of an excerpt, from the beginning of its window."""

# Labels that the line of a timeline names
_LABELS_SAID = 5


@dataclass(frozen=True, eq=False)
class Excerpt:
    """The signal of the window in which a class is most certain.

    Attributes
    ----------
    class_name
        The class, predicted in this window with its highest probability.
    score
        That probability.
    start_s
        Start of the window in seconds from the beginning of the recording.
    signal_mv
        The leads of the network that the recording has, shape (n_leads, n_samples), in mV.
    fs
        Of `signal_mv`, in Hz.
    leads
        Names of its rows.
    """

    class_name: str
    score: float
    start_s: float
    signal_mv: Float32Array
    fs: float
    leads: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Timeline:
    """Probabilities for the windows of a recording, in the order of time.

    Attributes
    ----------
    record_id
        Name of the recording.
    classes
        Names, in the order of the columns of `scores`.
    start_s, end_s
        Of each window in seconds from the beginning of the recording, shape (n_windows,).
    scores
        Probabilities, shape (n_windows, n_classes); NaN for windows without a prediction.
    labels
        The predicted classes of each window (`ModelCard.predict_labels`).
    notes
        Of each window: why it has no prediction, quality flags, absent leads.
    fs
        Sampling rate of the recording in Hz.
    duration_s
        Length of the recording in seconds; windows may end before it.
    excerpts
        One of each class that is predicted somewhere, in the order of the classes.
    """

    record_id: str
    classes: tuple[str, ...]
    start_s: Float64Array
    end_s: Float64Array
    scores: Float64Array
    labels: tuple[tuple[str, ...], ...]
    notes: tuple[tuple[str, ...], ...]
    fs: float
    duration_s: float
    excerpts: tuple[Excerpt, ...] = field(default=(), repr=False)

    @property
    def is_predicted(self) -> list[bool]:
        """Whether each window has a prediction."""
        has_scores: list[bool] = np.asarray(np.isfinite(self.scores).all(axis=1)).tolist()
        return has_scores

    def __str__(self) -> str:
        n_windows, n_predicted = len(self.labels), sum(self.is_predicted)
        length_s = float(self.end_s[0] - self.start_s[0])
        parts = [f"{n_windows} windows of {length_s:g} s"]
        if n_predicted < n_windows:
            parts.append(f"{n_windows - n_predicted} without a prediction")
        counts = Counter(label for labels in self.labels for label in labels).most_common()
        parts += [f"{label} {n / n_predicted:.1%}" for label, n in counts[:_LABELS_SAID]]
        if len(counts) > _LABELS_SAID:
            parts.append("...")
        if not n_predicted:
            parts.append(self.notes[0][0])
        return printable_lines(f"{self.record_id}: {', '.join(parts)}")


def predict_timeline(
    members: Sequence[Member],
    card: ModelCard,
    source: Source,
    *,
    trained_on: TrainingRecordings,
    hints: ReadingHints = NO_HINTS,
    batch_size: int = 64,
    device: str = "cpu",
    predict_unfit: bool = False,
) -> Timeline:
    """Predict for each window of a recording, holding one batch of windows at a time.

    A network of windows gets the windows that it was trained on, any other network windows of the
    length of its input, one after the other. Samples after the last full window are left out, and
    a recording shorter than a window is its only window (`src.records.windows.window_spans`). A
    rejected or unfit window has no probabilities.

    Parameters
    ----------
    members
        The networks whose logits are averaged.
    card
        The card of all of them.
    source
        A file, or a record in memory.
    trained_on
        Recordings that the model was trained on; their windows are marked.
    hints
        Facts that the file may not state.
    batch_size
        Windows per batch.
    device
        The torch device that predicts.
    predict_unfit
        Predict for unfit windows too; their note stays.

    Raises
    ------
    RecordError
        If a file cannot be read to its end.
    """
    windows = iter_windows(source, _settings_of_windows(card.preprocess), hints)
    building = _Building(card, predict_unfit)
    for chunk in chunked(windows, batch_size):
        inputs = [item for _, item in build_inputs(((None, each) for each in chunk), card)]
        found = [item for item in inputs if isinstance(item, Input)]
        tensors = score_inputs(members, card, found, batch_size=batch_size, device=device)
        scores = iter([tensor.numpy() for tensor in tensors])
        known = iter(trained_on.contains([item.facts.fingerprint for item in found]).tolist())
        for window, item in zip(chunk, inputs, strict=True):
            if isinstance(item, Input):
                building.add(window, item, next(scores), next(known))
            else:
                building.add_rejected(window, item)
    name = source.record_id if isinstance(source, ECGRecord) else record_name(source)
    if not building.rows:
        raise RecordError(name, "has no windows: expected one or more samples")
    return building.finish(name)


def _settings_of_windows(config: PreprocessConfig) -> PreprocessConfig:
    """Return settings that cut a recording into windows."""
    if config.window_s:
        return config
    return replace(config, window_s=config.n_samples / config.fs)


class _Row(NamedTuple):
    """A window: its first sample and the one after its last, and what was predicted."""

    start: int
    stop: int
    scores: Float64Array
    labels: tuple[str, ...]
    notes: tuple[str, ...]


class _Building:
    """A timeline that grows window by window."""

    def __init__(self, card: ModelCard, predict_unfit: bool) -> None:
        self.card = card
        self.predict_unfit = predict_unfit
        self.rows: list[_Row] = []
        self.excerpts: dict[str, Excerpt] = {}
        self.nothing = np.full(len(card.classes), np.nan)
        self.fs, self.n_whole = 1.0, 0

    def add(
        self, window: ECGRecord, item: Input, scores: Float64Array, is_trained_on: bool
    ) -> None:
        """Add a window that gave an input."""
        facts = item.facts
        notes = [f"unfit: {facts.unfit}"] if facts.unfit else []
        notes += [TRAINED_ON] if is_trained_on else []
        notes += list_notes([facts], [], self.card, "mean")
        if facts.unfit and not self.predict_unfit:
            self._append(window, self.nothing, (), notes)
            return
        labels = self.card.predict_labels(scores.tolist())
        self._append(window, scores, labels, notes)
        for label in labels:
            score = float(scores[self.card.classes.index(label)])
            best = self.excerpts.get(label)
            if best is None or score > best.score:
                self.excerpts[label] = _cut_excerpt(label, score, window, item, self.card)

    def add_rejected(self, window: ECGRecord, item: NoInput) -> None:
        """Add a window that gave no input."""
        self._append(window, self.nothing, (), [f"{item.status}: {item.reason}"])

    def _append(
        self,
        window: ECGRecord,
        scores: Float64Array,
        labels: tuple[str, ...],
        notes: Sequence[str],
    ) -> None:
        first = window.first_sample
        self.rows.append(_Row(first, first + window.n_samples, scores, labels, tuple(notes)))
        self.fs, self.n_whole = window.fs, window.n_whole or window.n_samples

    def finish(self, record_id: str) -> Timeline:
        """Return the timeline of all windows."""
        order = self.card.classes
        return Timeline(
            record_id,
            order,
            np.array([row.start for row in self.rows]) / self.fs,
            np.array([row.stop for row in self.rows]) / self.fs,
            np.stack([row.scores for row in self.rows]),
            tuple(row.labels for row in self.rows),
            tuple(row.notes for row in self.rows),
            self.fs,
            self.n_whole / self.fs,
            tuple(self.excerpts[name] for name in order if name in self.excerpts),
        )


def _cut_excerpt(
    class_name: str, score: float, window: ECGRecord, item: Input, card: ModelCard
) -> Excerpt:
    """Return the beginning of a window in mV, as the network was given it."""
    fs = card.preprocess.fs
    present = item.arrays["lead_present"]
    rows = [STANDARD_LEADS.index(lead) for lead in card.leads]
    rows = [row for row in rows if present[row]] or rows
    stop = min(item.facts.n_valid, round(EXCERPT_S * fs))
    signal = to_millivolts(item.arrays)[rows, :stop].copy()
    leads = tuple(STANDARD_LEADS[row] for row in rows)
    return Excerpt(class_name, score, window.first_sample / window.fs, signal, fs, leads)


class Span(NamedTuple):
    """A stretch of time with the same predicted classes.

    Attributes
    ----------
    start_s, end_s
        In seconds from the beginning of the recording.
    labels
        The predicted classes; empty if no class reaches its threshold, None without a prediction.
    """

    start_s: float
    end_s: float
    labels: tuple[str, ...] | None


def list_spans(timeline: Timeline) -> list[Span]:
    """Return the stretches of a recording in which the predicted classes stay the same.

    They follow each other without a gap from the beginning to the end of the recording. Where
    windows overlap, each counts up to the beginning of the next one.
    """
    spans: list[Span] = []
    for piece in _iter_pieces(timeline):
        if spans and spans[-1].labels == piece.labels:
            spans[-1] = spans[-1]._replace(end_s=piece.end_s)
        else:
            spans.append(piece)
    return spans


def _iter_pieces(timeline: Timeline) -> Iterator[Span]:
    """Yield the windows without their overlap, and the gaps between them."""
    ends = np.minimum(timeline.end_s, np.append(timeline.start_s[1:], np.inf))
    columns = timeline.start_s.tolist(), ends.tolist(), timeline.labels, timeline.is_predicted
    covered_s = 0.0
    for start_s, end_s, labels, has_scores in zip(*columns, strict=True):
        if start_s > covered_s:
            yield Span(covered_s, start_s, None)
        yield Span(start_s, end_s, labels if has_scores else None)
        covered_s = end_s
    if covered_s < timeline.duration_s:
        yield Span(covered_s, timeline.duration_s, None)
