from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from src.__main__ import main
from src.plots.data import plot_collection_quality
from src.records.sample_collections import SampleData


def manifest(*flags: str, status: str = "ok") -> pd.DataFrame:
    return pd.DataFrame({"dataset": "d", "status": status, "quality_flags": flags})


def texts(frame: pd.DataFrame) -> list[str]:
    figure = plot_collection_quality(frame, "d")
    return [text.get_text() for text in figure.axes[0].texts if text.get_text()]


def test_cells_are_shares_of_records_and_kinds_count_once_per_record() -> None:
    frame = manifest("noise:V1;noise:V2;gain_low", "noise:V1", "", *[""] * 1)
    figure = plot_collection_quality(frame, "d")
    axes = figure.axes[0]
    assert axes.get_title(loc="left") == "d: 4 records read, 2 with a flag (50.0%)"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["noise", "gain_low"]
    assert axes.collections[0].get_array().reshape(2, 13)[:, [6, 7, 12]].tolist() == [
        [0.5, 0.25, 0],
        [0, 0, 0.25],
    ]
    assert texts(frame) == ["50.0", "25.0", "25.0", "2", "1", "records"]


def test_flags_of_the_record_as_a_whole_have_a_column() -> None:
    assert texts(manifest("limb_swap:RA-LA", "unknown_lead:X")) == [
        "50.0",
        "50.0",
        "1",
        "1",
        "records",
    ]
    assert texts(manifest("", "")) == ["no flags"]


def test_records_that_were_not_read_do_not_count() -> None:
    frame = pd.concat(
        [manifest("", status="unreadable"), manifest("clipped:I", status="rejected")],
        ignore_index=True,
    )
    assert texts(frame) == ["100.0", "1", "records"]
    with pytest.raises(ValueError, match="no record of 'e' was read: the manifest has d"):
        plot_collection_quality(frame, "e")


def test_preprocess_leaves_a_page_per_collection(sample: SampleData, tmp_path: Path) -> None:
    data = [word for name, root in sample.data.items() for word in ("--data", f"{name}={root}")]
    out = [
        "--out",
        str(tmp_path / "p"),
        "--figures",
        str(tmp_path / "figures"),
        "--figure-format",
        "svg",
    ]
    assert (
        main(
            [
                "--quiet",
                "preprocess",
                *data,
                *out,
                "--fs",
                "100",
                "--n-samples",
                "1000",
                "--workers",
                "1",
            ]
        )
        == 0
    )
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        f"quality_{name}.svg" for name in sample.data
    }
