"""A trained network as one object: recordings in, named probabilities out, with a map of what they
rest on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.classifier.file_predictions import FilePrediction, predict_inputs, predict_sources
from src.classifier.inputs import Source, iter_windows, to_input
from src.classifier.saliency import Saliency, explain
from src.learning.checkpoints import Checkpoint, ModelCard, default_checkpoint, load_checkpoint
from src.learning.leaks import TrainingRecordings
from src.learning.predictions import DEFAULT_THRESHOLD
from src.model import load_model
from src.preprocessing import build_tensor
from src.processed.runs.tasks import RejectedError
from src.records.record import ECGRecord, ReadingHints
from src.utils import Float64Array, device_info

Samples = NDArray[Any]
"""Shape (n_leads, n_samples), in mV; NaN where a sample is missing."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """The answer for one recording.

    Attributes
    ----------
    record_id
        Of the recording.
    classes
        Names, in the order of `scores`.
    scores
        Probabilities, shape (n_classes,); NaN where there is no answer.
    labels
        The classes called present: the most probable one where classes exclude each other, else
        those that reach their threshold, which may be none.
    status, reason
        ``ok``, or ``unreadable`` or ``rejected`` and why; an answer has `src.eval.TRAINED_ON` as
        its reason where it is one for a recording that the network learned from.
    saliency
        What the answer rests on, where it was asked for.
    """

    record_id: str
    classes: tuple[str, ...]
    scores: Float64Array
    labels: tuple[str, ...]
    status: str = "ok"
    reason: str = ""
    saliency: Saliency | None = None

    @property
    def probabilities(self) -> dict[str, float]:
        """Class -> probability."""
        return dict(zip(self.classes, self.scores.tolist(), strict=True))

    @property
    def label(self) -> str | None:
        """The most probable class; None where there is no answer."""
        return self.classes[int(self.scores.argmax())] if self.status == "ok" else None

    def __str__(self) -> str:
        if self.status != "ok":
            return f"{self.record_id}: {self.status}, {self.reason}"
        ranked = sorted(self.probabilities.items(), key=lambda item: -item[1])
        return f"{self.record_id}: " + ", ".join(f"{name} {score:.3f}" for name, score in ranked)


class Classifier:
    """A network with all it needs to answer for recordings of any rate, length and lead order.

    Parameters
    ----------
    checkpoint
        As `src.checkpoints.load_checkpoint` returns it.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "auto") -> None:
        self.device = device_info(device).device
        self.card: ModelCard = checkpoint.card
        self.model = load_model(checkpoint, self.device)

    @classmethod
    def load(cls, path: str | Path | None = None, *, device: str = "auto") -> Classifier:
        """Load a checkpoint, by default that of `default_checkpoint`.

        Raises
        ------
        ValueError
            If the file is missing or no checkpoint.
        """
        return cls(load_checkpoint(default_checkpoint() if path is None else path), device)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        return self.card.classes

    @property
    def leads(self) -> tuple[str, ...]:
        """Leads that the network sees, in order; those that a recording lacks are zeros."""
        return self.card.leads

    @property
    def fs(self) -> float:
        """The rate in Hz to which recordings are brought."""
        return self.card.preprocess.fs

    @property
    def n_samples(self) -> int:
        """The length to which recordings are cut or padded, at `fs`."""
        return self.card.preprocess.n_samples

    @cached_property
    def _known(self) -> TrainingRecordings:
        """The recordings that the network was trained on."""
        return TrainingRecordings(self.card.train_hashes)

    def __repr__(self) -> str:
        return (
            f"Classifier({len(self.classes)} classes: {', '.join(self.classes)}; "
            f"{len(self.leads)} leads, {self.fs:g} Hz)"
        )

    def predict(
        self,
        source: Source | Samples,
        *,
        fs: float | None = None,
        leads: Sequence[str] | None = None,
        gain_per_mv: float | None = None,
        saliency: str | None = None,
        class_name: str | None = None,
    ) -> Prediction:
        """Answer for one recording.

        Parameters
        ----------
        source
            A record file as `src.records.read_record` takes it, an `ECGRecord`, or samples
            (n_leads, n_samples) in mV.
        fs
            Rate in Hz of samples, or of a file that does not say its own.
        leads
            Names of the rows of samples; by default those of `leads` in their order, where there
            are as many.
        gain_per_mv
            ADC units per mV of a file that does not say them.
        saliency
            Ask for a map too, by one of `src.saliency.METHODS`.
        class_name
            The class that the map explains; by default the most probable.

        Raises
        ------
        ValueError
            If the recording cannot be read or used; a `RecordError` for a file.
        """
        source = self._named(source, fs, leads)
        hints = ReadingHints(fs, gain_per_mv)
        [answer] = self._answers([source], hints, batch_size=64)
        if answer.status != "ok":
            for window in iter_windows(source, self.card.preprocess, hints):
                build_tensor(
                    window, self.card.preprocess
                )  # raises the error that the answer only tells
        if saliency is None:
            return answer
        name = class_name or self.classes[int(answer.scores.argmax())]
        return replace(answer, saliency=self._explain(source, name, saliency, hints))

    def predict_many(
        self,
        sources: Iterable[Source | Samples],
        *,
        fs: float | None = None,
        leads: Sequence[str] | None = None,
        gain_per_mv: float | None = None,
        batch_size: int = 64,
    ) -> Iterator[Prediction]:
        """Yield an answer per recording, in order, holding one batch at a time.

        Parameters are those of `predict`; samples may come as one array (n_records, n_leads,
        n_samples). A recording that cannot be read or used yields its status and reason.
        """
        named = (self._named(source, fs, leads) for source in sources)
        return self._answers(named, ReadingHints(fs, gain_per_mv), batch_size)

    def _named(
        self, source: Source | Samples, fs: float | None, leads: Sequence[str] | None
    ) -> Source:
        """Return samples as a record; a record or a path stays as it is."""
        if isinstance(source, (str, Path, ECGRecord)):
            return source
        samples = np.asarray(source, np.float32)
        names = self.leads if leads is None else tuple(leads)
        if samples.ndim != 2 or len(samples) != len(names):
            raise ValueError(
                f"samples have shape {samples.shape}: expected ({len(names)}, n_samples) "
                f"for the leads {', '.join(names)}"
            )
        if fs is None:
            raise ValueError("samples come without a sampling rate: give fs in Hz")
        return ECGRecord("samples", samples, fs, names)

    def _answers(
        self, sources: Iterable[Source], hints: ReadingHints, batch_size: int
    ) -> Iterator[Prediction]:
        rows = predict_sources(
            self.model,
            self.card,
            sources,
            known=self._known,
            hints=hints,
            batch_size=batch_size,
            device=self.device,
        )
        return map(self._named_scores, rows)

    def _named_scores(self, row: FilePrediction) -> Prediction:
        if row.scores is None:
            nothing = np.full(len(self.classes), np.nan)
            return Prediction(row.record_id, self.classes, nothing, (), row.status, row.reason)
        scores = np.array(row.scores)
        if self.card.single_label:
            labels: tuple[str, ...] = (self.classes[int(scores.argmax())],)
        else:
            thresholds = self.card.thresholds or (DEFAULT_THRESHOLD,) * len(scores)
            called = zip(self.classes, scores, thresholds, strict=True)
            labels = tuple(name for name, score, threshold in called if score >= threshold)
        return Prediction(row.record_id, self.classes, scores, labels, row.status, row.reason)

    def _explain(
        self, source: Source, class_name: str, method: str, hints: ReadingHints
    ) -> Saliency:
        """Return the map of a recording, or of the window of it where the class is most
        probable.
        """
        windows = dict(self._usable_windows(source, hints))
        best = next(iter(windows))
        if len(windows) > 1 and class_name in self.classes:
            inputs = [
                (str(number), [to_input(arrays, self.card)]) for number, arrays in windows.items()
            ]
            column = self.classes.index(class_name)
            rows = predict_inputs(self.model, self.card, inputs, device=self.device)
            scores = {
                int(row.record_id): row.scores[column] for row in rows if row.scores is not None
            }
            best = max(scores, key=scores.__getitem__)
        return replace(
            explain(self.model, self.card, windows[best], class_name, method), window=best
        )

    def _usable_windows(
        self, source: Source, hints: ReadingHints
    ) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
        """Yield the number and the arrays of each window that is not rejected."""
        windows = iter_windows(source, self.card.preprocess, hints)
        for number, window in enumerate(windows):
            with suppress(RejectedError):
                yield number, build_tensor(window, self.card.preprocess).arrays
