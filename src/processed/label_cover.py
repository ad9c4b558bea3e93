"""A search for splits in which every label has a record, for collections of a few hundred groups.

Iterative stratification places group after group and never takes one back, so in a small set it may
leave a label out of a split that could have had it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

_MAX_GROUPS = 500
_MAX_STEPS = 5000
# Records by which val and test may grow, at the cost of train, where their sizes allow no solution.
_MAX_EXTRA = 3


@dataclass(frozen=True)
class CoverGroup:
    """Records that stay together.

    Attributes
    ----------
    labels
        Labels of its records.
    size
        Number of its records.
    split
        The split that it was given.
    is_fixed
        Whether it must stay there.
    """

    labels: frozenset[str]
    size: int
    split: str
    is_fixed: bool


def cover_labels(
    groups: Sequence[CoverGroup], splits: Sequence[str], wanted: Collection[str]
) -> list[str] | None:
    """Return a split for each group, such that each split holds each wanted label.

    Splits keep their number of records where that is possible, and groups their split.

    Parameters
    ----------
    groups
        All groups, with the splits that they have now.
    splits
        Names of the splits to fill, train first.
    wanted
        The labels; at least as many groups hold each as there are splits.

    Returns
    -------
    list or None
        None if there are too many groups, or no solution was found in a bounded number of steps.
    """
    if len(groups) > _MAX_GROUPS:
        return None
    for extra in range(_MAX_EXTRA + 1):
        found = _Search(groups, splits, wanted, extra).run()
        if found is not None:
            return found
    return None


class _Search:
    """A depth-first search that fills the scarcest place first."""

    def __init__(
        self,
        groups: Sequence[CoverGroup],
        splits: Sequence[str],
        wanted: Collection[str],
        extra: int,
    ) -> None:
        self.groups = groups
        self.splits = splits
        self.placed = [group.split if group.is_fixed else "" for group in groups]
        self.steps = 0

        # Records that each split may still take
        self.room: Counter[str] = Counter()
        for group in groups:
            self.room[group.split] += 0 if group.is_fixed else group.size
        for split in splits[1:]:
            self.room[split] += extra

        self.holders = {label: self._holders_of(label) for label in sorted(wanted)}
        self.n_waiting = {
            label: sum(not self.placed[i] for i in holders)
            for label, holders in self.holders.items()
        }
        # How many groups of a label a split holds
        self.n_held: Counter[tuple[str, str]] = Counter()
        for group in groups:
            if group.is_fixed:
                self.n_held.update((label, group.split) for label in group.labels)

    def _holders_of(self, label: str) -> list[int]:
        return [i for i, group in enumerate(self.groups) if label in group.labels]

    def run(self) -> list[str] | None:
        """Return the split of each group, or None."""
        if not self._fill():
            return None
        self._place_others()
        return self.placed

    def _fill(self) -> bool:
        """Place groups until no split lacks a label; return whether that worked."""
        self.steps += 1
        if self.steps > _MAX_STEPS:
            return False
        lacking = self._scarcest()
        if lacking is None:
            return True
        label, split = lacking
        for i in self._candidates(label, split):
            self._place(i, split)
            if self._is_possible() and self._fill():
                return True
            self._take_back(i, split)
        return False

    def _scarcest(self) -> tuple[str, str] | None:
        """Return the label and the split without it for which there is least choice."""
        places = [
            (label, split)
            for label in self.holders
            for split in self.splits
            if not self.n_held[label, split]
        ]
        return min(
            places,
            key=lambda place: (self.n_waiting[place[0]], self.room[place[1]]),
            default=None,
        )

    def _candidates(self, label: str, split: str) -> list[int]:
        """Return the groups that may be placed, first those that are in the split already."""
        fitting = [
            i
            for i in self.holders[label]
            if not self.placed[i] and self.groups[i].size <= self.room[split]
        ]
        return sorted(fitting, key=lambda i: (self.groups[i].split != split, self.groups[i].size))

    def _is_possible(self) -> bool:
        """Return whether each label has a group left for each split that lacks it."""
        for label, n_waiting in self.n_waiting.items():
            n_lacking = sum(not self.n_held[label, split] for split in self.splits)
            if n_lacking > n_waiting:
                return False
        return True

    def _place(self, i: int, split: str) -> None:
        self.placed[i] = split
        self._count(i, split, 1)

    def _take_back(self, i: int, split: str) -> None:
        self.placed[i] = ""
        self._count(i, split, -1)

    def _count(self, i: int, split: str, by: int) -> None:
        group = self.groups[i]
        self.room[split] -= by * group.size
        for label in group.labels:
            self.n_held[label, split] += by
            if label in self.n_waiting:
                self.n_waiting[label] -= by

    def _place_others(self) -> None:
        """Leave the other groups where they are while there is room, else take the roomiest."""
        waiting = [i for i, split in enumerate(self.placed) if not split]
        for i in waiting:
            split = self.groups[i].split
            if self.groups[i].size <= self.room[split]:
                self._place(i, split)
        for i in waiting:
            if not self.placed[i]:
                self._place(i, max(self.splits, key=lambda name: self.room[name]))


def find_wanted(
    groups: Sequence[CoverGroup], splits: Sequence[str], labels: Mapping[str, int]
) -> list[str]:
    """Return the labels that can be in every split, whatever the sizes of the splits.

    Parameters
    ----------
    groups
        All groups.
    splits
        Names of the splits.
    labels
        Label -> number of the groups that hold it.
    """
    held: set[tuple[str, str]] = set()
    n_free: Counter[str] = Counter()
    for group in groups:
        if group.is_fixed:
            held.update((label, group.split) for label in group.labels)
        else:
            n_free.update(group.labels)
    wanted = []
    for label, n_groups in labels.items():
        n_lacking = sum((label, split) not in held for split in splits)
        if n_groups >= len(splits) and n_lacking <= n_free[label]:
            wanted.append(label)
    return wanted
