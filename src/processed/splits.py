"""Patient-safe, stratified splits that never move a recording once it is placed.

Records with a fold follow their fold. The others are placed by iterative stratification (Sechidis,
Tsoumakas and Vlahavas, ECML PKDD 2011) over groups: the records of one patient stay together, and
so do the copies of one recording. A record that had no label when it was placed is placed again
once it has one.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush
from pathlib import Path
from typing import TYPE_CHECKING

from src.config import SPLIT_NAMES, SplitConfig
from src.labels.ids import name_patients
from src.labels.text_tables import split_list, zip_cells
from src.processed.manifest import is_rejected_copy
from src.processed.record_files import record_key
from src.utils import join_pairs, load_json, printable, save_json

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


_LABELS_SHOWN = 40
# Why a label is not in every split
_LACKING_REASONS = {
    "rare": "too rare to be in more than one split: %s",
    "kept": "kept from an earlier run, so some splits lack a label: %s; --restratify places all "
    "records again",
    "folds": "the folds leave splits without a label: %s",
    "other": "patients and copies that stay together leave splits without a label: %s",
}

# Stands among the labels for all records. Datasets stand there too, see `_dataset_label`.
_ALL_RECORDS = ""


@dataclass(frozen=True)
class SplitItem:
    """A record with everything that decides its split.

    Attributes
    ----------
    key
        Record key.
    labels
        Empty if the record has only the fallback label.
    dataset
        Name of its collection.
    patient_id
        None if unknown.
    fold
        Fold in the label mapping, or None.
    recording
        Names the recording that several records are copies of; empty for a record without a copy.
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
    """Records that stay together, with the number of records that have each label."""

    name: str
    members: list[SplitItem] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def all_counts(self) -> list[tuple[str, int]]:
        """Return the number of records of each label, and last that of all records."""
        return [*self.counts.items(), (_ALL_RECORDS, len(self.members))]


@dataclass(frozen=True)
class Splits:
    """Record keys of each split, with the seed and the rule that made them."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    seed: int
    rule: Mapping[str, object]

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
    provisional: Collection[str] = (),
) -> Splits:
    """Place every item in train, val or test.

    Parameters
    ----------
    items
        The records.
    fractions
        Target share of each split; they sum to 1.
    seed
        Decides among equals; the order of `items` does not matter.
    val_folds, test_folds
        Folds of the label mapping for validation and testing; every other fold trains.
    previous
        Key -> split of an earlier run: these records stay where they are, and so do later ones of
        their patients.
    taken_out
        Copies that get no split. They still link records: their patient's other records stay
        together with the other copies of the recording.
    provisional
        Keys of `previous` that had no label then. They stay only while their group has none.

    Raises
    ------
    ValueError
        If folds, or folds and an earlier run, put the records of one patient or the copies of one
        recording in two splits; the message lists them.
    """
    items, taken_out = _name_patients(items, taken_out)
    # A fold comes before the split of an earlier run.
    split_by_fold = _place_by_fold(items, set(val_folds), set(test_folds))
    kept = {key: split for key, split in (previous or {}).items() if key not in provisional}
    fixed = {**kept, **split_by_fold}

    # Copies that were taken out are in no split, so they cannot contradict the others. They link
    # records only once this is checked.
    groups = _group_items(items, (), seed)
    labelled = {item.key for item in items if item.labels}
    free = labelled.intersection(provisional)
    known = {key: split for key, split in (previous or {}).items() if key not in free}
    _refuse_torn_copies(groups, {**known, **split_by_fold})
    if taken_out:
        groups = _group_items(items, taken_out, seed)

    assignment = _keep_fixed_groups(groups, fixed)
    _keep_provisional_groups(groups, assignment, previous or {})
    fixed_groups = frozenset(assignment)
    _stratify(groups, assignment, fractions)
    _fill_empty_splits(groups, assignment, fractions, fixed_groups)
    _cover_labels(groups, assignment, fractions, fixed_groups)
    _report_lacking_labels(groups, assignment, fractions, kept, split_by_fold)

    keys: dict[str, list[str]] = {name: [] for name in SPLIT_NAMES}
    for group in groups:
        keys[assignment[group.name]] += [item.key for item in group.members]
    train, val, test = (tuple(sorted(keys[name])) for name in SPLIT_NAMES)
    rule = {
        "method": _placing_method(len(split_by_fold), len(items)),
        "fractions": dict(fractions),
        "val_folds": list(val_folds),
        "test_folds": list(test_folds),
        "by_patient": any(item.patient_id for item in items),
        "by_recording": any(item.recording for item in items),
    }
    return Splits(train, val, test, seed, rule)


def _placing_method(n_with_fold: int, n_items: int) -> str:
    if n_with_fold == 0:
        return "stratified"
    return "folds" if n_with_fold == n_items else "folds and stratified"


def _name_patients(
    items: Sequence[SplitItem], taken_out: Sequence[SplitItem]
) -> tuple[list[SplitItem], list[SplitItem]]:
    """Return the items with one spelling of each patient's id, and None for words for nobody."""
    # A processed folder is loaded without the readers, which this import would bring.
    from src.records.windows import window_parent

    everyone = [*items, *taken_out]
    names = name_patients(
        [item.dataset for item in everyone], [item.patient_id or "" for item in everyone]
    )
    settled = []
    for item, name in zip(everyone, names, strict=True):
        # The windows of a record stay together, even if it is called *unknown*.
        own = record_key(item.dataset, item.patient_id or "") == window_parent(item.key)
        is_same = name == (item.patient_id or "") or (own and not name)
        settled.append(item if is_same else replace(item, patient_id=name or None))
    return settled[: len(items)], settled[len(items) :]


# Records whose split is fixed ---------------------------------------------------------------------


def _place_by_fold(
    items: Sequence[SplitItem], val_folds: set[int], test_folds: set[int]
) -> dict[str, str]:
    """Return key -> split of the records with a fold.

    Raises
    ------
    ValueError
        If a patient's records have folds of two splits.
    """
    split_by_key: dict[str, str] = {}
    splits_by_patient: dict[str, set[str]] = defaultdict(set)
    for item in items:
        if item.fold is None:
            continue
        split = "train"
        if item.fold in val_folds:
            split = "val"
        elif item.fold in test_folds:
            split = "test"
        split_by_key[item.key] = split
        if item.patient_id:
            splits_by_patient[item.subject].add(split)

    torn = [patient for patient, splits in splits_by_patient.items() if len(splits) > 1]
    if torn:
        names = sorted([patient.replace("\t", " patient ") for patient in torn])
        raise ValueError(
            f"the folds put records of {len(torn)} patients in two splits: {_first_ten(names)}; "
            "give each patient one fold in the label mapping, or leave the column fold out"
        )
    return split_by_key


def _first_ten(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (" ..." if len(names) > 10 else "")


def _first(names: Sequence[str], limit: int) -> str:
    """Return the first names for a message, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _group_items(
    items: Sequence[SplitItem], taken_out: Sequence[SplitItem], seed: int
) -> list[_Group]:
    """Return the groups in an order that depends only on the seed and their names."""
    # A record links its patient with its recording, so that a group holds all copies of a patient's
    # recordings, all records of the patients of those copies, and so on. Tabs keep the names of
    # recordings apart from those of subjects.
    links = []
    for item in [*items, *taken_out]:
        recording = f"\t\t{item.recording}" if item.recording else item.subject
        links.append((item.subject, recording))

    # A group is named after the first of its linked names, so its name depends on no order.
    group_names: dict[str, str] = {}
    for linked in join_pairs(links):
        group_names |= dict.fromkeys(linked, min(linked))

    groups: dict[str, _Group] = {}
    for item in items:
        name = group_names[item.subject]
        group = groups.setdefault(name, _Group(name))
        group.members.append(item)
        group.counts.update({*item.labels, _dataset_label(item.dataset)})

    def shuffled(group: _Group) -> bytes:
        return hashlib.blake2b(f"{seed}\t{group.name}".encode(), digest_size=8).digest()

    return sorted(groups.values(), key=shuffled)


def _dataset_label(dataset: str) -> str:
    """Return the label that stands for a dataset, so that splits are stratified by dataset too.

    The tab keeps it apart from every real label.
    """
    return f"\t{dataset}"


def _is_dataset_label(label: str) -> bool:
    """Return whether a label stands for a dataset."""
    return label.startswith("\t")


def _refuse_torn_copies(groups: Sequence[_Group], fixed: Mapping[str, str]) -> None:
    """Refuse fixed splits that separate copies of one recording.

    To move one copy would change a fixed split; to move none would leak a record.

    Raises
    ------
    ValueError
        The message lists the copies.
    """
    torn = []
    for group in groups:
        fixed_splits = {item.key: fixed[item.key] for item in group.members if item.key in fixed}
        if len(set(fixed_splits.values())) > 1 and any(item.recording for item in group.members):
            torn.append(
                " = ".join([f"{key} ({fixed_splits[key]})" for key in sorted(fixed_splits)])
            )
    if torn:
        raise ValueError(
            f"the folds or an earlier run put copies of {len(torn)} recordings in two splits: "
            f"{_first_ten(sorted(torn))}; give copies one fold in the label mapping or leave the "
            "column fold out, delete splits.json to place every record again, or leave copies out "
            "with --on-duplicate keep-first or drop-all"
        )


def _keep_fixed_groups(groups: Sequence[_Group], fixed: Mapping[str, str]) -> dict[str, str]:
    """Return group name -> split of the groups with a record whose split is fixed.

    Patient ids that were added later may join records of two splits. Train then wins, because a
    record that was trained on must not be tested on.
    """
    assignment = {}
    for group in groups:
        fixed_splits = {fixed[item.key] for item in group.members if item.key in fixed}
        if fixed_splits:
            assignment[group.name] = min(fixed_splits, key=SPLIT_NAMES.index)
        if len(fixed_splits) > 1:
            logger.warning(
                "records of %s were in %s: all go to %s now",
                group.name.strip(),
                sorted(fixed_splits),
                assignment[group.name],
            )
    return assignment


def _keep_provisional_groups(
    groups: Sequence[_Group], assignment: dict[str, str], previous: Mapping[str, str]
) -> None:
    """Leave groups without a label where an earlier run put them; others are free to move.

    A split that was made without labels is not stratified, so it does not bind records with labels.
    """
    n_freed = 0
    for group in groups:
        earlier = {previous[item.key] for item in group.members if item.key in previous}
        if not earlier or group.name in assignment:
            continue
        if any(item.labels for item in group.members):
            n_freed += len(group.members)
        else:
            assignment[group.name] = min(earlier, key=SPLIT_NAMES.index)
    if n_freed:
        logger.warning(
            "%d records were placed by an earlier run without labels: they are placed again by "
            "their labels",
            n_freed,
        )


# Iterative stratification -------------------------------------------------------------------------


def _stratify(
    groups: Sequence[_Group], assignment: dict[str, str], fractions: Mapping[str, float]
) -> None:
    """Assign the groups that have no split yet, rarest label first, where it is missing most."""
    active = [name for name in SPLIT_NAMES if fractions[name] > 0]
    missing = _missing_records(groups, assignment, fractions)
    splits_by_label = _splits_by_label(groups, assignment)

    n_groups: Counter[str] = Counter()
    waiting: dict[str, list[_Group]] = defaultdict(list)
    for group in groups:
        n_groups.update(group.counts.keys())
        if group.name not in assignment:
            for label in group.counts:
                waiting[label].append(group)
    n_waiting = {label: len(members) for label, members in waiting.items()}

    # The fewer groups of a label are left, the less choice there is, so the rarest comes first. Of
    # equally rare ones, classes come before datasets. An entry that is no longer true stays in the
    # heap and is passed over, since the true one comes before it.
    heap = [(n, _is_dataset_label(label), label) for label, n in n_waiting.items()]
    heapify(heap)
    while n_waiting:
        label = heappop(heap)[2]
        if label not in n_waiting:
            continue

        # Large groups are hard to fit in late.
        for group in sorted(waiting[label], key=lambda member: -member.counts[label]):
            if group.name in assignment:
                continue

            # One large group can meet the need of a split, and more can go to it for other labels.
            # So the last groups of a label are kept for the splits that have none of it.
            lacking = [name for name in active if name not in splits_by_label[label]]
            enough_for_all = n_groups[label] >= len(active)
            last_chance = enough_for_all and n_waiting[label] <= len(lacking)
            candidates = lacking if last_chance else active
            split = _split_missing_most(candidates, missing[label], missing[_ALL_RECORDS])

            # The group counts for all its labels, not only for the one that placed it.
            assignment[group.name] = split
            for other_label, count in group.all_counts():
                splits_by_label[other_label].add(split)
                missing[other_label][split] -= count
                if other_label in n_waiting:
                    n_waiting[other_label] -= 1
                    is_dataset = _is_dataset_label(other_label)
                    heappush(heap, (n_waiting[other_label], is_dataset, other_label))
        del n_waiting[label]


def _split_missing_most(
    splits: Sequence[str], of_label: Mapping[str, float], of_all: Mapping[str, float]
) -> str:
    """Return the split that misses most records of a label, of equals the one that misses most."""
    # Rounded, so that equals stay equal whatever was subtracted from them before.
    return max(splits, key=lambda name: (round(of_label[name], 9), round(of_all[name], 9)))


def _splits_by_label(
    groups: Sequence[_Group], assignment: Mapping[str, str]
) -> dict[str, set[str]]:
    """Return label -> the splits that hold it."""
    splits: dict[str, set[str]] = defaultdict(set)
    for group in groups:
        if group.name in assignment:
            for label in group.counts:
                splits[label].add(assignment[group.name])
    return splits


def _missing_records(
    groups: Sequence[_Group], assignment: Mapping[str, str], fractions: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """Return label -> split -> number of records missing from the target, the empty label for all.

    A label with at least one group per split gets one record in each, so that its metrics exist.
    """
    active = [name for name in SPLIT_NAMES if fractions[name] > 0]
    n_records: Counter[str] = Counter()
    n_groups: Counter[str] = Counter()
    for group in groups:
        n_records.update(group.counts)
        n_records[_ALL_RECORDS] += len(group.members)
        n_groups.update(group.counts.keys())

    missing: dict[str, dict[str, float]] = {}
    for label, total in n_records.items():
        targets = {name: fractions[name] * total for name in active}
        # One record in val and in test, at the cost of train
        if label != _ALL_RECORDS and n_groups[label] >= len(active):
            held_out = {name: max(n, 1.0) for name, n in targets.items() if name != "train"}
            if "train" in targets:
                targets = {"train": total - sum(held_out.values()), **held_out}
            else:
                targets = held_out
        missing[label] = targets

    # Records whose split is fixed count towards the targets, also those of a split with share 0.
    for group in groups:
        if group.name in assignment:
            split = assignment[group.name]
            for label, count in group.all_counts():
                missing[label][split] = missing[label].get(split, 0.0) - count
    return missing


def _fill_empty_splits(
    groups: Sequence[_Group],
    assignment: dict[str, str],
    fractions: Mapping[str, float],
    fixed_groups: frozenset[str],
) -> None:
    """Move one group from train to each split that is empty, unless a record's split is fixed.

    Many classes with one record each can leave a split empty.
    """
    if fixed_groups:
        return
    for split in ("val", "test"):
        in_train = [group for group in groups if assignment[group.name] == "train"]
        is_empty = split not in assignment.values()
        if fractions[split] > 0 and is_empty and len(in_train) >= 2:
            assignment[_most_replaceable(in_train).name] = split


def _most_replaceable(groups: Sequence[_Group]) -> _Group:
    """Return the group whose rarest label is in most of the groups, of equals the smallest."""
    n_groups: Counter[str] = Counter()
    for group in groups:
        n_groups.update(group.counts.keys())

    def rank(group: _Group) -> tuple[int, int]:
        return min([n_groups[label] for label in group.counts]), -len(group.members)

    return max(groups, key=rank)


def _cover_labels(
    groups: Sequence[_Group],
    assignment: dict[str, str],
    fractions: Mapping[str, float],
    fixed_groups: frozenset[str],
) -> None:
    """Place groups anew if a label is in too few splits, although enough groups hold it."""
    from src.processed.label_cover import CoverGroup, cover_labels, find_wanted

    active = [name for name in SPLIT_NAMES if fractions[name] > 0]
    held = _splits_by_label(groups, assignment)
    n_groups = _count_groups(groups)
    complete = {label for label, splits in held.items() if splits >= set(active)}
    lacking = [label for label, n in n_groups.items() if n >= len(active)]
    lacking = [name for name in lacking if not (name in complete or _is_dataset_label(name))]
    if not lacking:
        return
    members = [
        CoverGroup(
            labels=frozenset(group.counts),
            size=len(group.members),
            split=assignment[group.name],
            is_fixed=group.name in fixed_groups,
        )
        for group in groups
    ]
    wanted = find_wanted(members, active, n_groups)
    if not set(wanted) & set(lacking):
        return
    # Datasets should stay in the splits where they are, but classes come first.
    classes = [name for name in wanted if not _is_dataset_label(name)]
    found = cover_labels(members, active, {*classes, *(set(wanted) & complete)})
    if found is None:
        found = cover_labels(members, active, classes)
    if found is not None:
        for group, split in zip(groups, found, strict=True):
            assignment[group.name] = split


def _count_groups(groups: Sequence[_Group]) -> Counter[str]:
    """Return label -> number of groups that hold it."""
    n_groups: Counter[str] = Counter()
    for group in groups:
        n_groups.update(group.counts.keys())
    return n_groups


def _report_lacking_labels(
    groups: Sequence[_Group],
    assignment: Mapping[str, str],
    fractions: Mapping[str, float],
    kept: Mapping[str, str],
    by_fold: Mapping[str, str],
) -> None:
    """Log the labels that a split lacks, by the reason.

    `kept` and `by_fold` are the keys whose split an earlier run, or a fold, has fixed. Labels of
    too few groups are reported only if they are in a single split.
    """
    if len(set(assignment.values())) <= 1:
        return
    # Folds may leave a split empty, which is said by its size.
    filled = set(assignment.values())
    active = [name for name in SPLIT_NAMES if fractions[name] > 0 and name in filled]
    held = _splits_by_label(groups, assignment)
    n_groups = _count_groups(groups)
    n_records: Counter[str] = Counter()
    labels_kept: set[str] = set()
    labels_by_fold: set[str] = set()
    for group in groups:
        n_records.update(group.counts)
        if any(item.key in by_fold for item in group.members):
            labels_by_fold.update(group.counts)
        elif any(item.key in kept for item in group.members):
            labels_kept.update(group.counts)

    reports: dict[str, list[str]] = {reason: [] for reason in _LACKING_REASONS}
    for label in sorted(held):
        absent = [name for name in active if name not in held[label]]
        if not absent or _is_dataset_label(label):
            continue
        if n_groups[label] < len(active):
            if len(held[label]) == 1:
                reports["rare"].append(f"{label} ({n_records[label]})")
            continue
        reason = "other"
        if label in labels_kept:
            reason = "kept"
        elif label in labels_by_fold:
            reason = "folds"
        reports[reason].append(f"{label} ({n_records[label]}) not in {' and '.join(absent)}")
    for reason, labels in reports.items():
        if labels:
            logger.warning(_LACKING_REASONS[reason], _first(labels, _LABELS_SHOWN))


# Files --------------------------------------------------------------------------------------------


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
        return _read_splits(load_json(path))
    except ValueError as error:
        raise ValueError(
            f"{path}: not a splits file ({str(error).removeprefix(f'{path}: ')}): restore a copy "
            "of it, or delete it and run preprocess again, which places every record again"
        ) from None


def _read_splits(values: object) -> Splits:
    """Return the splits that a file holds; a field of another kind raises a ValueError."""
    if not isinstance(values, dict):
        raise ValueError("expected train, val, test, seed and rule")
    split_of: dict[str, str] = {}
    for name in SPLIT_NAMES:
        keys = values.get(name)
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise ValueError(f"{name} is {_shown(keys)}: expected a list of record keys")
        for key in keys:
            if split_of.setdefault(key, name) != name:
                raise ValueError(f"{printable(key)} is in {split_of[key]} and in {name}")
    seed, rule = values.get("seed"), values.get("rule")
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise ValueError(f"seed is {_shown(seed)}: expected a whole number")
    if not isinstance(rule, dict):
        raise ValueError(f"rule is {_shown(rule)}: expected an object")
    train, val, test = (tuple(values[name]) for name in SPLIT_NAMES)
    return Splits(train, val, test, seed, rule)


def _shown(value: object) -> str:
    return "missing" if value is None else printable(repr(value), 60)


def build_splits(
    manifest: pd.DataFrame,
    config: SplitConfig,
    previous: Mapping[str, str],
    copies: Sequence[tuple[str, ...]] = (),
    provisional: Collection[str] = (),
) -> Splits:
    """Place the ok records of a manifest, with copies of a recording in one split.

    Parameters
    ----------
    manifest
        Its rejected copies still show which records are of one patient.
    config
        Fractions, folds and seed.
    previous
        Key -> split of an earlier run.
    copies
        The keys of each recording that several records hold.
    provisional
        Keys that an earlier run placed without a label.

    Raises
    ------
    ValueError
        As `make_splits`.
    """
    # A recording is named after the first of its keys, so that its name depends on no order.
    recordings: dict[str, str] = {}
    for group in copies:
        recordings |= dict.fromkeys(group, min(group))
    return make_splits(
        _split_items(manifest[manifest["status"] == "ok"], recordings),
        fractions=split_fractions(config),
        seed=config.seed,
        val_folds=config.val_folds,
        test_folds=config.test_folds,
        previous=previous,
        taken_out=_split_items(manifest[is_rejected_copy(manifest)], recordings),
        provisional=provisional,
    )


def _split_items(rows: pd.DataFrame, recordings: Mapping[str, str]) -> list[SplitItem]:
    """Return the records of some rows of a manifest; `recordings` maps keys to recordings."""
    columns = ("dataset", "record_id", "labels", "label_source", "patient_id", "fold")
    items = []
    for dataset, record_id, labels, source, patient_id, fold in zip_cells(
        *[rows[name] for name in columns]
    ):
        key = record_key(dataset, record_id)
        item = SplitItem(
            key=key,
            labels=split_list(labels) if source == "mapping" else (),
            dataset=dataset,
            patient_id=patient_id or None,
            fold=int(fold) if fold else None,
            recording=recordings.get(key, ""),
        )
        items.append(item)
    return items


def split_fractions(config: SplitConfig) -> dict[str, float]:
    """Return the share of each split."""
    held_out = {"val": config.val_fraction, "test": config.test_fraction}
    return {**held_out, "train": 1.0 - sum(held_out.values())}
