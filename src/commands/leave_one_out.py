"""Leave one source out: train on all datasets but one, judge on that one, in turn.

It answers what a random split cannot: how the model does on recordings from elsewhere.
``splits.json`` is only read.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from src.config import Config
from src.dataloaders import DataLoaders, build_dataloaders
from src.eval import EvaluationOptions, evaluate_predictions, predict_records
from src.learning.checkpoints import Checkpoint, load_checkpoint
from src.learning.leaks import refuse_trained_on
from src.learning.text import format_table
from src.processed.fingerprints import FingerprintIndex
from src.processed.manifest import load_manifest, select_rows
from src.processed.mirror import local_copy
from src.processed.targets import PARALLEL_FIELDS, LabelledRecords, choose_records, load_records
from src.training import run_training
from src.utils import device_info, save_json

logger = logging.getLogger(__name__)


_MACROS = ("f1_macro", "auroc_macro", "average_precision_macro", "accuracy")

Splits = dict[str, LabelledRecords]


def run_leave_one_out(
    config: Config,
    processed: str | Path,
    out: str | Path,
    *,
    datasets: Sequence[str] = (),
    intervals: int = 0,
    resume: bool = False,
) -> list[dict[str, Any]]:
    """Train a model per dataset left out, and judge each on its dataset.

    Parameters
    ----------
    config
        How to train.
    processed
        The folder that preprocessing filled.
    out
        Gets ``leave_one_out.json`` and a run per dataset, ``without_<dataset>``, with its
        ``metrics_left_out.json`` (all records of the dataset) and ``metrics_seen.json`` (the test
        split of the others).
    datasets
        Which to leave out; by default each in turn.
    intervals
        Bootstrap resamples for confidence intervals; 0 gives none.
    resume
        Go on with runs that were broken off.

    Returns
    -------
    list of dict
        A row per dataset: ``left_out``, ``n_train``, and ``left_out_metrics`` and ``seen_metrics``
        with n_records and the macro averages; ``seen_metrics`` is None where the others have no
        test split.

    Raises
    ------
    ValueError
        If there are fewer than two datasets, one is unknown, or one has no class in common with the
        others; if soft targets, or the checkpoint to start from, may know the dataset that is left
        out.
    """
    if config.train.soft_targets:
        raise ValueError(
            f"soft_targets is {config.train.soft_targets}: expected none, since the "
            "networks that gave them may have learned the dataset left out"
        )
    processed = local_copy(processed)
    splits = load_records(processed, keep_other=config.train.keep_other)
    folds = {name: leave_out(splits, name) for name in _choose(splits, datasets, processed)}
    loaders = {
        name: build_fold(config, fold) for name, fold in folds.items()
    }  # every mistake shows before the first run
    for name, fold in loaders.items():
        if not len(fold.records["test"]):
            raise ValueError(
                f"{processed}: no record of {name} carries a class that the other "
                f"datasets train: {fold.classes}"
            )
    seen = {name: _seen(splits, name, fold) for name, fold in loaders.items()}
    held = [
        (fold.records["test"].signal_hashes, f"the recordings of {name}, which is left out")
        for name, fold in loaders.items()
    ]
    refuse_trained_on(
        config,
        [
            *held,
            *(
                (records.signal_hashes, "the test recordings of the datasets that train")
                for records in seen.values()
            ),
        ],
    )
    options, rows = EvaluationOptions(intervals=intervals), []
    for name, fold in loaders.items():
        run = Path(out) / f"without_{name}"
        result = run_training(config, processed, run, loaders=fold, resume=resume)
        checkpoint = load_checkpoint(result.best_path)
        rows.append(
            {
                "left_out": name,
                "n_train": len(fold.records["train"]),
                "left_out_metrics": _judge(
                    checkpoint, fold.records["test"], config, options, run / "metrics_left_out.json"
                ),
                "seen_metrics": _judge(
                    checkpoint, seen[name], config, options, run / "metrics_seen.json"
                ),
            }
        )
        save_json(rows, Path(out) / "leave_one_out.json")
    return rows


def _choose(splits: Splits, datasets: Sequence[str], processed: str | Path) -> list[str]:
    there = sorted({name for records in splits.values() for name in records.datasets})
    if len(there) < 2:
        raise ValueError(
            f"{processed}: holds {', '.join(there)} alone: expected two datasets or more, "
            "to leave one out"
        )
    if unknown := [name for name in datasets if name not in there]:
        raise ValueError(
            f"{processed}: no records of {', '.join(unknown)}: there are {', '.join(there)}"
        )
    return list(datasets) or there


def leave_out(splits: Splits, dataset: str) -> Splits:
    """Return train and val without a dataset, and all its records as test.

    A recording of the dataset that another one holds as well is taken out of train and val, so that
    none is judged that was learned from.
    """
    test = _join([_keep(records, {dataset}) for records in splits.values()])
    copies = FingerprintIndex(test.signal_hashes)
    fold = {"test": test}
    for name in ("train", "val"):
        others = _keep(splits[name], set(splits[name].datasets) - {dataset})
        fold[name] = others.subset(np.flatnonzero(~copies.contains(others.signal_hashes)).tolist())
        if len(fold[name]) < len(others):
            logger.warning(
                "%d recordings of %s are in %s too: left out of %s",
                len(others) - len(fold[name]),
                dataset,
                ", ".join(sorted(set(others.datasets))),
                name,
            )
    return fold


def _keep(records: LabelledRecords, datasets: set[str]) -> LabelledRecords:
    return records.subset(i for i, name in enumerate(records.datasets) if name in datasets)


def _join(parts: Sequence[LabelledRecords]) -> LabelledRecords:
    """Return the records of all parts as one; they are of the same processed folder."""
    return LabelledRecords(
        parts[0].processed,
        *(tuple(x for part in parts for x in getattr(part, name)) for name in PARALLEL_FIELDS),
    )


def _seen(splits: Splits, dataset: str, fold: DataLoaders) -> LabelledRecords:
    """Return the test records of the datasets trained on."""
    others = _keep(splits["test"], set(splits["test"].datasets) - {dataset})
    return choose_records(others, fold.task)


def build_fold(config: Config, splits: Splits) -> DataLoaders:
    """Return the loaders of chosen records; they read the record files, since the packed cache goes
    by the usual splits.
    """
    config = replace(config, loader=replace(config.loader, cache="off"))
    return build_dataloaders(config, splits["train"].processed, splits=splits)


def _judge(
    checkpoint: Checkpoint,
    records: LabelledRecords,
    config: Config,
    options: EvaluationOptions,
    path: Path,
) -> dict[str, Any] | None:
    """Judge records, keep the whole result at `path` and return its head."""
    if not len(records):
        return None
    device = device_info(config.train.device).device
    predictions = predict_records(
        checkpoint, records, batch_size=config.loader.batch_size, device=device
    )
    _, metrics = evaluate_predictions(
        predictions, select_rows(load_manifest(records.processed), records.keys), options
    )
    save_json({"checkpoint": str(checkpoint.path), **metrics}, path)
    head = {name: metrics[name] for name in ("n_records", *_MACROS, "undefined_classes")}
    return head | ({"intervals": metrics["intervals"]} if "intervals" in metrics else {})


def format_leave_one_out(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows of `run_leave_one_out` as an aligned plain table."""
    table = [["left out", "judged on", "records", *_MACROS]]
    for row in rows:
        for name, key in (("the dataset", "left_out_metrics"), ("test of others", "seen_metrics")):
            if found := row[key]:
                numbers = [
                    "-" if found[macro] is None else f"{found[macro]:.3f}" for macro in _MACROS
                ]
                table.append([row["left_out"], name, str(found["n_records"]), *numbers])
    return format_table(table)
