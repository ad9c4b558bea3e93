"""From a model to `Predictions`, and from a checkpoint to the tables of a split or the rows of new
files.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from src.checkpoints import Checkpoint, ModelCard, load_checkpoint, load_model
from src.config import FALLBACK_LABEL, LoaderConfig
from src.dataloaders import make_loader
from src.datasets import Batch, ECGDataset, View
from src.duplicates import refuse_overlap
from src.fingerprints import FingerprintIndex
from src.inputs import NoInput, Source, iter_inputs
from src.judging import LEARNED_ON, JudgeOptions, format_judgement, html_judgement, judge
from src.metrics import Predictions, compute_metrics, format_metrics
from src.records import ECGRecord, record_name
from src.rich import Rich
from src.splits import SPLIT_NAMES
from src.staging import local_copy
from src.store import load_manifest, load_record_file
from src.subgroups import select_rows
from src.targets import LabelledRecords, choose_records, encode_targets, load_records
from src.utils import save_json

__all__ = [
    "Evaluation",
    "JudgeOptions",
    "Predictions",
    "compute_metrics",
    "evaluate",
    "format_metrics",
    "predict",
    "predict_files",
]

logger = logging.getLogger(__name__)

N = TypeVar("N")


def window_starts(n_samples: int, window: int) -> list[int]:
    """Return the starts of windows that overlap by half and reach both ends."""
    if window <= 0 or window >= n_samples:
        return [0]
    count = -(-2 * (n_samples - window) // window) + 1
    return [round(i * (n_samples - window) / (count - 1)) for i in range(count)]


def predict_logits(model: nn.Module, signal: torch.Tensor, crop_samples: int = 0) -> torch.Tensor:
    """Return logits (B, n_classes) of signals (B, n_leads, n_samples).

    A model trained on crops sees overlapping windows of that length, and its logits are averaged
    over them, but for windows of padding alone, which training does not show either.
    """
    starts = window_starts(signal.shape[2], crop_samples)
    if len(starts) == 1:
        logits: torch.Tensor = model(signal)
        return logits
    windows = torch.stack(
        [signal[:, :, start : start + crop_samples] for start in starts]
    )  # (n_windows, B, n_leads, T)
    logits = model(windows.flatten(0, 1)).view(len(starts), signal.shape[0], -1)
    moves = (windows != windows[..., :1]).flatten(2).any(dim=2)  # padding does not, in any lead
    weights = (moves | ~moves.any(dim=0)).to(logits.dtype)[:, :, None]
    averaged: torch.Tensor = (logits * weights).sum(dim=0) / weights.sum(dim=0)
    return averaged


def predict(
    model: nn.Module, loader: DataLoader[Batch], *, device: str = "cpu", crop_samples: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits and targets, each (n_records, n_classes), on the CPU and in the loader's
    order.
    """
    model.eval()
    logits, targets = [], []
    with torch.inference_mode():
        for batch in loader:
            answer = predict_logits(model, batch.signal.to(device, non_blocking=True), crop_samples)
            logits.append(answer.float().cpu())
            targets.append(batch.target.cpu())
    return torch.cat(logits), torch.cat(targets)


def to_probabilities(logits: torch.Tensor, single_label: bool) -> torch.Tensor:
    """Return probabilities (B, n_classes): softmax over exclusive classes, else a sigmoid for
    each.
    """
    return logits.softmax(dim=1) if single_label else logits.sigmoid()


def to_scores(logits: torch.Tensor, single_label: bool) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return probabilities in double precision."""
    scores: np.ndarray[Any, np.dtype[np.float64]] = to_probabilities(
        logits.double(), single_label
    ).numpy()
    return scores


@dataclass(frozen=True)
class Evaluation(Rich):
    """What `evaluate` found on one split."""

    split: str
    predictions: Predictions
    metrics: dict[str, Any]

    def __str__(self) -> str:
        return (
            f"{self.split}: {self.metrics['n_records']} records\n{format_judgement(self.metrics)}"
        )

    def _repr_html_(self) -> str:
        return html_judgement(self.split, self.metrics)


def evaluate(
    checkpoint: str | Path,
    processed: str | Path,
    *,
    split: str = "test",
    out: str | Path | None = None,
    batch_size: int = 64,
    device: str = "cpu",
    keep_other: bool = False,
    options: JudgeOptions | None = None,
    allow_overlap: bool = False,
) -> Evaluation:
    """Judge a checkpoint on a split of a processed folder.

    Parameters
    ----------
    checkpoint
        A ``best.pth`` or ``latest.pth``.
    processed
        The folder that preprocessing filled.
    split
        train, val or test.
    out
        Gets ``predictions_<split>.npz`` and ``metrics_<split>.json``; `src.judging.judge` says what
        is in them.
    batch_size, device
        Records at a time, and the torch device that judges them.
    keep_other
        Judge records with the fallback label too.
    options
        Intervals, thresholds, calibration and the Challenge's score; by default none of them.
    allow_overlap
        Judge records that are recordings the model was trained on, too.

    Raises
    ------
    ValueError
        If the split is empty, the records have none of the checkpoint's classes, or another shape
        than it was trained on; if val or test holds recordings that the model was trained on, and
        `allow_overlap` is not set; if thresholds or a calibration would be chosen on the split that
        is judged, or an option does not fit the model.
    """
    processed = local_copy(processed)
    options, loaded = options or JudgeOptions(), load_checkpoint(checkpoint, device)
    options.check(split, loaded.card.single_label)
    records = split_records(loaded, processed, split, keep_other=keep_other, everyone=True)
    if not allow_overlap:
        refuse_overlap(loaded.card.train_hashes, records.keys, records.signal_hashes, split)

    def predicted(chosen: LabelledRecords) -> Predictions:
        return predict_records(loaded, chosen, batch_size=batch_size, device=device)

    validation = None
    if options.learns:
        learned_on = split_records(loaded, processed, LEARNED_ON, keep_other=keep_other)
        if not allow_overlap:
            refuse_overlap(
                loaded.card.train_hashes, learned_on.keys, learned_on.signal_hashes, LEARNED_ON
            )
        validation = predicted(learned_on)
    everyone = predicted(records)
    predictions = (
        everyone
        if _takes_negatives(loaded.card)
        else everyone.subset(np.flatnonzero((everyone.y_true == 1).any(axis=1)))
    )
    rows = select_rows(load_manifest(processed), predictions.keys)
    predictions, metrics = judge(predictions, rows, options, validation, everyone)
    if out is not None:
        predictions.save(Path(out) / f"predictions_{split}.npz")
        save_json(
            {"split": split, "checkpoint": str(checkpoint), **metrics},
            Path(out) / f"metrics_{split}.json",
        )
    return Evaluation(split, predictions, metrics)


def split_records(
    checkpoint: Checkpoint,
    processed: str | Path,
    split: str,
    *,
    keep_other: bool = False,
    everyone: bool = False,
) -> LabelledRecords:
    """Return the records of a split that a checkpoint can be judged on, of which one at least
    carries a class; see `evaluate`.

    With several labels those without a class are among them where the model was validated on such,
    or for `everyone`.
    """
    card = checkpoint.card
    if split not in SPLIT_NAMES:
        raise ValueError(f"split is {split!r}: expected one of {', '.join(SPLIT_NAMES)}")
    learned = FALLBACK_LABEL in card.classes and bool(
        card.config.get("train", {}).get("keep_other")
    )
    splits = load_records(processed, keep_other=keep_other or learned)
    negatives = not card.single_label and (everyone or _takes_negatives(card))
    records = choose_records(
        splits[split], card.classes, single_label=card.single_label, keep_negative=negatives
    )
    judged = (
        records
        if _takes_negatives(card)
        else choose_records(records, card.classes, single_label=card.single_label)
    )
    if not len(judged):
        raise ValueError(_why_empty(processed, split, splits, card))
    return records


def _takes_negatives(card: ModelCard) -> bool:
    """Tell whether a model was validated on records without a class, and so is judged on them."""
    return not card.single_label and bool(card.config.get("train", {}).get("keep_negative"))


def predict_records(
    checkpoint: Checkpoint, records: LabelledRecords, *, batch_size: int, device: str
) -> Predictions:
    """Return the predictions of a checkpoint for records of a processed folder, at least one."""
    card = checkpoint.card
    _check_input(records.paths[0], card, checkpoint.path)
    targets = encode_targets(records, card.classes)
    dataset = ECGDataset(
        records.paths, targets, View(card.leads, card.normalization), records.datasets
    )
    loader = make_loader(dataset, LoaderConfig(batch_size=batch_size))
    logits, _ = predict(
        load_model(checkpoint, device), loader, device=device, crop_samples=card.crop_samples
    )
    thresholds = np.array(card.thresholds) if card.thresholds else None
    return Predictions(
        keys=records.keys,
        y_true=targets,
        y_score=to_scores(logits, card.single_label),
        classes=card.classes,
        single_label=card.single_label,
        thresholds=thresholds,
    )


def _why_empty(processed: str | Path, split: str, splits: Any, card: ModelCard) -> str:
    if len(splits[split]):
        return (
            f"{processed}: none of the {len(splits[split])} records of split {split} "
            "carries a class of the checkpoint "
            f"({', '.join(card.classes)}); was it trained on other labels?"
        )
    there = (
        ", ".join(f"{name} ({len(records)})" for name, records in splits.items() if len(records))
        or "none"
    )
    return f"{processed}: split {split} has no records; splits with records: {there}"


def _check_input(record: Path, card: ModelCard, path: Path) -> None:
    """Refuse records of another length or rate, which give no error of their own and scores that
    mean nothing.
    """
    arrays = load_record_file(record)
    held, fs, wanted = arrays["signal"].shape[1], float(arrays["fs"]), card.preprocess
    if held != wanted.n_samples or not math.isclose(fs, wanted.fs, rel_tol=1e-6):
        raise ValueError(
            f"{path}: was trained on {wanted.n_samples} samples at {wanted.fs:g} Hz, the "
            f"records are {held} samples at "
            f"{fs:g} Hz; preprocess with --fs {wanted.fs:g} --n-samples {wanted.n_samples}"
        )


# New files ----------------------------------------------------------------------------------------


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
        source_fs=source_fs,
        source_gain_per_mv=source_gain_per_mv,
        batch_size=batch_size,
        device=device,
        known=FingerprintIndex(() if allow_overlap else checkpoint.card.train_hashes),
    )


def predict_sources(
    model: nn.Module,
    card: ModelCard,
    sources: Iterable[Source],
    *,
    known: FingerprintIndex,
    source_fs: float | None = None,
    source_gain_per_mv: float | None = None,
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
        Fingerprints of the recordings that are marked, because the model was trained on them.
    source_fs, source_gain_per_mv, batch_size, device
        As for `predict_files`.
    """
    origin = {"source_fs": source_fs, "source_gain_per_mv": source_gain_per_mv}

    def inputs() -> Iterator[tuple[tuple[str, list[str]], Iterable[torch.Tensor | NoInput]]]:
        for source in sources:
            prints: list[str] = []
            name = source.record_id if isinstance(source, ECGRecord) else record_name(source)
            yield (name, prints), iter_inputs(source, card, fingerprints=prints, **origin)

    for (name, prints), items in _score(model, card, inputs(), batch_size, device):
        row = _sum_up(name, items)
        learned = row.status == "ok" and known.contains(prints).any()
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
