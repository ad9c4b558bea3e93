"""Recordings that a model was trained on, found among those that it is evaluated on.

Everything that prints or compares scores asks here. Recordings are compared by fingerprint, so a
copy under another name, in another dataset or at another rate counts as the same recording.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.config import Config
from src.learning.checkpoints import Checkpoint, load_checkpoint
from src.learning.predictions import Predictions
from src.processed.fingerprints import FingerprintIndex
from src.processed.targets import LabelledRecords

logger = logging.getLogger(__name__)

_KEYS_SHOWN = 10


class TrainingRecordings:
    """The recordings that a model was trained on.

    Parameters
    ----------
    train_hashes
        Their fingerprints, as the checkpoint holds them (`ModelCard.train_hashes`). Older
        checkpoints hold none.
    """

    def __init__(self, train_hashes: Sequence[str]) -> None:
        self._index = FingerprintIndex(train_hashes)

    @property
    def are_known(self) -> bool:
        """Whether the checkpoint holds a fingerprint at all."""
        return len(self._index) > 0

    def contains(self, hashes: Sequence[str]) -> NDArray[np.bool_]:
        """Return for each fingerprint whether it is of a training recording, shape (n,)."""
        return self._index.contains(hashes)

    def count(self, hashes: Sequence[str]) -> int:
        """Return how many of the fingerprints are of training recordings."""
        return int(self.contains(hashes).sum())


def refuse_overlap(
    train_hashes: Sequence[str],
    keys: Sequence[str],
    hashes: Sequence[str],
    split: str,
    *,
    allow_overlap: bool = False,
    source: str = "the checkpoint",
) -> int:
    """Refuse to evaluate a model on recordings that it was trained on.

    For the split train, and where the overlap is allowed, it only logs how many there are.

    Parameters
    ----------
    train_hashes
        Fingerprints of the training recordings, from the checkpoint.
    keys, hashes
        Records to be evaluated, and their fingerprints.
    split
        Name of their split.
    allow_overlap
        Log instead.
    source
        Names the checkpoint or the predictions in messages.

    Returns
    -------
    int
        Number of such recordings.

    Raises
    ------
    ValueError
        If there is one; the message lists them.
    """
    training = TrainingRecordings(train_hashes)
    if not training.are_known:
        logger.warning(
            "%s does not say which recordings the model was trained on: whether split %s holds "
            "some is not known",
            source,
            split,
        )
    is_trained_on = training.contains(hashes)
    trained_on = [key for key, trained in zip(keys, is_trained_on, strict=True) if trained]
    if not trained_on:
        return 0
    shown = ", ".join(trained_on[:_KEYS_SHOWN])
    if len(trained_on) > _KEYS_SHOWN:
        shown += " ..."
    overlap = (
        f"{len(trained_on)} of {len(keys)} records of split {split} are recordings that the model "
        f"was trained on: {shown}"
    )
    if split != "train" and not allow_overlap:
        raise ValueError(
            f"{overlap}; evaluate it on others, or give --allow-overlap (allow_overlap=True) and "
            "say so with the numbers"
        )
    logger.warning("%s", overlap)
    return len(trained_on)


def refuse_to_fit_on(train_hashes: Sequence[str], records: LabelledRecords, split: str) -> None:
    """Refuse to calibrate a model, or to choose its thresholds, on recordings it was trained on.

    Parameters
    ----------
    train_hashes
        Fingerprints of the training recordings, from the checkpoint.
    records, split
        The records to fit on, and the name of their split.

    Raises
    ------
    ValueError
        If there is one: a network is surer of recordings that it knows, of whatever split.
    """
    n_known = TrainingRecordings(train_hashes).count(records.signal_hashes)
    if n_known:
        raise ValueError(
            f"{n_known} of {len(records)} records of split {split} are recordings that the model "
            "was trained on, of which it is too sure: thresholds and a calibration are chosen on "
            "other recordings"
        )


def refuse_predicted_overlap(predictions: Predictions, path: str | Path) -> None:
    """Refuse to compare predictions of recordings that their model was trained on.

    Those of cross-fitting are of several models and do not say which predicted what; none of them
    predicts a recording that it was trained on.

    Parameters
    ----------
    predictions
        The predictions.
    path
        Their file, for the message.

    Raises
    ------
    ValueError
        If there are such recordings.
    """
    if not predictions.train_hashes:
        logger.warning("%s: does not say which recordings its model was trained on", path)
    training = TrainingRecordings(predictions.train_hashes)
    if n_trained_on := training.count(predictions.signal_hashes):
        raise ValueError(
            f"{path}: {n_trained_on} of the {len(predictions.keys)} records are recordings that "
            "its model was trained on; evaluate it on others, or give --allow-overlap "
            "(allow_overlap=True) and say so with the numbers"
        )


def refuse_teachers(
    soft: Predictions, path: str | Path, held_out: Mapping[str, LabelledRecords]
) -> None:
    """Refuse soft targets of networks that were trained on records which now validate or test.

    Parameters
    ----------
    soft
        The soft targets.
    path
        Their file, for the message.
    held_out
        Name of a split -> its records, which are not trained on.

    Raises
    ------
    ValueError
        If a network behind the soft targets was trained on one of them. Files of before this was
        stored do not say so; they are refused if they predict such a record, since cross-fitting
        predicts the records that it trains on.
    """
    training = TrainingRecordings(soft.train_hashes)
    predicted = set(soft.keys)
    for split, records in held_out.items():
        if training.are_known:
            n_known, verb = training.count(records.signal_hashes), "were trained on"
        else:
            n_known, verb = len(predicted & set(records.keys)), "may have been trained on"
        if n_known:
            raise ValueError(
                f"{path}: the networks behind these soft targets {verb} {n_known} of the "
                f"{len(records)} records of split {split}; make soft targets with cross-fit from "
                "this processed folder, or preprocess with the folds or the seed that they were "
                "made with"
            )
    if not training.are_known:
        logger.warning(
            "%s: does not say which recordings the networks behind these soft targets were trained "
            "on; make them again with cross-fit to be sure that none validates or tests",
            path,
        )


def warn_trained_on(source: Checkpoint, hashes: Sequence[str]) -> None:
    """Warn if validation holds recordings that the network to start from was trained on.

    Parameters
    ----------
    source
        The checkpoint to start from.
    hashes
        Fingerprints of the validation recordings.
    """
    n_trained_on = TrainingRecordings(source.card.train_hashes).count(hashes)
    if n_trained_on:
        logger.warning(
            "%s: was trained on %d of the %d recordings of val, so the best epoch is chosen on "
            "recordings that it knows; split them by the same folds or seed as its training set",
            source.path,
            n_trained_on,
            len(hashes),
        )


def refuse_trained_on(config: Config, held_out: Sequence[tuple[Sequence[str], str]]) -> None:
    """Refuse to start from a network that was trained on held-out recordings.

    Parameters
    ----------
    config
        Names the checkpoint to start from, if any.
    held_out
        Fingerprints of recordings that the networks to be trained shall predict, and a description
        of these recordings for the message.

    Raises
    ------
    ValueError
        If it was trained on one of them.
    """
    if config.train.init_from is None:
        return
    training = TrainingRecordings(load_checkpoint(config.train.init_from).card.train_hashes)
    for hashes, description in held_out:
        if n_trained_on := training.count(hashes):
            raise ValueError(
                f"{config.train.init_from}: was trained on {n_trained_on} of {description}; start "
                "from another checkpoint, or from none"
            )


def drop_copies(records: LabelledRecords, held_out: LabelledRecords) -> LabelledRecords:
    """Return the records without recordings that `held_out` holds as well.

    A network that is trained on the result has seen none of the recordings held out.
    """
    is_copy = FingerprintIndex(held_out.signal_hashes).contains(records.signal_hashes)
    return records.subset(np.flatnonzero(~is_copy).tolist())
