from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import pytest

from src.labels.collections.annotation import RecordLabels
from src.labels.collections.rows import (
    CodeReport,
    LabelOptions,
    Row,
    age_text,
    build_frame,
    find_table,
    index_stems,
    list_files,
    settle_sexes,
    sex_text,
)
from src.labels.ids import id_text


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_table_is_found_in_the_root_above_and_right_below(tmp_path: Path) -> None:
    root = tmp_path / "a" / "b"
    touch(tmp_path / "up.csv", root / "here.csv", root / "sub" / "down.csv")
    assert find_table(root, "up.csv") == tmp_path / "up.csv"
    assert find_table(root, "down.csv", "here.csv") == root / "sub" / "down.csv"
    with pytest.raises(ValueError, match=r"no x\.csv or y\.csv here"):
        find_table(root, "x.csv", "y.csv")


def test_files_are_listed_in_order_without_hidden_ones_and_loops(tmp_path: Path) -> None:
    touch(tmp_path / "b.HEA", tmp_path / "a.hea", tmp_path / ".c.hea", tmp_path / "s" / "a.hea")
    (tmp_path / "s" / "loop").symlink_to(tmp_path)
    assert list_files(tmp_path, (".hea",)) == ["a.hea", "b.HEA", "s/a.hea"]
    assert index_stems(tmp_path, (".hea",)) == {"a": "a", "b": "b"}


def test_cells() -> None:
    assert [age_text(value) for value in ("63.0", 300, None)] == ["63", "", ""]
    assert [sex_text(value) for value in ("female", "Male", "x")] == ["F", "M", ""]
    assert [id_text(value) for value in ("12.0", "12", "1.5", "x.0", "")] == [
        "12",
        "12",
        "1.5",
        "x.0",
        "",
    ]


def test_rows_without_labels_are_skipped_and_other_is_annotated_in_all() -> None:
    rows = [
        Row("r1", ("AF",), ("AF", "NSR")),
        Row("r2", ("OTHER",), ("AF", "NSR", "OTHER")),
        Row("r3", ("AF",)),
        Row("r4", ()),
    ]
    frame = build_frame("d", rows)
    assert frame["record_id"].tolist() == ["r1", "r2", "r3"]
    assert frame["annotated"].tolist() == ["AF;NSR;OTHER", "AF;NSR;OTHER", ""]
    with pytest.raises(ValueError, match="dataset d: no record has a label"):
        build_frame("d", [Row("r4", ())])


def test_a_sex_that_changes_within_a_patient_is_left_empty() -> None:
    rows = [
        Row("r1", ("A",), patient_id="p", sex="F"),
        Row("r2", ("A",), patient_id="p", sex="M"),
        Row("r3", ("A",), patient_id="q", sex="M"),
        Row("r4", ("A",), sex="F"),
        Row("r5", ("A",), sex="M"),
    ]
    assert [row.sex for row in settle_sexes("d", rows)] == ["", "", "M", "F", "M"]


def test_codes_are_counted_once_per_record(caplog: pytest.LogCaptureFixture) -> None:
    report = CodeReport("d", "snomed", "set")
    report.add(RecordLabels((), (), unknown=Counter({"1": 3}), outside=Counter({"164889003": 2})))
    report.add(RecordLabels((), (), unknown=Counter({"1": 1})))
    with caplog.at_level(logging.INFO):
        report.log()
    assert "unknown snomed codes, with their number of records: 1 2" in caplog.text
    assert "164889003 (AF) 1" in caplog.text


@pytest.mark.parametrize(
    "wrong", [{"min_likelihood": 101.0}, {"unvalidated_weight": -0.1}, {"separator": ""}]
)
def test_options_are_checked(wrong: dict[str, float | str]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LabelOptions(**wrong)  # type: ignore[arg-type]
