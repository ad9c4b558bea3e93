from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from src.config import DataConfig, SplitConfig
from src.processed.manifest import MANIFEST_COLUMNS, Journal, ManifestRow, save_manifest
from src.processed.runs import resume
from src.processed.runs.plan import RunPlan
from src.processed.runs.resume import (
    PlacedRecords,
    load_placed_records,
    load_previous_splits,
    merge_manifest,
)
from src.processed.runs.tasks import RecordTask
from src.processed.splits import Splits, save_splits, split_fractions


def test_rewritten_rows_are_the_ok_rows_of_a_record_and_of_its_windows() -> None:
    rows = pd.DataFrame(
        [
            ("d", "a", "ok"),
            ("d", "a__w00000", "ok"),
            ("d", "a__w00001", "rejected"),
            ("d", "a__w00002", "ok"),
            ("d", "b", "ok"),
            ("e", "a", "ok"),
        ],
        columns=["dataset", "record_id", "status"],
    )
    # a__w00002 is the name of a planned record here, not a window of a.
    mask = resume._find_rewritten(rows, redone={("d", "a")}, planned={("d", "a__w00002")})
    assert mask.tolist() == [True, True, False, False, False, False]


def test_splits_of_an_earlier_run_are_kept_under_the_same_settings(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, config = tmp_path / "splits.json", SplitConfig(seed=3)
    assert load_previous_splits(path, config) == {}
    rule = {
        "fractions": split_fractions(config),
        "val_folds": list(config.val_folds),
        "test_folds": list(config.test_folds),
    }
    save_splits(Splits(("d__a",), ("d__b",), (), 3, rule), path)
    assert load_previous_splits(path, config) == {"d__a": "train", "d__b": "val"}
    assert load_previous_splits(path, SplitConfig(seed=4)) == {}
    assert "made with other split settings, so all records are split again" in caplog.text


def test_restratify_keeps_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "splits.json"
    rule = {"fractions": split_fractions(SplitConfig()), "val_folds": [9], "test_folds": [10]}
    save_splits(Splits(("d__a",), ("d__b",), (), 0, rule), path)
    assert load_previous_splits(path, SplitConfig()) == {"d__a": "train", "d__b": "val"}
    assert load_previous_splits(path, SplitConfig(restratify=True)) == {}
    assert "as --restratify asks" in caplog.text


def save_placed(folder: Path, rows: list[dict[str, str]]) -> None:
    """Save a manifest of records of dataset d, and splits in which all of them train."""
    blank = dict.fromkeys(MANIFEST_COLUMNS, "")
    frame = pd.DataFrame([{**blank, "dataset": "d", "status": "ok", **row} for row in rows])
    save_manifest(frame, folder)
    rule = {"fractions": split_fractions(SplitConfig()), "val_folds": [9], "test_folds": [10]}
    keys = tuple(f"d__{row['record_id']}" for row in rows)
    save_splits(Splits(keys, (), (), 0, rule), folder / "splits.json")


def test_records_without_labels_are_provisional(tmp_path: Path) -> None:
    assert load_placed_records(tmp_path, SplitConfig()) == PlacedRecords({}, frozenset())
    rows = [
        {"record_id": "a", "label_source": "fallback", "split": "train"},
        {"record_id": "b", "label_source": "mapping", "split": "val"},
    ]
    save_placed(tmp_path, rows)
    placed = load_placed_records(tmp_path, SplitConfig())
    assert placed.splits == {"d__a": "train", "d__b": "train"}
    assert placed.provisional == {"d__a"}
    # A journal is left of a run that ended before it wrote the splits, after the manifest.
    Journal(tmp_path).append([ManifestRow("d", "b")])
    assert load_placed_records(tmp_path, SplitConfig()).splits == {"d__a": "train", "d__b": "val"}


def test_rows_without_a_file_never_vanish(tmp_path: Path) -> None:
    def ok(record_id: str, digest: str) -> ManifestRow:
        return ManifestRow("d", record_id, status="ok", input_hash=digest)

    def missing(record_id: str) -> ManifestRow:
        return ManifestRow("d", record_id, status="missing", input_hash=f"of {record_id}")

    names = ["a", "a__w00001", "a__w00002", "a__w00009", "b", "b__w00001"]
    plan = RunPlan((RecordTask("d", "a", "a.hea"),), tuple(map(missing, names)))
    journal = Journal(tmp_path)
    journal.append([ok("a__w00000", "h"), ok("a__w00001", "h"), ok("a__w00000", "old")])
    journal.append([ok("a__w00000", "h")])
    for _ in range(2):
        merged = merge_manifest(tmp_path, plan, DataConfig({"d": "."}), journal, windows=True)
        assert dict(merged["status"].value_counts()) == {"missing": 6, "ok": 2}
        ids = set(merged.loc[merged["status"] == "missing", "record_id"])
        assert len(ids) == 6 and len(ids & set(names)) == 5
        save_manifest(merged, tmp_path)
