from __future__ import annotations

from src.processed.label_cover import CoverGroup, cover_labels, find_wanted

SPLITS = ("train", "val", "test")


def group(labels: str, split: str = "train", size: int = 1, fixed: bool = False) -> CoverGroup:
    return CoverGroup(frozenset(labels), size, split, fixed)


def held(groups: list[CoverGroup], splits: list[str]) -> dict[str, set[str]]:
    """Return split -> the labels in it."""
    return {
        name: set().union(*(g.labels for g, s in zip(groups, splits, strict=True) if s == name))
        for name in SPLITS
    }


def test_a_label_moves_to_the_splits_that_lack_it() -> None:
    groups = [group("A"), group("A"), group("A"), group("B"), group("B", "val"), group("B", "test")]
    found = cover_labels(groups, SPLITS, "AB")
    assert found is not None
    assert all(labels == {"A", "B"} for labels in held(groups, found).values())


def test_groups_that_are_fixed_stay_and_the_sizes_too_where_possible() -> None:
    groups = [group("A", "train", fixed=True), group("B"), group("AB"), group("A"), group("B")]
    groups += [group("A", "val"), group("A", "test")]
    found = cover_labels(groups, SPLITS, "AB")
    assert found is not None and found[0] == "train"
    assert sorted(found).count("val") >= 1 and "B" in held(groups, found)["test"]


def test_what_cannot_be_is_not_wanted() -> None:
    groups = [group("A", "train", fixed=True), group("A"), group("B"), group("B"), group("B")]
    groups += [group("C", "train", fixed=True) for _ in range(3)]
    assert find_wanted(groups, SPLITS, {"A": 2, "B": 3, "C": 3}) == ["B"]
    assert cover_labels([group("A")] * 501, SPLITS, "A") is None
