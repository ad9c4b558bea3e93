"""Patient-safe, stratified splits that never move a recording once it is placed.

Records with a fold follow their fold. The others are placed by iterative stratification (Sechidis,
Tsoumakas and Vlahavas, ECML PKDD 2011) over groups: a patient's records, and those that are one
recording, stay together.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.config import SplitConfig
from src.labels.text_tables import split_list, zip_cells
from src.processed.manifest import is_rejected_copy
from src.processed.record_files import record_key
from src.utils import join_pairs, load_json, save_json

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


SPLIT_NAMES = ("train", "val", "test")


@dataclass(frozen=True)
class SplitItem:
    """What the split of a record depends on: its key, patient (or None), labels, dataset and fold
    (or None).

    `recording` names what several records are copies of; it is empty for a record without a copy.
    """

    key: str
    labels: tuple[str, ...]
    dataset: str
    patient_id: str | None = None
    fold: int | None = None
    recording: str = ""

    @property
    def subject(self) -> str:
        """The patient within the dataset, else the record itself."""
        return f"{self.dataset}\t{self.patient_id}" if self.patient_id else f"\t{self.key}"


@dataclass
class _Group:
    """Records that stay together, with how many records carry each label."""

    name: str
    members: list[SplitItem] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Splits:
    """Record keys of each split, with the seed and the rule that made them."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    seed: int
    rule: dict[str, Any]

    def of_key(self) -> dict[str, str]:
        """Return key -> split name."""
        return {key: name for name in SPLIT_NAMES for key in getattr(self, name)}


def make_splits(
    items: Sequence[SplitItem],
    *,
    fractions: Mapping[str, float],
    seed: int = 0,
    val_folds: Sequence[int] = (9,),
    test_folds: Sequence[int] = (10,),
    previous: Mapping[str, str] | None = None,
    taken_out: Sequence[SplitItem] = (),
) -> Splits:
    """Place every item in train, val or test.

    Parameters
    ----------
    items
        The records.
    fractions
        Wanted share of each split; they sum to 1.
    seed
        Decides among equals; the order of `items` does not matter.
    val_folds, test_folds
        Folds of the mapping that validate and test; every other fold trains.
    previous
        Key -> split of an earlier run: these records stay where they are, and so do later ones of
        their patients.
    taken_out
        Copies that get no split: their patients hold the other copies and the other records
        together all the same.

    Raises
    ------
    ValueError
        If folds, or folds and an earlier run, put the records of one patient or the copies of one
        recording in two splits; the message lists them.
    """
    placed = _place_by_fold(items, set(val_folds), set(test_folds))
    fixed = {**(previous or {}), **placed}
    groups = _groups(items, (), seed)
    _refuse_torn_copies(
        groups, fixed
    )  # those taken out are in no split, and none of the others is their copy
    if taken_out:
        groups = _groups(items, taken_out, seed)
    assignment = _place_known_groups(groups, fixed)
    _stratify(
        [group for group in groups if group.name not in assignment], groups, assignment, fractions
    )
    _fill_empty_splits(
        groups, assignment, fractions, frozen={g.name for g in groups if _known(g, fixed)}
    )
    keys: dict[str, list[str]] = {name: [] for name in SPLIT_NAMES}
    for group in groups:
        keys[assignment[group.name]] += [item.key for item in group.members]
    _report_rare(groups, assignment)
    rule = {
        "method": "folds"
        if items and len(placed) == len(items)
        else "stratified"
        if not placed
        else "folds and stratified",
        "fractions": dict(fractions),
        "val_folds": list(val_folds),
        "test_folds": list(test_folds),
        "by_patient": any(item.patient_id for item in items),
        "by_recording": any(item.recording for item in items),
    }
    train, val, test = (tuple(sorted(keys[name])) for name in SPLIT_NAMES)
    return Splits(train, val, test, seed, rule)


def _place_by_fold(
    items: Sequence[SplitItem], val_folds: set[int], test_folds: set[int]
) -> dict[str, str]:
    def split_of(fold: int) -> str:
        return "val" if fold in val_folds else "test" if fold in test_folds else "train"

    placed = {item.key: split_of(item.fold) for item in items if item.fold is not None}
    homes: dict[str, set[str]] = defaultdict(set)
    for item in items:
        if item.key in placed and item.patient_id:
            homes[item.subject].add(placed[item.key])
    torn = sorted(
        name.replace("\t", " patient ") for name, splits in homes.items() if len(splits) > 1
    )
    if torn:
        raise ValueError(
            f"the folds put records of {len(torn)} patients in two splits: {', '.join(torn[:10])}"
            f"{' ...' if len(torn) > 10 else ''}; give each patient one fold in the "
            "mapping, or leave the column fold out"
        )
    return placed


def _groups(items: Sequence[SplitItem], taken_out: Sequence[SplitItem], seed: int) -> list[_Group]:
    """Return the groups in an order that depends on the seed and their names only."""
    links = [
        (item.subject, f"\t\t{item.recording}" if item.recording else item.subject)
        for item in [*items, *taken_out]
    ]
    name_of = {
        part: first for whole in join_pairs(links) for first in [min(whole)] for part in whole
    }
    groups: dict[str, _Group] = {}
    for item in items:
        name = name_of[item.subject]
        group = groups.setdefault(name, _Group(name))
        group.members.append(item)
        group.counts.update({*item.labels, _dataset_label(item.dataset)})

    def order(group: _Group) -> bytes:
        return hashlib.blake2b(f"{seed}\t{group.name}".encode(), digest_size=8).digest()

    return sorted(groups.values(), key=order)


def _refuse_torn_copies(groups: Sequence[_Group], fixed: Mapping[str, str]) -> None:
    """Refuse folds and places that put copies of one recording in two splits: either choice would
    move or leak a record.
    """
    torn = []
    for group in groups:
        homes = {item.key: fixed[item.key] for item in group.members if item.key in fixed}
        if len(set(homes.values())) > 1 and any(item.recording for item in group.members):
            torn.append(" = ".join(f"{key} ({homes[key]})" for key in sorted(homes)))
    if torn:
        raise ValueError(
            f"the folds or an earlier run put copies of {len(torn)} recordings in two "
            f"splits: {', '.join(sorted(torn)[:10])}"
            f"{' ...' if len(torn) > 10 else ''}; give copies one fold in the mapping or "
            "leave the column fold out, delete splits.json "
            "to place every record anew, or leave copies out with --on-duplicate "
            "keep-first or drop-all"
        )


def _dataset_label(dataset: str) -> str:
    """Stratify by dataset as if it were a label; the tab keeps it apart from every real one."""
    return f"\t{dataset}"


def _known(group: _Group, fixed: Mapping[str, str]) -> bool:
    return any(item.key in fixed for item in group.members)


def _place_known_groups(groups: Sequence[_Group], fixed: Mapping[str, str]) -> dict[str, str]:
    """Keep groups where one of their records already is.

    Patient ids that were learned late may join records of two splits; train then wins, for a record
    that has been trained on must not test.
    """
    assignment = {}
    for group in groups:
        homes = {fixed[item.key] for item in group.members if item.key in fixed}
        if homes:
            assignment[group.name] = min(homes, key=SPLIT_NAMES.index)
        if len(homes) > 1:
            logger.warning(
                "records of %s were in %s: all go to %s now",
                group.name.strip(),
                sorted(homes),
                assignment[group.name],
            )
    return assignment


def _stratify(
    waiting: Sequence[_Group],
    groups: Sequence[_Group],
    assignment: dict[str, str],
    fractions: Mapping[str, float],
) -> None:
    """Place the waiting groups, rarest label first, each where that label is needed most."""
    active = [name for name in SPLIT_NAMES if fractions[name] > 0]
    needed = _needs(groups, assignment, fractions)
    n_groups = Counter(label for group in groups for label in group.counts)
    homes = _homes(groups, assignment)
    by_label: dict[str, list[_Group]] = defaultdict(list)
    for group in waiting:
        for label in group.counts:
            by_label[label].append(group)
    left = {label: len(members) for label, members in by_label.items()}
    while left:
        label = min(
            left, key=lambda name: (left[name], name.startswith("\t"), name)
        )  # of equals, classes before datasets
        for group in sorted(
            by_label[label], key=lambda item: -item.counts[label]
        ):  # large groups are hard to fit late
            if group.name in assignment:
                continue
            without = [name for name in active if name not in homes[label]]
            last_chance = n_groups[label] >= len(active) and left[label] <= len(
                without
            )  # large groups overfill one split
            split = _neediest(without if last_chance else active, needed[label], needed[""])
            assignment[group.name] = split
            for other, count in [*group.counts.items(), ("", len(group.members))]:
                homes[other].add(split)
                needed[other][split] -= count
                if other in left:
                    left[other] -= 1
        del left[label]


def _neediest(splits: Sequence[str], need: Mapping[str, float], total: Mapping[str, float]) -> str:
    return max(splits, key=lambda name: (round(need[name], 9), round(total[name], 9)))


def _homes(groups: Sequence[_Group], assignment: Mapping[str, str]) -> dict[str, set[str]]:
    """Return label -> the splits that hold it."""
    homes: dict[str, set[str]] = defaultdict(set)
    for group in groups:
        for label in group.counts if group.name in assignment else ():
            homes[label].add(assignment[group.name])
    return homes


def _needs(
    groups: Sequence[_Group], assignment: Mapping[str, str], fractions: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """Return label -> split -> records still wanted; label "" stands for all records.

    A label with at least one group per split gets one record in each, so that its metrics exist.
    """
    active = [name for name in SPLIT_NAMES if fractions[name] > 0]
    totals: Counter[str] = Counter()
    n_groups: Counter[str] = Counter()
    for group in groups:
        totals.update(group.counts)
        totals[""] += len(group.members)
        n_groups.update(group.counts.keys())
    needed = {}
    for label, total in totals.items():
        need = {name: fractions[name] * total for name in active}
        if label and n_groups[label] >= len(active):
            small = {name: max(value, 1.0) for name, value in need.items() if name != "train"}
            need = {"train": total - sum(small.values()), **small} if "train" in need else small
        needed[label] = need
    for group in groups:
        if group.name in assignment:
            for label, count in [*group.counts.items(), ("", len(group.members))]:
                needed[label][assignment[group.name]] = (
                    needed[label].get(assignment[group.name], 0.0) - count
                )
    return needed


def _fill_empty_splits(
    groups: Sequence[_Group],
    assignment: dict[str, str],
    fractions: Mapping[str, float],
    frozen: set[str],
) -> None:
    """Move a group or two out of train where many classes of one record each left a split empty."""
    for split in ("val", "test"):
        sizes = Counter(assignment.values())
        movable = [g for g in groups if assignment[g.name] == "train" and g.name not in frozen]
        if fractions[split] > 0 and not sizes[split] and len(movable) >= 2 and not frozen:
            in_train = Counter(
                label for g in groups if assignment[g.name] == "train" for label in g.counts
            )
            common = max(
                movable, key=lambda g: (min(in_train[label] for label in g.counts), -len(g.members))
            )
            assignment[common.name] = split


def _report_rare(groups: Sequence[_Group], assignment: Mapping[str, str]) -> None:
    homes = _homes(groups, assignment)
    counts: Counter[str] = Counter()
    for group in groups:
        counts.update(group.counts)
    rare = [
        f"{label} ({counts[label]})"
        for label in sorted(homes)
        if len(homes[label]) == 1 and not label.startswith("\t")
    ]
    if rare and len(set(assignment.values())) > 1:
        logger.warning("too rare to be in more than one split: %s", ", ".join(rare))


def save_splits(splits: Splits, path: str | Path) -> None:
    """Write ``splits.json``."""
    save_json(splits, path)


def load_splits(path: str | Path) -> Splits:
    """Read ``splits.json``.

    Raises
    ------
    ValueError
        If the file is missing or not as `save_splits` writes it.
    """
    if not Path(path).exists():
        raise ValueError(f"{path}: no such file; run preprocess first")
    try:
        values = load_json(path)
        train, val, test = (tuple(str(key) for key in values[name]) for name in SPLIT_NAMES)
        return Splits(train, val, test, int(values["seed"]), dict(values["rule"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ValueError(
            f"{path}: not a splits file (expected train, val, test, seed and rule): put "
            "back a copy of it, or delete it and run "
            "preprocess again, which places every record anew"
        ) from None


def build_splits(
    manifest: pd.DataFrame,
    config: SplitConfig,
    previous: Mapping[str, str],
    copies: Sequence[tuple[str, ...]] = (),
) -> Splits:
    """Place the ok records of a manifest, copies of a recording together, and those in `previous`
    where it says.

    Copies that were taken out still tell which records are of one patient.
    """
    recording = {key: first for group in copies for first in [min(group)] for key in group}

    def items(rows: pd.DataFrame) -> list[SplitItem]:
        columns = (
            rows[name]
            for name in ("dataset", "record_id", "labels", "label_source", "patient_id", "fold")
        )
        return [
            SplitItem(
                key=record_key(dataset, record_id),
                labels=split_list(labels) if source == "mapping" else (),
                dataset=dataset,
                patient_id=patient or None,
                fold=int(fold) if fold else None,
                recording=recording.get(record_key(dataset, record_id), ""),
            )
            for dataset, record_id, labels, source, patient, fold in zip_cells(*columns)
        ]

    return make_splits(
        items(manifest[manifest["status"] == "ok"]),
        fractions=split_fractions(config),
        seed=config.seed,
        val_folds=config.val_folds,
        test_folds=config.test_folds,
        previous=previous,
        taken_out=items(manifest[is_rejected_copy(manifest)]),
    )


def split_fractions(config: SplitConfig) -> dict[str, float]:
    """Return the share of each split."""
    held_out = {"val": config.val_fraction, "test": config.test_fraction}
    return {**held_out, "train": 1.0 - sum(held_out.values())}
