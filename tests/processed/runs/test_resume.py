from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from src.config import SplitConfig
from src.processed.runs import resume
from src.processed.runs.resume import load_previous_splits
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
