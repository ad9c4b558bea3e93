"""Probabilities and the records that they are of."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest

from src.learning.score_tables import ScoreTable, find_records, report_others, resolve_keys
from src.processed.targets import LabelledRecords, Task

KNOWN = ("d__0003", "d__b", "e__b", "e_:__x", "d__7", "d__07")


def make(keys: tuple[str, ...], classes: tuple[str, ...] = ("A", "B")) -> ScoreTable:
    return ScoreTable(keys, np.full((len(keys), len(classes)), 0.5), classes, "p.csv")


def make_records(labels: dict[str, tuple[str, ...]]) -> LabelledRecords:
    n = len(labels)
    keys = tuple(labels)
    return LabelledRecords(
        Path("p"), keys, tuple(labels.values()), ((),) * n, keys, ("d",) * n, keys, (1.0,) * n
    )


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("d__0003", "d__0003"),
        ("0003", "d__0003"),
        ("3", "d__0003"),
        ("3.0", "d__0003"),
        ("d__3", "d__0003"),
        ("x", "e_:__x"),
        ("e___x", "e_:__x"),  # as earlier versions wrote it
        ("07", "d__07"),
        ("7", "d__7"),
        ("e__7", "e__7"),
        ("unknown", "unknown"),
    ],
)
def test_keys_and_ids_name_records(name: str, key: str) -> None:
    assert resolve_keys([name], KNOWN, "p.csv") == [key]


def test_an_id_of_two_datasets_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^p\.csv: record b may be d__b or e__b: give record keys"
    ):
        resolve_keys(["x", "b"], KNOWN, "p.csv")
    with pytest.raises(ValueError, match=r"record 7\.0 may be d__07 or d__7"):
        resolve_keys(["7.0"], KNOWN, "p.csv")


def test_a_record_twice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"d__0003 is repeated in 2 of its records \(1 and 3\)"):
        make(("0003", "x", "d__3")).resolve(KNOWN)
    assert make(("3", "x")).resolve(KNOWN).keys == ("d__0003", "e_:__x")


@pytest.mark.parametrize(
    ("scores", "classes", "message"),
    [
        (np.zeros((1, 3)), ("A", "B"), r"y_score has shape \(1, 3\): expected \(1, 2\)"),
        (np.zeros((1, 2)), ("A", "A"), "expected one or more names, each once"),
        (np.zeros((1, 0)), (), "expected one or more names, each once"),
        ([[0.5, 1.001]], ("A", "B"), "record r, class B is 1.001"),
    ],
)
def test_wrong_tables_are_refused(scores: object, classes: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScoreTable(("r",), np.asarray(scores), classes)
    rounded = ScoreTable(("r",), np.array([[1 + 5e-7, -5e-7]]), ("A", "B"))
    assert rounded.has_scores.tolist() == [True]


EXCLUSIVE = {"train": make_records({"1": ("A",), "2": ("B",)})}
SEVERAL = {"train": make_records({"1": ("A",), "2": ("A", "B")}), "val": make_records({})}
NONE = {"train": make_records({"1": ("A",), "2": ("C",)})}


def test_the_task_is_found_from_the_labels() -> None:
    table = make(("1", "2"))
    assert table.choose_task(EXCLUSIVE, "auto", keep_negative=True) == Task(("A", "B"), True)
    for splits in (SEVERAL, NONE):
        assert table.choose_task(splits, "auto", keep_negative=False) == Task(("A", "B"), False)
    assert table.choose_task(SEVERAL, "single", keep_negative=False).single_label
    assert table.choose_task(EXCLUSIVE, "multi", keep_negative=True).keep_negative
    said = dataclasses.replace(table, single_label=False, has_negative=True)
    assert said.choose_task(EXCLUSIVE, "auto", keep_negative=False) == Task(
        ("A", "B"), False, keep_negative=True
    )


def test_one_class_is_evaluated_against_its_absence() -> None:
    table = make(("1",), ("A",))
    task = table.choose_task(NONE, "auto", keep_negative=False)
    assert not task.single_label and task.keep_negative
    with pytest.raises(ValueError, match="A is its only class: expected two or more"):
        table.choose_task(NONE, "single", keep_negative=False)
    with pytest.raises(ValueError, match="target is 'both': expected one of auto, single, multi"):
        table.choose_task(NONE, "both", keep_negative=False)


TEST = make_records({"1": ("A",), "2": ("A", "B"), "3": (), "4": ("C",)})
MULTI = Task(("A", "B"), False)


def test_records_without_a_class_are_found_if_all_are_predicted() -> None:
    found = find_records(make(("4", "3", "2", "1")), TEST, MULTI, "test", everyone=True)
    assert found.records.keys == ("1", "2", "3", "4") and found.has_negative
    found = find_records(make(("4", "2", "1")), TEST, MULTI, "test", everyone=True)
    assert found.records.keys == ("1", "2") and not found.has_negative
    found = find_records(make(("4", "3", "2", "1")), TEST, MULTI, "test")
    assert found.records.keys == ("1", "2")
    only = find_records(make(("1",)), TEST, Task(("A", "B"), True), "test", everyone=True)
    assert only.records.keys == ("1",)


def test_missing_records_are_refused_or_counted(caplog: pytest.LogCaptureFixture) -> None:
    table = make(("1", "3"))
    with pytest.raises(
        ValueError, match=r"lacks 1 of the 2 records of split test .* such as 2; pr"
    ):
        find_records(table, TEST, MULTI, "test")
    found = find_records(table, TEST, MULTI, "test", allow_missing=True)
    assert (found.records.keys, found.n_missing) == (("1",), 1)
    assert "lacks 1 of the 2 records of split test" in caplog.text
    with pytest.raises(
        ValueError, match=r"holds none of the 2 records .* such as 1, found first: z"
    ):
        find_records(make(("z",)), TEST, MULTI, "test", allow_missing=True)
    blank = ScoreTable(("1", "2"), np.array([[0.5, 0.5], [np.nan, np.nan]]), ("A", "B"))
    with pytest.raises(ValueError, match=r"\(1 of them have a row without probabilities\)"):
        find_records(blank, TEST, MULTI, "test")
    with pytest.raises(ValueError, match=r"none of the 4 records of split test carries one of its"):
        find_records(make(("1",), ("X", "Y")), TEST, Task(("X", "Y"), False), "test")


def test_records_that_are_not_evaluated_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    split_of = {"1": "test", "2": "train", "3": "test"}
    with caplog.at_level(logging.INFO):
        report_others(make(("1", "2", "3", "q")), ["1"], split_of, "test")
    assert "2 of its 4 records are not evaluated: test without a class to evaluate 1, train 1" in (
        caplog.text
    )
    assert "1 of its 4 records are not in the processed folder and not evaluated, such as q" in (
        caplog.text
    )
