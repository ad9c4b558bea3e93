from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from settings import QUICK

from src.commands.leave_one_out import (
    build_fold,
    format_leave_one_out,
    leave_out,
    run_leave_one_out,
)
from src.learning.checkpoints import load_checkpoint
from src.processed.targets import load_records
from src.utils import load_json


def test_each_record_is_on_one_side(processed: Path) -> None:
    splits = load_records(processed)
    for name in sorted(set(splits["train"].datasets)):
        fold = leave_out(splits, name)
        everything = [
            key
            for records in splits.values()
            for key in records.keys
            if key.startswith(f"{name}__")
        ]
        assert sorted(fold["test"].keys) == sorted(everything)
        for split in ("train", "val"):
            assert name not in fold[split].datasets and set(fold[split].keys) < set(
                splits[split].keys
            )


def test_recordings_that_two_datasets_share_do_not_train(processed: Path) -> None:
    splits = load_records(processed)
    first, *_, last = splits["train"].datasets
    assert first != last
    twin, double = (
        "1218b" + 64 * "a",
        "1218b" + "e" + 63 * "a",
    )  # fingerprints that differ in one bit
    hashes = (twin, *splits["train"].signal_hashes[1:-1], double)
    twins = {**splits, "train": replace(splits["train"], signal_hashes=hashes)}
    kept, all_others = leave_out(twins, first)["train"], leave_out(splits, first)["train"]
    assert set(all_others.keys) - set(kept.keys) == {splits["train"].keys[-1]}


def test_a_fold_is_shown_as_training_shows_it(processed: Path) -> None:
    config = replace(QUICK, train=replace(QUICK.train, crop_s=4.0))
    splits = load_records(processed)
    fold = build_fold(config, leave_out(splits, splits["train"].datasets[0]))
    assert next(iter(fold.train)).signal.shape[1:] == (12, 400)
    assert fold.test is not None and next(iter(fold.test)).signal.shape[1:] == (12, 1000)
    np.testing.assert_array_equal(
        next(iter(fold.test)).target, fold.targets["test"][: config.loader.batch_size]
    )


def test_a_run_leaves_tables_and_a_model_that_never_saw_the_dataset(
    processed: Path, tmp_path: Path
) -> None:
    config = replace(QUICK, train=replace(QUICK.train, epochs=1))
    before = (processed / "splits.json").read_bytes()
    name = load_records(processed)["train"].datasets[0]
    (row,) = run_leave_one_out(config, processed, tmp_path, datasets=[name], intervals=10)
    assert load_json(tmp_path / "leave_one_out.json")[0]["left_out"] == row["left_out"] == name
    metrics = load_json(tmp_path / f"without_{name}" / "metrics_left_out.json")
    assert (
        list(metrics["subgroups"]["dataset"]) == [name]
        and metrics["f1_macro"] == row["left_out_metrics"]["f1_macro"]
    )
    assert metrics["intervals"]["n_resamples"] == 10
    assert (
        name
        not in load_json(tmp_path / f"without_{name}" / "metrics_seen.json")["subgroups"]["dataset"]
    )
    splits = load_records(processed)
    left_out = {
        h
        for r in splits.values()
        for h, d in zip(r.signal_hashes, r.datasets, strict=True)
        if d == name
    }
    hashes = load_checkpoint(tmp_path / f"without_{name}" / "models" / "best.pth").card.train_hashes
    assert len(hashes) == row["n_train"] and not left_out & set(hashes)
    assert (processed / "splits.json").read_bytes() == before
    assert format_leave_one_out([row]).count(name) == 2


def test_unknown_and_single_datasets_are_one_clear_error(processed: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no records of elsewhere: there are synthetic_"):
        run_leave_one_out(QUICK, processed, tmp_path, datasets=["elsewhere"])
