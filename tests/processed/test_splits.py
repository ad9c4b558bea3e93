from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from src.processed.splits import SplitItem, Splits, load_splits, make_splits, save_splits
from src.utils import save_json

FRACTIONS = {"train": 0.8, "val": 0.1, "test": 0.1}


def items(
    n: int, labels: str = "ABC", patients: int = 0, dataset: str = "d", start: int = 0
) -> list[SplitItem]:
    return [
        SplitItem(
            f"{dataset}__{i}",
            (labels[i % len(labels)],),
            dataset,
            f"p{i % patients}" if patients else None,
        )
        for i in range(start, start + n)
    ]


def counts(splits: Splits, source: list[SplitItem]) -> dict[str, Counter[str]]:
    by_key = {item.key: item for item in source}
    return {
        name: Counter(label for key in getattr(splits, name) for label in by_key[key].labels)
        for name in FRACTIONS
    }


def test_classes_keep_their_shares() -> None:
    source = items(1000, "AAAAAAABBC")
    splits = make_splits(source, fractions=FRACTIONS)
    got = counts(splits, source)
    for label, total in {"A": 700, "B": 200, "C": 100}.items():
        assert got["val"][label] == pytest.approx(total * 0.1, abs=1)
        assert got["test"][label] == pytest.approx(total * 0.1, abs=1)


def test_several_labels_keep_their_shares_too() -> None:
    rng = np.random.default_rng(0)
    source = [
        SplitItem(
            str(i), tuple(c for c in "ABCDE" if rng.random() < 0.2), "d", f"p{rng.integers(400)}"
        )
        for i in range(1200)
    ]
    got = counts(make_splits(source, fractions=FRACTIONS), source)
    totals = sum(got.values(), Counter())
    for label, total in totals.items():
        assert got["val"][label] == pytest.approx(0.1 * total, rel=0.3)


def test_no_patient_is_in_two_splits_and_datasets_do_not_share_patients() -> None:
    source = items(300, patients=60) + items(300, patients=60, dataset="e")
    where = make_splits(source, fractions=FRACTIONS).of_key()
    homes: dict[str, set[str]] = {}
    for item in source:
        homes.setdefault(f"{item.dataset}{item.patient_id}", set()).add(where[item.key])
    assert all(len(splits) == 1 for splits in homes.values())
    assert any(homes[f"dp{i}"] != homes[f"ep{i}"] for i in range(60))


def test_the_seed_decides_and_the_order_of_records_does_not() -> None:
    source = items(100)
    splits = make_splits(source, fractions=FRACTIONS, seed=1)
    assert make_splits(source[::-1], fractions=FRACTIONS, seed=1) == splits
    assert make_splits(source, fractions=FRACTIONS, seed=2).test != splits.test


def test_later_records_never_move_earlier_ones() -> None:
    early, late = items(100, patients=30), items(400, "ABCD", patients=80, start=100)
    before = make_splits(early, fractions=FRACTIONS).of_key()
    after = make_splits(early + late, fractions=FRACTIONS, previous=before)
    where = after.of_key()
    assert {key: where[key] for key in before} == before
    assert len(after.test) == pytest.approx(50, abs=10)
    patient = {item.patient_id: where[item.key] for item in early}
    assert all(
        where[item.key] == patient[item.patient_id] for item in late if item.patient_id in patient
    )


def test_folds_are_followed_and_an_empty_split_is_legal() -> None:
    source = [SplitItem(str(i), ("A",), "d", f"p{i}", fold=i % 9 + 1) for i in range(90)]
    splits = make_splits(source, fractions=FRACTIONS)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (80, 10, 0)
    assert splits.rule["method"] == "folds"


def test_records_without_a_fold_are_stratified_beside_those_with_one() -> None:
    source = [SplitItem(f"f{i}", ("A",), "f", None, fold=i % 10 + 1) for i in range(100)] + items(
        100
    )
    splits = make_splits(source, fractions=FRACTIONS)
    assert {len([k for k in getattr(splits, s) if k.startswith("f")]) for s in ("val", "test")} == {
        10
    }
    assert len(splits.val) == pytest.approx(20, abs=2)


def test_folds_that_tear_a_patient_apart_fail_with_the_list() -> None:
    source = [SplitItem("a", ("A",), "d", "p7", fold=1), SplitItem("b", ("A",), "d", "p7", fold=9)]
    with pytest.raises(
        ValueError, match="1 patients in two splits: d patient p7; give each patient one fold"
    ):
        make_splits(source, fractions=FRACTIONS)


def test_rare_classes_are_reported_and_ten_records_fill_every_split(
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = items(10, "ABCDEFGHIJ")
    splits = make_splits(source, fractions=FRACTIONS)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (8, 1, 1)
    assert "too rare to be in more than one split: A (1)" in caplog.text


def test_a_class_of_three_is_in_every_split() -> None:
    source = items(60, "A") + items(3, "Z", start=60)
    got = counts(make_splits(source, fractions=FRACTIONS), source)
    assert [got[name]["Z"] for name in FRACTIONS] == [1, 1, 1]


def test_splits_survive_the_disk(tmp_path: Path) -> None:
    splits = make_splits(items(20), fractions=FRACTIONS, seed=3)
    save_splits(splits, tmp_path / "splits.json")
    assert load_splits(tmp_path / "splits.json") == splits
    (tmp_path / "splits.json").write_text('{"train": 1}')
    with pytest.raises(ValueError, match=r"splits\.json: not a splits file"):
        load_splits(tmp_path / "splits.json")


def test_a_class_is_spread_even_where_its_dataset_is_as_rare() -> None:
    items = [SplitItem(f"d__{i}", ("LAST",) if i < 20 else ("A",), "d") for i in range(40)]
    made = make_splits(
        items,
        fractions={"train": 0.8, "val": 0.1, "test": 0.1},
        seed=0,
        val_folds=(9,),
        test_folds=(10,),
    )
    assert (
        sum(int(key[3:]) < 20 for key in made.val) == 2
        and sum(int(key[3:]) < 20 for key in made.test) == 2
    )


def test_a_class_of_few_patients_with_several_records_each_is_in_every_split() -> None:
    source = items(40, "A") + [
        SplitItem(f"d__z{i}", ("Z",), "d", patient_id=f"p{i // 2}") for i in range(8)
    ]
    got = counts(make_splits(source, fractions=FRACTIONS), source)
    assert [got[name]["Z"] for name in FRACTIONS] == [4, 2, 2]


def test_a_copy_that_was_taken_out_still_holds_its_patient_together() -> None:
    """The copy that stays may say nothing of the patient, as those of PTB-XL in Challenge 2021
    do.
    """
    kept = [SplitItem(f"c{i}", ("A",), "challenge", recording=f"r{i}") for i in range(200)]
    copies = [
        SplitItem(f"p{i}", ("A",), "ptbxl", f"patient{i // 2}", recording=f"r{i}")
        for i in range(200)
    ]
    where = make_splits(kept, fractions=FRACTIONS, taken_out=copies).of_key()
    assert set(where) == {item.key for item in kept}
    assert all(where[f"c{i}"] == where[f"c{i + 1}"] for i in range(0, 200, 2))


def test_a_patient_learned_from_copies_taken_out_moves_records_to_train(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Only kept copies of one recording that lie in two splits end the run: those taken out are in
    none.
    """
    kept = [SplitItem(f"c{i}", ("A",), "challenge", recording=f"r{i}") for i in range(4)]
    copies = [SplitItem(f"p{i}", ("A",), "ptbxl", "one", recording=f"r{i}") for i in range(2)]
    places = {"c0": "test", "c1": "train", "c2": "test", "c3": "val"}
    where = make_splits(kept, fractions=FRACTIONS, previous=places, taken_out=copies).of_key()
    assert where == places | {"c0": "train"} and "all go to train now" in caplog.text


def test_spellings_of_one_patient_are_one_patient() -> None:
    ids = ["3", "3.0", "0003", " 3", "\u200b3", "Zo\u00eb", "Zoe\u0308"]
    source = [
        SplitItem(f"d__{i}", ("A",), "d", patient_id=ids[i % 7] if i < 14 else f"p{i}")
        for i in range(60)
    ]
    where = make_splits(source, fractions=FRACTIONS).of_key()
    assert len({where[f"d__{i}"] for i in range(14) if i % 7 < 5}) == 1
    assert len({where[f"d__{i}"] for i in range(14) if i % 7 >= 5}) == 1


def test_words_for_nobody_are_not_one_patient() -> None:
    source = [SplitItem(f"d__{i}", ("A",), "d", patient_id="unknown") for i in range(30)]
    splits = make_splits(source, fractions=FRACTIONS)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (24, 3, 3)
    # The windows of a record that is called so stay together.
    windows = [SplitItem(f"d__nan__w{i:05d}", ("A",), "d", patient_id="nan") for i in range(30)]
    assert len(make_splits(windows, fractions=FRACTIONS).train) == 30


def test_a_label_with_enough_records_is_in_every_split_of_a_tiny_set() -> None:
    sets = ["A", "B", "AB", "C", "AC", "BC", "ABC", "D", "AD", "BD", "ABD", "CD"]
    source = [SplitItem(f"d__{i:02d}", tuple(names), "d") for i, names in enumerate(sets)]
    for seed in range(20):
        fractions = {"train": 0.6, "val": 0.2, "test": 0.2}
        got = counts(make_splits(source, fractions=fractions, seed=seed), source)
        assert all(set(got[name]) == set("ABCD") for name in FRACTIONS)


def test_records_placed_without_labels_are_placed_by_their_labels(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bare = [SplitItem(f"d__{i}", (), "d") for i in range(100)]
    first = make_splits(bare, fractions=FRACTIONS).of_key()
    rare = sorted(key for key, split in first.items() if split == "train")[:10]
    labelled = [
        SplitItem(item.key, ("AF",) if item.key in rare else ("NSR",), "d") for item in bare[:90]
    ]
    source = labelled + bare[90:]
    bound = make_splits(source, fractions=FRACTIONS, previous=first)
    assert set(counts(bound, source)["test"]) == {"NSR"}
    assert "kept from an earlier run" in caplog.text and "--restratify" in caplog.text
    assert "AF (10) not in val and test" in caplog.text and "too rare" not in caplog.text
    splits = make_splits(source, fractions=FRACTIONS, previous=first, provisional=set(first))
    got = counts(splits, source)
    assert got["val"]["AF"] == got["test"]["AF"] == 1
    # Records without a label stay where they are.
    assert all(splits.of_key()[item.key] == first[item.key] for item in bare[90:])
    assert "90 records were placed by an earlier run without labels" in caplog.text


def test_many_labels_take_time_in_proportion() -> None:
    source = [SplitItem(f"d__{i}", (f"label {i}",), "d") for i in range(8000)]
    began = time.process_time()
    make_splits(source, fractions=FRACTIONS)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": "d__a"}, "train is 'd__a': expected a list of record keys"),
        ({"val": [1]}, r"val is \[1\]"),
        ({"test": None}, "test is missing"),
        ({"test": ["d__a"]}, "d__a is in train and in test"),
        ({"seed": "x"}, "seed is 'x': expected a whole number"),
        ({"rule": []}, r"rule is \[\]: expected an object"),
    ],
)
def test_a_wrong_field_of_a_splits_file_is_named(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    values = {"train": ["d__a"], "val": [], "test": ["d__b"], "seed": 0, "rule": {}}
    save_json({**values, **change}, tmp_path / "splits.json")
    with pytest.raises(ValueError, match=f"splits.json: .*{message}"):
        load_splits(tmp_path / "splits.json")
