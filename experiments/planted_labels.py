"""Plant wrong labels in a label mapping, and count how many of them are found.

``python -m experiments.planted_labels plant MAPPING OUT PLANTED [--share 0.05] [--folds 1 2 ...]``
replaces one label of each chosen record by a class that it does not have, and lists these records.
``python -m experiments.planted_labels score ISSUES PLANTED [--first 100]`` states how many of the
first rows of label-issues are of these records and of the classes that were changed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection
from pathlib import Path

import numpy as np

from src.labels.ids import id_key
from src.labels.mapping import load_mapping, save_mapping
from src.labels.text_tables import join_list, plain_cell, read_table, save_frame, split_list

LABELS = ("dataset", "record_id", "right", "planted")


def plant(
    mapping: str | Path,
    out: str | Path,
    planted: str | Path,
    *,
    share: float = 0.05,
    folds: Collection[str] = (),
    seed: int = 0,
) -> int:
    """Write a mapping in which a share of the labelled records of `folds` (all) have a wrong label.

    The same arguments give the same records and labels. Returns the number of these records.
    """
    frame = load_mapping(mapping)
    labels = [split_list(cell) for cell in frame["mapped_label"]]
    classes = sorted({label for row in labels for label in row})
    may = [bool(row) and len(row) < len(classes) for row in labels]
    if folds:
        may = [ok and fold in set(folds) for ok, fold in zip(may, frame["fold"], strict=True)]
    rng = np.random.default_rng(seed)
    rows = np.flatnonzero(may)
    chosen = np.sort(rng.choice(rows, size=round(share * len(rows)), replace=False)).tolist()
    wrong = frame["mapped_label"].tolist()
    for row in chosen:
        lost = int(rng.integers(len(labels[row])))
        others = [name for name in classes if name not in labels[row]]
        gained = others[int(rng.integers(len(others)))]
        kept = [name for place, name in enumerate(labels[row]) if place != lost]
        wrong[row] = join_list([*kept, gained])
    save_mapping(frame.assign(mapped_label=wrong), out)
    listed = frame.iloc[chosen][["dataset", "record_id"]].assign(
        right=[frame["mapped_label"].iloc[row] for row in chosen],
        planted=[wrong[row] for row in chosen],
    )
    save_frame(listed, Path(planted))
    return len(chosen)


def score(issues: str | Path, planted: str | Path, first: int = 100) -> tuple[int, int, int]:
    """Return how many of the first rows are planted, how many rows these are, and the planted.

    A row counts if it doubts a class that was planted in its record or taken from it.
    """
    changed = {}
    for row in read_table(Path(planted), LABELS).rows:
        key = (plain_cell(row["dataset"]), _id(row["record_id"]))
        changed[key] = set(split_list(row["right"])) ^ set(split_list(row["planted"]))
    rows = read_table(Path(issues), ("dataset", "record_id", "class")).rows[:first]
    n_found = 0
    for row in rows:
        key = (plain_cell(row["dataset"]), _id(row["record_id"]))
        n_found += plain_cell(row["class"]) in changed.get(key, set())
    return n_found, len(rows), len(changed)


def _id(cell: str) -> str:
    """Return the bare record id: a mapping may name folders and ``_lr``, issues name files."""
    name = plain_cell(cell).rsplit("/", 1)[-1].removesuffix("_lr").removesuffix("_hr")
    return id_key(name)


def main() -> None:
    """Run one of both from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    planting = commands.add_parser("plant")
    for name in ("mapping", "out", "planted"):
        planting.add_argument(name)
    planting.add_argument("--share", type=float, default=0.05)
    planting.add_argument("--folds", nargs="*", default=())
    planting.add_argument("--seed", type=int, default=0)
    scoring = commands.add_parser("score")
    for name in ("issues", "planted"):
        scoring.add_argument(name)
    scoring.add_argument("--first", type=int, default=100)
    args = vars(parser.parse_args())
    if args.pop("command") == "plant":
        sys.stdout.write(f"{args['out']}: {plant(**args)} records have a wrong label\n")
        return
    n_found, n_rows, n_planted = score(**args)
    precision = n_found / max(n_rows, 1)
    sys.stdout.write(
        f"{n_found} of the first {n_rows} rows are planted (precision {precision:.2f}); "
        f"{n_planted} were planted\n"
    )


if __name__ == "__main__":
    main()
