"""Decisions of a reader, and the label mapping that they give."""

from __future__ import annotations

from pathlib import Path

import pytest

from src.__main__ import main
from src.labels.decisions import apply_decisions, load_decisions
from src.labels.mapping import load_mapping

HEADER = "dataset,record_id,mapped_label,decision,given,path\n"
MAPPING = (
    "dataset,record_id,mapped_label,patient_id,fold,path\n"
    "d,1,AF;LBBB,p1,3,\nd,2,NORM,p2,4,\nd,3,AF,p3,5,sub/r3_hr\ne,1,NORM,p1,,\n"
)


@pytest.fixture
def mapping(tmp_path: Path) -> Path:
    path = tmp_path / "mapping.csv"
    path.write_text(MAPPING)
    return path


def decide(folder: Path, rows: str) -> Path:
    path = folder / "decisions.csv"
    path.write_text(HEADER + rows)
    return path


def test_records_are_kept_changed_and_dropped(mapping: Path, tmp_path: Path) -> None:
    rows = (
        "d,1,AF;RBBB,change,LBBB;AF,/data/d/1.dat\nd,2,x,keep,NORM,\nd,r3_hr,,DROP,AF,sub/r3_hr.dat"
    )
    decisions = decide(tmp_path, rows)
    out = tmp_path / "new.csv"
    assert apply_decisions(mapping, decisions, out) == {"change": 1, "keep": 1, "drop": 1}
    frame = load_mapping(out)
    columns = ["dataset", "record_id", "mapped_label", "patient_id", "fold"]
    assert frame[columns].to_numpy().tolist() == [
        ["d", "1", "AF;RBBB", "p1", "3"],
        ["d", "2", "NORM", "p2", "4"],
        ["e", "1", "NORM", "p1", ""],
    ]
    assert mapping.read_text() == MAPPING
    # The same decisions change nothing more
    apply_decisions(out, decisions, tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == out.read_bytes()


def test_a_record_without_labels_was_looked_at_for_all(mapping: Path, tmp_path: Path) -> None:
    out = tmp_path / "new.csv"
    apply_decisions(mapping, decide(tmp_path, "d,2,,change,NORM,"), out)
    row = load_mapping(out).iloc[1]
    assert (row["mapped_label"], row["annotated"]) == ("", "AF;LBBB;NORM")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("d,1,AF,perhaps,AF;LBBB,", "row 2, column decision, value 'perhaps'"),
        ("d,1__w00002,AF,change,AF;LBBB,", "is a window of a recording"),
        ("d,1,AF,keep,AF;LBBB,\nd,1,AF,drop,AF;LBBB,", "row 3, '1' is decided in row 2 already"),
        ("d,1,AF,keep,AF;LBBB,a/1\nd,2,AF,drop,NORM,a/1", "row 3, '2' is decided in row 2 already"),
        ("d,9,AF,change,AF,", "record '9' of d has no row of its own"),
        ("x,1,AF,change,AF,", "record '1' of x has no row of its own"),
        ("d,1,AF,change,NORM,", "has the labels 'AF;LBBB' in the label mapping"),
        ("d,1,nan,change,AF;LBBB,", "is no label"),
    ],
)
def test_what_cannot_be_applied_is_refused_and_nothing_written(
    mapping: Path, tmp_path: Path, row: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        apply_decisions(mapping, decide(tmp_path, row), tmp_path / "new.csv")
    assert not (tmp_path / "new.csv").exists()


def test_labels_with_times_stay(tmp_path: Path) -> None:
    mapping = tmp_path / "timed.csv"
    mapping.write_text("dataset,record_id,mapped_label,start_s,end_s\nd,1,AF,0,5\nd,1,NORM,5,9\n")
    with pytest.raises(ValueError, match="has labels with times"):
        apply_decisions(mapping, decide(tmp_path, "d,1,AF,change,AF;NORM,"), tmp_path / "new.csv")


def test_cells_that_a_spreadsheet_would_run_are_read_as_they_were(tmp_path: Path) -> None:
    rows = """"d","'=1","AF;'+x","change","AF",""\n"""
    [decision] = load_decisions(decide(tmp_path, rows))
    assert decision.record_id == "=1" and decision.labels == ("AF", "+x")


def test_the_mapping_is_never_written_over(
    mapping: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    decisions = str(decide(tmp_path, "d,2,AF,change,NORM,"))
    command = ["relabel", "--decisions", decisions, "--mapping", str(mapping), "--out"]
    assert main([*command, str(mapping)]) == 2
    assert "is read by this command" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "new.csv")]) == 0
    assert "change 1" in capsys.readouterr().out
