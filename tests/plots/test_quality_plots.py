"""The quality page of a manifest and of a collection, by their texts and marksm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from src.__main__ import main
from src.plots.quality import plot_collection_quality, plot_quality_summary
from src.records.sample_collections import SampleData

MANIFEST = pd.DataFrame(
    [
        ("ptbxl", "ok", "", "flat:V1;flat:V2;short", "500.0"),
        ("ptbxl", "ok", "", "short", 500),
        ("georgia", "ok", "", None, 250.0),
        ("georgia", "unreadable", "E00001.mat: 30 bytes, header promises 120", "", np.nan),
        ("georgia", "unreadable", "deep/E00002.mat: 7 bytes, header promises 480", "", ""),
        ("georgia", "odd", "0.5 s are missing (leads V1)", "", 250),
    ],
    columns=["dataset", "status", "reason", "quality_flags", "fs"],
)


def _draw(figure: Figure) -> Figure:
    figure.draw_without_rendering()
    return figure


def _texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def _bars(figure: Figure, title: str) -> dict[str, float]:
    axes = next(axes for axes in figure.axes if axes.get_title(loc="left") == title)
    names = [label.get_text() for label in axes.get_yticklabels()]
    return dict(zip(names, [bar.get_width() for bar in axes.patches], strict=True))


@pytest.mark.parametrize("flags", ["quality_flags", "flags"])
def test_quality_page_counts_status_flags_rates_and_reasons(flags: str) -> None:
    figure = _draw(plot_quality_summary(MANIFEST.rename(columns={"quality_flags": flags})))
    assert _bars(figure, "Quality flags") == {"short": 2, "flat": 1}
    assert _bars(figure, "Sampling rates") == {"500 Hz": 2, "250 Hz": 2}
    assert _bars(figure, "Reasons for records left out") == {
        "(file): # bytes, header promises #": 2,
        "# s are missing": 1,
    }
    legend = next(axes.get_legend() for axes in figure.axes if axes.get_legend())
    assert [text.get_text() for text in legend.get_texts()] == [
        "ok (3)",
        "unreadable (2)",
        "odd (1)",
    ]
    assert all(axes.get_xlabel() == "Records" for axes in figure.axes)


def test_quality_page_adds_up_what_it_cannot_show() -> None:
    rates = [100 + i for i in range(9) for _ in range(10 - i)]
    page = plot_quality_summary(
        pd.DataFrame({"dataset": "a", "status": "ok", "reason": "", "flags": "", "fs": rates})
    )
    shown = _bars(_draw(page), "Sampling rates")
    assert list(shown)[-1] == "4 others"
    assert sum(shown.values()) == len(rates)


def test_quality_page_of_nothing_says_so() -> None:
    figure = _draw(plot_quality_summary(MANIFEST[:0]))
    assert _texts(figure) == ["no records", "no flags", "no rate known"]


def test_quality_page_is_shorter_where_no_record_is_left_out() -> None:
    complete = plot_quality_summary(MANIFEST[MANIFEST["status"] == "ok"].assign(reason=""))
    assert complete.get_figheight() < plot_quality_summary(MANIFEST).get_figheight()


def test_quality_page_names_a_missing_column() -> None:
    with pytest.raises(ValueError, match="no column status, fs"):
        plot_quality_summary(MANIFEST.drop(columns=["status", "fs"]))


# One collection -----------------------------------------------------------------------------------


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


def test_all_collections_have_the_same_colours() -> None:
    few = plot_collection_quality(manifest("flat:I", *[""] * 99), "d").axes[0].collections[0]
    many = plot_collection_quality(manifest("flat:I", "flat:I"), "d").axes[0].collections[0]
    assert few.get_clim() == many.get_clim() == (0, 1)
    assert few.norm(0.01) == many.norm(0.01) == pytest.approx(0.1)  # 1 % can be seen


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
