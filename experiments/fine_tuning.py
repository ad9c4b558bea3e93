"""Does the network in the box help on 500 recordings of other classes? ``python -m
experiments.fine_tuning --processed DIR``.

`DIR` is PTB-XL as the README processes it, at 100 Hz. Only fold 9 is used, which the shipped
networks were not fitted to: of its patients some give 500 recordings to train on and others 100 to
choose by; the rest are judged. Each start, from the checkpoint and from random weights, has the
same recordings, epochs and settings to choose from, and is judged with those that did best on the
100. Two tasks: the sex of the patient, which the networks never saw, and the rhythm, whose
statements the superclass network learned beside its classes, in other patients.
"""

from __future__ import annotations

import argparse
import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from src.config import Config, LoaderConfig, TrainConfig
from src.dataloaders import build_dataloaders
from src.eval import predict_records
from src.learning.checkpoints import Checkpoint, default_checkpoint, load_checkpoint
from src.learning.leaks import refuse_overlap
from src.learning.metrics import compute_metrics
from src.learning.text import format_table
from src.processed.manifest import load_manifest, select_rows
from src.processed.runs.log import environment
from src.processed.targets import LabelledRecords, Task, choose_records, load_records
from src.training import run_training
from src.utils import save_json, setup_logging

logger = logging.getLogger("experiments")

TASKS = {"sex": ("female", "male"), "rhythm": ("SR", "AFIB", "STACH", "SBRAD", "SARRH")}
SETTINGS = {
    "gentle": {"lr": 0.001},
    "recipe": {"lr": 0.005, "muon_lr": 0.02},
}  # the README's for fine-tuning; the recipes'
STARTS = ("checkpoint", "random")
METRICS = ("auroc_macro", "f1_macro")

Splits = dict[str, LabelledRecords]


def choose_fold(processed: Path, task: str) -> LabelledRecords:
    """Return the records of fold 9 that carry one class of the task, labelled with it."""
    records = load_records(processed)["val"]
    if task == "sex":
        sexes = select_rows(load_manifest(processed), records.keys)["sex"]
        records = replace(
            records,
            labels=tuple((sex,) if sex else () for sex in sexes),
            annotated=((),) * len(records),
        )
    return choose_records(records, Task(TASKS[task], single_label=True))


def divide(records: LabelledRecords, n_train: int, n_val: int, seed: int) -> Splits:
    """Draw patients for training, then for validation, until they have brought so many records; the
    others test.
    """
    patients = np.array(records.patients)
    order = np.random.default_rng(seed).permutation(np.unique(patients))
    rows = [np.flatnonzero(patients == patient).tolist() for patient in order]
    places = [row for of_patient in rows for row in of_patient]
    ends = [
        max(0, *(end for end in np.cumsum([len(r) for r in rows]) if end <= wanted))
        for wanted in (n_train, n_train + n_val)
    ]
    parts = places[: ends[0]], places[ends[0] : ends[1]], places[ends[1] :]
    return {
        name: records.subset(part)
        for name, part in zip(("train", "val", "test"), parts, strict=True)
    }


def build_run_config(
    source: Checkpoint,
    task: str,
    setting: dict[str, float],
    *,
    pretrained: bool,
    epochs: int,
    seed: int,
) -> Config:
    """Return the settings of one run: network, leads and windows of the checkpoint, whatever the
    start.
    """
    card = source.card
    train = TrainConfig(
        classes=TASKS[task],
        epochs=epochs,
        patience=0,
        weight_decay=0.05,
        seed=seed,
        device="cpu",
        target="single",
        leads=card.leads,
        crop_s=card.crop_samples / card.preprocess.fs,
        normalization=card.normalization.mode,
        highpass_hz=card.normalization.highpass_hz,
        init_from=str(source.path) if pretrained else None,
        **setting,
    )
    return Config(
        loader=LoaderConfig(batch_size=32, cache="off", balanced_sampling=False),
        model=card.model,
        train=train,
    )


@dataclass(frozen=True)
class Plan:
    """What is trained, and on how much."""

    n_train: int
    n_val: int
    epochs: int
    seeds: Sequence[int]
    starts: Sequence[str]
    settings: Sequence[str]


@dataclass(frozen=True)
class Run:
    """One training: from where, with which setting and seed, and how it did on the records to
    choose by.
    """

    task: str
    start: str
    setting: str
    seed: int
    best: Path
    val: dict[str, float]


def judge_on(checkpoint: Path, records: LabelledRecords) -> dict[str, float]:
    """Return the macro AUROC and F1 of a checkpoint."""
    metrics = compute_metrics(
        predict_records(load_checkpoint(checkpoint), records, batch_size=64, device="cpu")
    )
    return {name: metrics[name] for name in METRICS}


def train_all(
    processed: Path, source: Checkpoint, task: str, drawn: dict[int, Splits], plan: Plan, out: Path
) -> list[Run]:
    """Train from every start with every setting and seed."""
    runs = []
    for seed, start, setting in product(drawn, plan.starts, plan.settings):
        config = build_run_config(
            source,
            task,
            SETTINGS[setting],
            pretrained=start == "checkpoint",
            epochs=plan.epochs,
            seed=seed,
        )
        loaders = build_dataloaders(config, processed, splits=drawn[seed])
        best = run_training(
            config, processed, out / f"{task} {start} {setting} {seed}", loaders=loaders
        ).best_path
        runs.append(Run(task, start, setting, seed, best, judge_on(best, drawn[seed]["val"])))
        logger.info("%s", runs[-1])
    return runs


def choose_setting(runs: Sequence[Run], start: str) -> list[Run]:
    """Return a start's runs with the setting whose mean macro AUROC on validation is best."""
    of_start = [run for run in runs if run.start == start]
    scores = {
        name: np.mean([run.val["auroc_macro"] for run in of_start if run.setting == name])
        for name in {run.setting for run in of_start}
    }
    best = max(scores, key=lambda name: float(scores[name]))
    return [run for run in of_start if run.setting == best]


def measure(processed: Path, source: Checkpoint, task: str, plan: Plan) -> list[dict[str, Any]]:
    """Train everything, and judge the runs of the chosen setting of each start on the test records;
    returns a row for each.
    """
    records = choose_fold(processed, task)
    refuse_overlap(source.card.train_hashes, records.keys, records.signal_hashes, "val")
    drawn = {
        seed: divide(records, plan.n_train, plan.n_val, seed) for seed in plan.seeds
    }  # a seed draws the patients, too
    with TemporaryDirectory() as folder:
        runs = train_all(processed, source, task, drawn, plan, Path(folder))
        chosen = [run for start in plan.starts for run in choose_setting(runs, start)]
        tests = {run.best: judge_on(run.best, drawn[run.seed]["test"]) for run in chosen}
    sizes = {
        seed: {f"n_{split}": len(part) for split, part in splits.items()}
        for seed, splits in drawn.items()
    }
    return [
        {
            **asdict(run),
            "best": run.best.parent.parent.name,
            **sizes[run.seed],
            "test": tests.get(run.best),
        }
        for run in runs
    ]


def summarize(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return a table with a row per task and start: the chosen setting, its mean and spread over
    the seeds on test.
    """
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["test"] is not None:
            groups[row["task"], row["start"]].append(row)
    table = [["task", "start", "setting", "test records", *METRICS]]
    for (task, start), chosen in groups.items():
        n_test = f"{np.mean([row['n_test'] for row in chosen]):.0f}"
        table.append(
            [
                task,
                start,
                chosen[0]["setting"],
                n_test,
                *(_spread([row["test"][name] for row in chosen]) for name in METRICS),
            ]
        )
    return table


def _spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1) if len(values) > 1 else 0:.3f}"


def main() -> None:
    """Measure, print the table and keep every run's row."""
    parser = argparse.ArgumentParser(prog="python -m experiments.fine_tuning", description=__doc__)
    parser.add_argument(
        "--processed",
        type=Path,
        required=True,
        help="PTB-XL at the checkpoint's rate, made with labels ptbxl --task superclass+all",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        help="what to start from (default: the superclass network in the box)",
    )
    parser.add_argument(
        "--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="default: all"
    )
    parser.add_argument(
        "--n-train", type=int, default=500, help="recordings to train on (default: %(default)s)"
    )
    parser.add_argument(
        "--n-val",
        type=int,
        default=100,
        help="recordings to choose epoch and setting by (default: %(default)s)",
    )
    parser.add_argument("--epochs", type=int, default=12, help="of each run (default: %(default)s)")
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=[0, 1, 2],
        help="they draw the patients, too (default: 0 1 2)",
    )
    parser.add_argument(
        "--starts", nargs="+", choices=STARTS, default=list(STARTS), help="default: both"
    )
    parser.add_argument(
        "--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS), help="default: both"
    )
    parser.add_argument("--out", type=Path, help="JSON of all runs (default: none)")
    args = parser.parse_args()
    setup_logging()
    source = load_checkpoint(args.checkpoint or default_checkpoint())
    plan = Plan(args.n_train, args.n_val, args.epochs, args.seeds, args.starts, args.settings)
    rows = [row for task in args.tasks for row in measure(args.processed, source, task, plan)]
    if args.out:
        save_json({"environment": environment(), "epochs": args.epochs, "runs": rows}, args.out)
    print(format_table(summarize(rows)))  # noqa: T201


if __name__ == "__main__":
    main()
