"""The leak gate: recordings to be evaluated that the model was trained on."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from src.config import Config
from src.learning.checkpoints import Checkpoint, load_checkpoint
from src.processed.fingerprints import FingerprintIndex

logger = logging.getLogger(__name__)

_KEYS_SHOWN = 10


def refuse_overlap(
    train_hashes: Sequence[str], keys: Sequence[str], hashes: Sequence[str], split: str
) -> None:
    """Refuse to judge a model on recordings that it was trained on; for the split train, only say
    so.

    Parameters
    ----------
    train_hashes
        Fingerprints of the training recordings, from the checkpoint.
    keys, hashes
        Records to be judged on, and their fingerprints.
    split
        Its name.

    Raises
    ------
    ValueError
        If there is one; the message lists them.
    """
    index = FingerprintIndex(train_hashes)
    if not len(index):
        logger.warning(
            "the checkpoint does not say which recordings it was trained on: whether "
            "split %s holds some is not known",
            split,
        )
    learned = index.contains(hashes)
    known = [key for key, was in zip(keys, learned, strict=True) if was]
    if not known:
        return
    shown = ", ".join(known[:_KEYS_SHOWN]) + (" ..." if len(known) > _KEYS_SHOWN else "")
    found = (
        f"{len(known)} of {len(keys)} records of split {split} are recordings that the model "
        f"was trained on: {shown}"
    )
    if split != "train":
        raise ValueError(
            f"{found}; judge it on others, or give --allow-overlap (allow_overlap=True) "
            "and say so with the numbers"
        )
    logger.warning("%s", found)


def warn_trained_on(source: Checkpoint, hashes: Sequence[str]) -> None:
    """Warn where the validation split holds recordings that the network to start from was trained
    on.
    """
    if n_known := int(FingerprintIndex(source.card.train_hashes).contains(hashes).sum()):
        logger.warning(
            "%s: was trained on %d of the %d recordings of val, so the best epoch is chosen "
            "on what it knows; place it by the same "
            "folds or seed as its training set",
            source.path,
            n_known,
            len(hashes),
        )


def refuse_trained_on(config: Config, held: Sequence[tuple[Sequence[str], str]]) -> None:
    """Refuse a start from a network that was trained on recordings for which the networks to be
    trained shall answer.

    Parameters
    ----------
    config
        Names the checkpoint to start from, if any.
    held
        Fingerprints of recordings, and what these are, for the message.

    Raises
    ------
    ValueError
        If it was trained on one of them.
    """
    if config.train.init_from is None:
        return
    known = FingerprintIndex(load_checkpoint(config.train.init_from).card.train_hashes)
    for hashes, whose in held:
        if n_known := int(known.contains(hashes).sum()):
            raise ValueError(
                f"{config.train.init_from}: was trained on {n_known} of {whose}; start "
                "from another checkpoint, or from none"
            )
