"""A trained network as one object: from recordings to named probabilities and saliency maps.

::

    from src.classifier import Classifier

    print(Classifier.load().predict("recording.hea"))
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.classifier.file_predictions import (
    FilePrediction,
    predict_sources,
    rank_scores,
    score_inputs,
)
from src.classifier.inputs import Input, Source, iter_inputs, iter_parts
from src.classifier.saliency import Saliency, explain
from src.classifier.timeline import Timeline, predict_timeline
from src.learning.checkpoints import Checkpoint, ModelCard, default_checkpoint, load_checkpoint
from src.learning.leaks import TrainingRecordings
from src.learning.networks import NetworkFactory
from src.model import load_members
from src.preprocessing import build_tensor
from src.records.record import ECGRecord, ReadingHints
from src.utils import Float64Array, device_info, printable_lines

Samples = NDArray[Any]
"""Shape (n_leads, n_samples), in mV; NaN where a sample is missing."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """The prediction for one recording.

    Attributes
    ----------
    record_id
        Name of the recording.
    classes
        Names, in the order of `scores`.
    scores
        Probabilities, shape (n_classes,); NaN where the status is not ok, unless those of unfit
        recordings were requested.
    labels
        The predicted classes: the most probable one where classes exclude each other, else all that
        reach their threshold, which may be none.
    status
        ``ok``; ``unfit`` where a prediction would mean nothing, as too few leads are usable or a
        flag voids it; ``unreadable`` or ``rejected``.
    reason
        The reason for another status than ok. For a recording that the network was trained on,
        `src.classifier.file_predictions.TRAINED_ON`.
    saliency
        The saliency map, if one was requested.
    notes
        What the recording is and how it was used: quality flags, absent leads, windows.
    not_sure
        The classes whose answer is not sure at the coverage that the checkpoint was fitted for
        (``evaluate --coverage``); none if it was not.
    unlike
        Share of the training recordings that are less unlike them than this one: from 0.99 on it is
        also among the notes. None if the checkpoint does not sum them up (``evaluate --unlike``).
    """

    record_id: str
    classes: tuple[str, ...]
    scores: Float64Array
    labels: tuple[str, ...]
    status: str = "ok"
    reason: str = ""
    saliency: Saliency | None = None
    notes: tuple[str, ...] = ()
    not_sure: tuple[str, ...] = ()
    unlike: float | None = None

    @property
    def probabilities(self) -> dict[str, float]:
        """Class -> probability."""
        return dict(zip(self.classes, self.scores.tolist(), strict=True))

    @property
    def label(self) -> str | None:
        """The most probable class; None without probabilities."""
        return self.classes[int(self.scores.argmax())] if self._has_scores else None

    @property
    def _has_scores(self) -> bool:
        return bool(np.isfinite(self.scores).all())

    def __str__(self) -> str:
        parts = []
        if self.status != "ok":
            parts += [self.status, self.reason]
        if self._has_scores:
            ranked = rank_scores(self.classes, self.scores.tolist(), self.labels, self.not_sure)
            parts += [text for _, text in ranked]
        return printable_lines(f"{self.record_id}: {', '.join(parts)}")


class Classifier:
    """A trained network that predicts for recordings of any rate, length and lead order.

    Parameters
    ----------
    checkpoint
        As returned by `src.learning.checkpoints.load_checkpoint`, of one network or several.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "auto") -> None:
        self.device = device_info(device).device
        self.card: ModelCard = checkpoint.card
        self.members = load_members(checkpoint, self.device)

    @classmethod
    def load(
        cls,
        path: str | Path | Sequence[str | Path] | None = None,
        *,
        device: str = "auto",
        network: str | NetworkFactory | None = None,
    ) -> Classifier:
        """Load a checkpoint.

        Parameters
        ----------
        path
            By default that of `src.learning.checkpoints.default_checkpoint`. Several are used as
            one, with the mean of their logits.
        device
            As for the class.
        network
            For a network from elsewhere: its factory, or ``package.module:factory``.

        Raises
        ------
        ValueError
            If the file is missing or is not a checkpoint, or its network is not named.
        """
        path = default_checkpoint() if path is None else path
        return cls(load_checkpoint(path, network=network), device)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        return self.card.classes

    @property
    def leads(self) -> tuple[str, ...]:
        """Input leads, in order; those that a recording lacks are zeros."""
        return self.card.leads

    @property
    def fs(self) -> float:
        """Sampling rate in Hz to which recordings are resampled."""
        return self.card.preprocess.fs

    @property
    def n_samples(self) -> int:
        """Number of samples at `fs` to which recordings are cut or padded."""
        return self.card.preprocess.n_samples

    @cached_property
    def _trained_on(self) -> TrainingRecordings:
        """The recordings that the network was trained on."""
        return TrainingRecordings(self.card.train_hashes)

    def __repr__(self) -> str:
        networks = f"{len(self.members)} networks, " if len(self.members) > 1 else ""
        return (
            f"Classifier({networks}{len(self.classes)} classes: {', '.join(self.classes)}; "
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
        long: str = "mean",
        predict_unfit: bool = False,
    ) -> Prediction:
        """Predict for one recording.

        Parameters
        ----------
        source
            A record file as `src.records.read_record` takes it, an `ECGRecord`, or samples
            (n_leads, n_samples) in mV.
        fs
            Sampling rate in Hz of samples, or of a file that does not give its own.
        leads
            Names of the rows of samples, by default `self.leads`; or leads of a file that does not
            give them, as `src.records.read_record` takes them.
        gain_per_mv
            ADC units per mV of a file that does not give them.
        saliency
            Add a saliency map by one of `src.classifier.saliency.METHODS`.
        class_name
            The class that the map explains, by default the most probable one.
        long
            For a recording longer than the input: the ``mean`` or the highest (``max``)
            probability over its windows, or the ``first`` window alone.
        predict_unfit
            Return the probabilities of an unfit recording too.

        Returns
        -------
        Prediction
            With status ok or unfit. An unfit recording has no probabilities and no map, unless
            `predict_unfit` is set.

        Raises
        ------
        ValueError
            If the recording cannot be read or used; a `RecordError` for a file.
        """
        source = self._as_source(source, fs, leads)
        hints = ReadingHints(fs, gain_per_mv, tuple(leads or ()))
        [prediction] = self._iter_predictions([source], hints, 64, long, predict_unfit)
        if prediction.status in ("unreadable", "rejected"):
            # Repeat the step that failed, to raise its error.
            for part in iter_parts(source, self.card.preprocess, hints, long):
                build_tensor(part, self.card.preprocess)
        if saliency is None or prediction.label is None:
            return prediction
        name = class_name or prediction.label
        return replace(prediction, saliency=self._explain(source, name, saliency, hints, long))

    def predict_many(
        self,
        sources: Iterable[Source | Samples],
        *,
        fs: float | None = None,
        leads: Sequence[str] | None = None,
        gain_per_mv: float | None = None,
        batch_size: int = 64,
        long: str = "mean",
        predict_unfit: bool = False,
    ) -> Iterator[Prediction]:
        """Yield a prediction per recording, in order, holding one batch at a time.

        A recording that cannot be read or used yields its status and reason.

        Parameters
        ----------
        sources
            As for `predict`. Samples may come as one array (n_records, n_leads, n_samples).
        fs, leads, gain_per_mv, long, predict_unfit
            As for `predict`.
        batch_size
            Inputs per batch.
        """
        as_sources = (self._as_source(source, fs, leads) for source in sources)
        hints = ReadingHints(fs, gain_per_mv, tuple(leads or ()))
        return self._iter_predictions(as_sources, hints, batch_size, long, predict_unfit)

    def timeline(
        self,
        source: Source | Samples,
        *,
        fs: float | None = None,
        leads: Sequence[str] | None = None,
        gain_per_mv: float | None = None,
        batch_size: int = 64,
        allow_overlap: bool = False,
        predict_unfit: bool = False,
    ) -> Timeline:
        """Predict for each window of a long recording, in the order of time.

        Parameters
        ----------
        source, fs, leads, gain_per_mv
            As for `predict`. Of a file, one batch of windows is read at a time, if its format
            allows it.
        batch_size
            Windows per batch.
        allow_overlap
            Do not mark windows that the network was trained on.
        predict_unfit
            Predict for unfit windows too.

        Raises
        ------
        ValueError
            If the recording cannot be read; a `RecordError` for a file.
        """
        return predict_timeline(
            self.members,
            self.card,
            self._as_source(source, fs, leads),
            trained_on=TrainingRecordings(()) if allow_overlap else self._trained_on,
            hints=ReadingHints(fs, gain_per_mv, tuple(leads or ())),
            batch_size=batch_size,
            device=self.device,
            predict_unfit=predict_unfit,
        )

    def _as_source(
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
            raise ValueError("samples have no sampling rate: give fs in Hz")
        return ECGRecord("samples", samples, fs, names)

    def _iter_predictions(
        self,
        sources: Iterable[Source],
        hints: ReadingHints,
        batch_size: int,
        long: str,
        predict_unfit: bool,
    ) -> Iterator[Prediction]:
        """Yield a prediction per source."""
        rows = predict_sources(
            self.members,
            self.card,
            sources,
            trained_on=self._trained_on,
            hints=hints,
            batch_size=batch_size,
            device=self.device,
            long=long,
            predict_unfit=predict_unfit,
        )
        return map(self._to_prediction, rows)

    def _to_prediction(self, row: FilePrediction) -> Prediction:
        """Return scores with the names of their classes and the predicted labels."""
        scores = np.full(len(self.classes), np.nan)
        if row.scores is not None:
            scores = np.array(row.scores)
        return Prediction(
            row.record_id,
            self.classes,
            scores,
            row.labels,
            row.status,
            row.reason,
            notes=row.notes,
            not_sure=row.not_sure,
            unlike=row.unlike,
        )

    def _explain(
        self, source: Source, class_name: str, method: str, hints: ReadingHints, long: str
    ) -> Saliency:
        """Return the map of a recording, or of its window where the class is most probable."""
        windows: dict[int, Input] = {}
        for number, item in enumerate(iter_inputs(source, self.card, hints, long)):
            if isinstance(item, Input):
                windows[number] = item
        # Unfit windows count only where all are unfit, as in the prediction.
        fit = {number: item for number, item in windows.items() if not item.facts.unfit}
        windows = fit or windows
        best = next(iter(windows))
        if len(windows) > 1 and class_name in self.classes:
            best = self._most_probable(windows, self.classes.index(class_name))
        maps = []
        for member in self.members:
            arrays = windows[best].arrays
            maps.append(explain(member.model, member.card, arrays, class_name, method))
        # The map of a mean is the mean of the maps.
        total = np.sum([each.values for each in maps], axis=0)
        return replace(maps[0], values=total / np.float32(len(maps)), window=best)

    def _most_probable(self, windows: dict[int, Input], column: int) -> int:
        """Return the number of the window with the highest score of a class."""
        scores = score_inputs(self.members, self.card, windows.values(), device=self.device)
        of_window = {
            number: float(values[column]) for number, values in zip(windows, scores, strict=True)
        }
        return max(of_window, key=of_window.__getitem__)
