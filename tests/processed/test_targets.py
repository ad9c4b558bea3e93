from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from src.config import TrainConfig
from src.processed.manifest import load_manifest, save_manifest
from src.processed.targets import (
    LabelledRecords,
    Task,
    choose_records,
    choose_task,
    encode_targets,
    find_classes,
    is_single_label,
    load_records,
    report_known_patients,
    report_untrained_classes,
)


def records(*labels: tuple[str, ...], annotated: tuple[str, ...] = ()) -> LabelledRecords:
    n = len(labels)
    keys = tuple(f"d__{i}" for i in range(n))
    return LabelledRecords(
        Path("p"), keys, labels, (annotated,) * n, keys, ("d",) * n, ("",) * n, (1.0,) * n
    )


def test_records_come_from_the_manifest(processed: Path) -> None:
    splits = load_records(processed)
    manifest = load_manifest(processed)
    ok = manifest[(manifest["status"] == "ok") & (manifest["label_source"] != "fallback")]
    for name, split in splits.items():
        rows = ok[ok["split"] == name]
        assert list(split.signal_hashes) == rows["signal_hash"].tolist()
        assert [";".join(labels) for labels in split.labels] == rows["labels"].tolist()
        assert all(path.is_file() for path in split.paths)
    assert set(splits) == {"train", "val", "test"}


def test_a_subset_keeps_the_fields_in_parallel() -> None:
    chosen = records(("A",), ("B",), ("C",)).subset([2, 0])
    assert chosen.keys == ("d__2", "d__0") and chosen.labels == (("C",), ("A",))
    assert chosen.patients == chosen.keys and chosen.weights == (1.0, 1.0)


def test_records_of_an_interrupted_run_are_not_trained_on(processed: Path, tmp_path: Path) -> None:
    from src.processed.manifest import INTERRUPTED

    manifest = load_manifest(processed)
    manifest.loc[0, "reason"] = INTERRUPTED
    save_manifest(manifest, tmp_path)
    with pytest.raises(ValueError, match="1 records were being rewritten when preprocessing"):
        load_records(tmp_path)


def test_targets_mark_what_a_source_did_not_look_for() -> None:
    targets = encode_targets(records(("A",), (), annotated=("A", "B")), ("A", "B", "C"))
    np.testing.assert_array_equal(targets, [[1, 0, np.nan], [0, 0, np.nan]])
    np.testing.assert_array_equal(encode_targets(records(("A", "Z")), ("A", "B")), [[1, 0]])


def test_classes_are_sorted_with_the_fallback_last() -> None:
    assert find_classes(records(("OTHER",), ("Z", "A"))) == ("A", "Z", "OTHER")


def test_records_for_one_label_and_for_several() -> None:
    source = records(("A",), ("A", "B"), (), ("Z",), ("A", "Z"))
    assert choose_records(source, Task(("A", "B"), single_label=True)).keys == ("d__0", "d__4")
    assert choose_records(source, Task(("A", "B"), single_label=False)).keys == (
        "d__0",
        "d__1",
        "d__4",
    )


def test_records_without_a_class_stay_if_negatives_are_kept() -> None:
    source = records(("A",), ("A", "B"), (), ("Z",))
    task = Task(("A", "B"), single_label=False, keep_negative=True)
    assert choose_records(source, task) == source


def test_single_label_means_exactly_one_for_every_record() -> None:
    assert is_single_label(records(("A",), ("B",)))
    assert not is_single_label(records(("A",), ("A", "B")))
    assert not is_single_label(records(("A",), ()))


def test_the_task_comes_from_the_records_where_the_settings_leave_it_open() -> None:
    assert choose_task(records(("B",), ("A",)), TrainConfig()) == Task(("A", "B"), True)
    assert choose_task(records(("B",), ("A", "B")), TrainConfig()) == Task(("A", "B"), False)
    settings = TrainConfig(target="single", keep_negative=True)
    assert choose_task(records(("B",), ("A", "B")), settings) == Task(("A", "B"), True)


def test_auxiliary_classes_are_the_labels_beside_the_classes() -> None:
    settings = TrainConfig(classes=("C", "A"), auxiliary_weight=0.5)
    task = choose_task(records(("A",), ("B",), ("C", "OTHER")), settings)
    assert task == Task(("C", "A"), False, auxiliary=("B", "OTHER"))
    assert task.outputs == ("C", "A", "B", "OTHER")


def test_classes_without_a_training_record_are_named() -> None:
    with pytest.raises(ValueError, match="classes Y, Z have no training record: there are A, B"):
        choose_task(records(("A",), ("B",)), TrainConfig(classes=("A", "Y", "Z")))


def test_one_class_needs_records_without_it(processed: Path) -> None:
    train = load_records(processed)["train"]
    one = TrainConfig(classes=("AF",), target="multi")
    with pytest.raises(ValueError, match="keep-negative"):
        choose_task(train, one)
    assert choose_task(train, dataclasses.replace(one, keep_negative=True)) == Task(
        ("AF",), single_label=False, keep_negative=True
    )


@pytest.mark.parametrize("cell", ["much", "nan", "-1", "inf"])
def test_a_weight_that_is_none_is_refused_with_its_file(
    processed: Path, tmp_path: Path, cell: str
) -> None:
    save_manifest(load_manifest(processed).assign(weight=cell), tmp_path)
    with pytest.raises(
        ValueError, match=rf"manifest\.csv: row 2, column weight, value '{cell}': expected a number"
    ):
        load_records(tmp_path)


def test_a_target_that_few_records_decide_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    several = records(*[("A",)] * 197, *[("A", "B")] * 3)
    assert not choose_task(several, TrainConfig()).single_label
    [message] = [entry.getMessage() for entry in caplog.records]
    assert "because 3 of 200 training records carry several labels" in message
    assert "--target single leaves them out" in message
    caplog.clear()
    choose_task(records(("A",), ("A", "B")), TrainConfig())
    assert not caplog.records or caplog.records[0].levelname == "INFO"


def test_records_left_out_are_counted_by_dataset_and_split(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    choose_records(records(("A",), ("A", "B"), ()), Task(("A", "B"), single_label=True), "val")
    assert "exactly one of the classes (d val 2)" in caplog.text


def test_classes_without_a_training_record_in_other_splits_are_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    report_untrained_classes({"train": records(("A",)), "val": records(("B",), ("A", "B"))})
    assert "val has labels that no training record carries, so they are not trained: B (2)" in (
        caplog.text
    )


def test_unknown_patients_and_a_single_one_are_named(caplog: pytest.LogCaptureFixture) -> None:
    report_known_patients({"train": records(("A",), ("B",)), "val": records()})
    assert "no patient is known of d" in caplog.text
    caplog.clear()
    one = dataclasses.replace(records(("A",), ("B",)), patients=("d/p1", "d/p1"))
    report_known_patients({"train": one})
    assert "all 2 records of d are of one patient, 'p1'" in caplog.text
    caplog.clear()
    two = dataclasses.replace(one, patients=("d/p1", "d/p2"))
    report_known_patients({"train": two})
    assert not caplog.records
