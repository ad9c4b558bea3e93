"""Soft targets by cross-fitting: networks that each leave a part of the training records out answer
for that part.

What a network says of records that it has not learned tells which labels are likely to be wrong and
which classes resemble each other. A network that learns from such answers beside the labels
overfits later and less (distillation: Hinton et al., 2015; with answers out of fold, so that no
teacher recites what it was taught).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.config import Config
from src.dataloaders import build_dataloaders
from src.eval import predict_records
from src.learning.checkpoints import load_checkpoint
from src.learning.leaks import refuse_trained_on
from src.learning.predictions import Predictions
from src.processed.fingerprints import FingerprintIndex
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
    """Train a network per part of the training records, on the others, and let it answer for the
    part.

    Parameters
    ----------
    config
        How to train each; with several labels the auxiliary classes answer too. The last epoch
        counts, since nothing is held back to choose one. Soft targets that it names are left aside,
        since they are what is to be made.
    processed
        The folder that preprocessing filled, or a URL of it; its validation and test records are
        not looked at.
    out
        Gets ``predictions_cross_fit.npz``, for ``train --soft-targets``, and a run per part,
        ``part_<number>``.
    parts
        How many; the records of a patient, and copies of a recording, are never learned from and
        answered for by one network.
    resume
        Go on with runs that were broken off.

    Returns
    -------
    Predictions
        Of every training record, with one label per record of those that carry exactly one class;
        with the classes of the networks.

    Raises
    ------
    ValueError
        If there are fewer than two parts, fewer patients than parts, or a class whose records are
        all in one part.
    """
    processed = local_copy(processed)
    train = load_records(processed, keep_other=config.train.keep_other)["train"]
    task = choose_task(train, config.train)
    classes, single = task.classes, task.single_label
    if single:
        train = choose_records(train, task)
    settings = replace(
        config.train,
        classes=classes,
        target="single" if single else "multi",  # as of all records, whatever a part has
        keep_auxiliary=config.train.auxiliary_weight > 0 and not single,
        soft_targets=None,
    )
    config, nothing = replace(config, train=settings), train.subset([])
    refuse_trained_on(
        config,
        [(train.signal_hashes, "the training records, for which the networks of the parts answer")],
    )
    answers = []
    for part, (others, held) in enumerate(
        _hold_out(train, assign_parts(train, parts, settings.seed), classes), 1
    ):
        loaders = build_dataloaders(
            config, processed, splits={"train": others, "val": nothing, "test": nothing}
        )
        logger.info(
            "part %d of %d: %d records learn, %d are answered for",
            part,
            parts,
            len(others),
            len(held),
        )
        result = run_training(
            config, processed, Path(out) / f"part_{part}", loaders=loaders, resume=resume
        )
        device = device_info(config.train.device).device
        answers.append(
            predict_records(
                load_checkpoint(result.best_path),
                held,
                batch_size=config.loader.batch_size,
                device=device,
            )
        )
    joined = _join(answers)
    joined.save(Path(out) / PREDICTIONS_FILE)
    return joined


def assign_parts(records: LabelledRecords, parts: int, seed: int) -> NDArray[np.int64]:
    """Return the part of each record, 0 to parts - 1: a patient's all in one, about equally many of
    each label in each.
    """
    patients = sorted(set(records.patients))
    if not 2 <= parts <= len(patients):
        raise ValueError(
            f"parts is {parts}: expected 2 up to the {len(patients)} patients of the "
            "training records"
        )
    counts = Counter(label for labels in records.labels for label in labels)
    rarest: dict[str, tuple[int, str]] = {}
    for patient, labels in zip(records.patients, records.labels, strict=True):
        rarest[patient] = min(
            [
                rarest.get(patient, (len(records) + 1, "")),
                *((counts[label], label) for label in labels),
            ]
        )
    shuffled = np.random.default_rng(seed).permutation(len(patients)).tolist()
    order = sorted(
        shuffled, key=lambda i: rarest[patients[i]]
    )  # dealt out label by label, the rarest first
    part_of = {patients[i]: place % parts for place, i in enumerate(order)}
    return np.array([part_of[patient] for patient in records.patients])


def _hold_out(
    train: LabelledRecords, part_of: NDArray[np.int64], classes: Sequence[str]
) -> list[tuple[LabelledRecords, LabelledRecords]]:
    """Return for each part the records that are learned from and those that are answered for.

    Raises
    ------
    ValueError
        If the others of a part lack a class, which shows before the first run.
    """
    pairs = []
    for part in range(part_of.max() + 1):
        held = train.subset(np.flatnonzero(part_of == part).tolist())
        others = _without_copies(train.subset(np.flatnonzero(part_of != part).tolist()), held)
        if rare := sorted(set(classes) - set(find_classes(others))):
            raise ValueError(
                f"the training records of {', '.join(rare)} are all in one part: expected two "
                "patients or more of each class; "
                "name the other classes with --classes"
            )
        pairs.append((others, held))
    return pairs


def _without_copies(others: LabelledRecords, held: LabelledRecords) -> LabelledRecords:
    """Leave out recordings that `held` has too."""
    copies = FingerprintIndex(held.signal_hashes).contains(others.signal_hashes)
    return others.subset(np.flatnonzero(~copies).tolist())


def _join(answers: list[Predictions]) -> Predictions:
    """Return the answers of all networks as one; auxiliary classes that one of them lacks are left
    out.
    """
    classes = tuple(
        name for name in answers[0].classes if all(name in part.classes for part in answers)
    )
    columns = [[part.classes.index(name) for name in classes] for part in answers]
    return Predictions(
        keys=tuple(key for part in answers for key in part.keys),
        y_true=np.concatenate(
            [part.y_true[:, chosen] for part, chosen in zip(answers, columns, strict=True)]
        ),
        y_score=np.concatenate(
            [part.y_score[:, chosen] for part, chosen in zip(answers, columns, strict=True)]
        ),
        classes=classes,
        single_label=answers[0].single_label,
    )
