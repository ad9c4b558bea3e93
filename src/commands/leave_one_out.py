"""Leave one dataset out: train on all others, evaluate on that one, for each in turn.

A random split cannot show how a model does on recordings from elsewhere; this can. ``splits.json``
is only read.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

from src.config import Config
from src.dataloaders import DataLoaders, build_dataloaders
from src.eval import EvaluationOptions, compute_evaluation, predict_records
from src.learning.checkpoints import Checkpoint, load_checkpoint
from src.learning.leaks import drop_copies, refuse_trained_on
from src.learning.results import SCORE_NAMES, ScoreSummary, summarize_scores
from src.learning.text import format_table
from src.processed.manifest import load_manifest, select_rows
from src.processed.mirror import local_copy
from src.processed.targets import LabelledRecords, choose_records, join_records, load_records
from src.training import run_training
from src.utils import device_info, format_number, save_json

logger = logging.getLogger(__name__)

Splits = dict[str, LabelledRecords]


class LeftOutRow(TypedDict):
    """The results for one dataset left out; scores are None without records to evaluate."""

    left_out: str
    n_train: int
    left_out_metrics: ScoreSummary | None
    seen_metrics: ScoreSummary | None


def run_leave_one_out(
    config: Config,
    processed: str | Path,
    out: str | Path,
    *,
    datasets: Sequence[str] = (),
    intervals: int = 0,
    resume: bool = False,
) -> list[LeftOutRow]:
    """Train a model without each dataset in turn, and evaluate it on that dataset.

    Parameters
    ----------
    config
        Training settings.
    processed
        The processed folder, or its URL.
    out
        Gets ``leave_one_out.json`` and a run per dataset, ``without_<dataset>``, with its
        ``metrics_left_out.json`` (all records of the dataset) and ``metrics_seen.json`` (the test
        split of the others).
    datasets
        The datasets to leave out; by default each in turn.
    intervals
        Bootstrap resamples for confidence intervals; 0 gives none.
    resume
        Resume runs that were interrupted.

    Returns
    -------
    list of dict
        A row per dataset: ``left_out``, ``n_train``, and ``left_out_metrics`` and ``seen_metrics``
        with n_records and the macro averages; ``seen_metrics`` is None if the others have no test
        split.

    Raises
    ------
    ValueError
        If there are fewer than two datasets, one is unknown, or one has no class in common with the
        others; if soft targets, or the checkpoint to start from, may come from a model that was
        trained on the dataset left out.
    """
    if config.train.soft_targets:
        raise ValueError(
            f"soft_targets is {config.train.soft_targets}: expected none, since the "
            "networks that gave them may have been trained on the dataset left out"
        )
    processed = local_copy(processed)
    splits = load_records(processed, keep_other=config.train.keep_other)

    # Build the loaders of all folds first, so that every mistake shows before the first run.
    loaders: dict[str, DataLoaders] = {}
    for name in _choose_datasets(splits, datasets, processed):
        loaders[name] = build_fold(config, leave_out(splits, name))
    for name, fold in loaders.items():
        if not len(fold.records["test"]):
            raise ValueError(
                f"{processed}: no record of {name} carries a class that the other "
                f"datasets train: {fold.classes}"
            )
    seen = {name: _choose_seen(splits, name, fold) for name, fold in loaders.items()}
    _refuse_leaks(config, loaders, seen)

    options = EvaluationOptions(intervals=intervals)
    rows: list[LeftOutRow] = []
    for name, fold in loaders.items():
        run = Path(out) / f"without_{name}"
        result = run_training(config, processed, run, loaders=fold, resume=resume)
        checkpoint = load_checkpoint(result.best_path, network=config.model.network)
        row: LeftOutRow = {
            "left_out": name,
            "n_train": len(fold.records["train"]),
            "left_out_metrics": _evaluate(
                checkpoint, fold.records["test"], config, options, run / "metrics_left_out.json"
            ),
            "seen_metrics": _evaluate(
                checkpoint, seen[name], config, options, run / "metrics_seen.json"
            ),
        }
        rows.append(row)
        save_json(rows, Path(out) / "leave_one_out.json")
    return rows


def _choose_datasets(splits: Splits, datasets: Sequence[str], processed: str | Path) -> list[str]:
    """Return the datasets to leave out; they must be among the two or more of the folder."""
    available = sorted({name for records in splits.values() for name in records.datasets})
    if len(available) < 2:
        raise ValueError(
            f"{processed}: holds {', '.join(available)} alone: expected two datasets or more, "
            "to leave one out"
        )
    if unknown := [name for name in datasets if name not in available]:
        raise ValueError(
            f"{processed}: no records of {', '.join(unknown)}: there are {', '.join(available)}"
        )
    return list(datasets) or available


def _refuse_leaks(config: Config, loaders: dict[str, DataLoaders], seen: Splits) -> None:
    """Refuse a checkpoint to start from that was trained on records to evaluate."""
    left_out = [
        (fold.records["test"].signal_hashes, f"the recordings of {name}, which is left out")
        for name, fold in loaders.items()
    ]
    others = [
        (records.signal_hashes, "the test recordings of the datasets that train")
        for records in seen.values()
    ]
    refuse_trained_on(config, [*left_out, *others])


def leave_out(splits: Splits, dataset: str) -> Splits:
    """Return train and val without a dataset, and all records of it as test.

    Copies of its recordings in other datasets are left out of train and val, so that the model is
    not evaluated on recordings it was trained on.
    """
    test = join_records([_keep(records, {dataset}) for records in splits.values()])
    fold = {"test": test}
    for name in ("train", "val"):
        others = _keep(splits[name], set(splits[name].datasets) - {dataset})
        fold[name] = drop_copies(others, test)
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


def _choose_seen(splits: Splits, dataset: str, fold: DataLoaders) -> LabelledRecords:
    """Return the test records of the datasets that train, without copies of training records."""
    others = _keep(splits["test"], set(splits["test"].datasets) - {dataset})
    return drop_copies(choose_records(others, fold.task), fold.records["train"])


def build_fold(config: Config, splits: Splits) -> DataLoaders:
    """Return loaders of the given splits.

    They read the record files, because the packed cache is ordered by the usual splits.
    """
    config = replace(config, loader=replace(config.loader, cache="off"))
    return build_dataloaders(config, splits["train"].processed, splits=splits)


def _evaluate(
    checkpoint: Checkpoint,
    records: LabelledRecords,
    config: Config,
    options: EvaluationOptions,
    path: Path,
) -> ScoreSummary | None:
    """Evaluate a checkpoint on records, save all metrics at `path` and return the averages."""
    if not len(records):
        return None
    device = device_info(config.train.device).device
    predictions = predict_records(
        checkpoint, records, batch_size=config.loader.batch_size, device=device
    )
    rows = select_rows(load_manifest(records.processed), records.keys)
    _, metrics = compute_evaluation(predictions, rows, options)
    save_json({"checkpoint": str(checkpoint.path), **metrics}, path)
    return summarize_scores(metrics)


def format_leave_one_out(rows: Sequence[LeftOutRow]) -> str:
    """Return the rows of `run_leave_one_out` as an aligned plain table."""
    table = [["left out", "evaluated on", "records", *SCORE_NAMES]]
    for row in rows:
        for name, summary in (
            ("the dataset", row["left_out_metrics"]),
            ("test of others", row["seen_metrics"]),
        ):
            if summary is not None:
                scores = [format_number(summary[score]) for score in SCORE_NAMES]
                table.append([row["left_out"], name, str(summary["n_records"]), *scores])
    return format_table(table)
