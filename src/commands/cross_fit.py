"""Soft targets by cross-fitting: each network predicts the training records it did not see.

Out-of-fold predictions show which labels are likely to be wrong and which classes resemble each
other. A network trained on them beside the labels overfits later and less (distillation: Hinton et
al., 2015; out of fold, so that no teacher repeats the labels it was trained on).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.config import Config
from src.dataloaders import build_dataloaders
from src.eval import predict_records
from src.learning.checkpoints import load_checkpoint
from src.learning.leaks import drop_copies, refuse_trained_on
from src.learning.predictions import Predictions
from src.processed.mirror import local_copy
from src.processed.targets import (
    LabelledRecords,
    choose_records,
    choose_task,
    find_classes,
    load_records,
)
from src.training import run_training
from src.utils import device_info

logger = logging.getLogger(__name__)

PREDICTIONS_FILE = "predictions_cross_fit.npz"


def run_cross_fit(
    config: Config, processed: str | Path, out: str | Path, *, parts: int = 4, resume: bool = False
) -> Predictions:
    """Train a network without each part of the training records, and predict that part with it.

    Parameters
    ----------
    config
        Training settings of each network. With several labels, auxiliary classes are predicted too.
        The last epoch is used, since no records are held back to choose one. Soft targets are
        ignored, since this makes them.
    processed
        The processed folder, or its URL. Its validation and test records are not used.
    out
        Gets ``predictions_cross_fit.npz``, for ``train --soft-targets``, and a run per part,
        ``part_<number>``.
    parts
        Number of parts. The records of a patient, and copies of a recording, are never both trained
        on and predicted by one network.
    resume
        Resume runs that were interrupted.

    Returns
    -------
    Predictions
        For every training record; with one label per record, for those with exactly one class. The
        classes are those of the networks.

    Raises
    ------
    ValueError
        If there are fewer than two parts, fewer patients than parts, or a class whose records are
        all in one part.
    """
    processed = local_copy(processed)
    train = load_records(processed, keep_other=config.train.keep_other)["train"]
    predictions = [
        part.predictions for part in fit_parts(config, train, out, parts=parts, resume=resume)
    ]
    joined = join_predictions(predictions)
    joined.save(Path(out) / PREDICTIONS_FILE)
    return joined


class FittedPart(NamedTuple):
    """A network trained without a part of the records, and its predictions for that part."""

    checkpoint: Path
    predictions: Predictions


def fit_parts(
    config: Config, records: LabelledRecords, out: str | Path, *, parts: int, resume: bool
) -> Iterator[FittedPart]:
    """Train a network without each part of the records, and predict that part with it.

    Parameters
    ----------
    config, out, parts, resume
        As for `run_cross_fit`.
    records
        The records of which each is predicted once.

    Raises
    ------
    ValueError
        As `run_cross_fit`.
    """
    task = choose_task(records, config.train)
    classes, single = task.classes, task.single_label
    if single:
        records = choose_records(records, task)
    settings = replace(
        config.train,
        classes=classes,
        # The task of all records, even if a part looks like another one.
        target="single" if single else "multi",
        keep_auxiliary=config.train.auxiliary_weight > 0 and not single,
        soft_targets=None,
    )
    config = replace(config, train=settings)
    refuse_trained_on(
        config,
        [(records.signal_hashes, "the records that the networks of the parts predict")],
    )

    part_of = assign_parts(records, parts, settings.seed)
    no_records = records.subset([])
    for part, (others, held_out) in enumerate(_split_parts(records, part_of, classes), 1):
        logger.info(
            "part %d of %d: training on %d records, predicting %d",
            part,
            parts,
            len(others),
            len(held_out),
        )
        splits = {"train": others, "val": no_records, "test": no_records}
        loaders = build_dataloaders(config, records.processed, splits=splits)
        run = Path(out) / f"part_{part}"
        result = run_training(config, records.processed, run, loaders=loaders, resume=resume)
        yield FittedPart(
            result.best_path,
            predict_records(
                load_checkpoint(result.best_path, network=config.model.network),
                held_out,
                batch_size=config.loader.batch_size,
                device=device_info(config.train.device).device,
            ),
        )


def assign_parts(records: LabelledRecords, parts: int, seed: int) -> NDArray[np.int64]:
    """Return the part of each record, 0 to parts - 1.

    All records of a patient are in one part, and each label is spread evenly over the parts.

    Raises
    ------
    ValueError
        If there are fewer than two parts, or fewer patients than parts.
    """
    patients = sorted(set(records.patients))
    if not 2 <= parts <= len(patients):
        raise ValueError(
            f"parts is {parts}: expected 2 up to the {len(patients)} patients of the "
            "training records"
        )
    counts = Counter(label for labels in records.labels for label in labels)
    # Patient -> (count, name) of the rarest label among the patient's records.
    rarest: dict[str, tuple[int, str]] = {}
    for patient, labels in zip(records.patients, records.labels, strict=True):
        none_yet = (len(records) + 1, "")
        ranked = [(counts[label], label) for label in labels]
        rarest[patient] = min([rarest.get(patient, none_yet), *ranked])

    # Deal the shuffled patients out label by label, the rarest label first.
    shuffled = np.random.default_rng(seed).permutation(len(patients)).tolist()
    order = sorted(shuffled, key=lambda i: rarest[patients[i]])
    part_of = {patients[i]: position % parts for position, i in enumerate(order)}
    return np.array([part_of[patient] for patient in records.patients])


def _split_parts(
    train: LabelledRecords, part_of: NDArray[np.int64], classes: Sequence[str]
) -> list[tuple[LabelledRecords, LabelledRecords]]:
    """Return, for each part, the records to train on and the records to predict.

    Raises
    ------
    ValueError
        If the records to train on lack a class, which shows before the first run.
    """
    pairs = []
    for part in range(part_of.max() + 1):
        held_out = train.subset(np.flatnonzero(part_of == part).tolist())
        others = train.subset(np.flatnonzero(part_of != part).tolist())
        others = drop_copies(others, held_out)
        if rare := sorted(set(classes) - set(find_classes(others))):
            raise ValueError(
                f"the training records of {', '.join(rare)} are all in one part: expected two "
                "patients or more of each class; name the other classes with --classes"
            )
        pairs.append((others, held_out))
    return pairs


def join_predictions(parts: Sequence[Predictions]) -> Predictions:
    """Return the predictions of several networks as one, for the classes that all of them have."""
    classes = tuple(
        name for name in parts[0].classes if all(name in part.classes for part in parts)
    )
    y_true, y_score = [], []
    for part in parts:
        columns = [part.classes.index(name) for name in classes]
        y_true.append(part.y_true[:, columns])
        y_score.append(part.y_score[:, columns])
    return Predictions(
        keys=tuple(key for part in parts for key in part.keys),
        y_true=np.concatenate(y_true),
        y_score=np.concatenate(y_score),
        classes=classes,
        single_label=parts[0].single_label,
        # All networks teach whoever is trained on their predictions
        train_hashes=tuple(dict.fromkeys(text for part in parts for text in part.train_hashes)),
        out_of_fold=True,
    )
