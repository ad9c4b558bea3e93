from __future__ import annotations

from pathlib import Path

import pytest

from src.labels.beats import load_beats
from src.labels.mapping import MappingError

HEADER = "dataset,record_id,mapped_label,start_s,end_s\n"


def write_table(folder: Path, rows: str) -> Path:
    (folder / "beats.csv").write_text(HEADER + rows)
    return folder / "beats.csv"


def test_beats_of_records_may_take_turns(tmp_path: Path) -> None:
    table = load_beats(write_table(tmp_path, "d,a,N,0.5,0.5\nd,b,N,0.1,0.1\nd,a,V,1,1.0\n"))
    assert table["mapped_label"].tolist() == ["N", "N", "V"]


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (
            "d,a,N,1,1\nd,a,V,0.5,0.5\n",
            r"beats\.csv: .*row 3, column start_s, value '0.5': record 'a' has a beat at 1 s in "
            "row 2: expected the beats of a record in order of time",
        ),
        ("d,a,N,1,1\nd,a,V,1.0,1.0\n", "row 3, .* has a beat at 1 s in row 2: .*, each once"),
        ("d,a,N,1,1\nd,a,AFIB,2,5\n", "row 3, column end_s, value '5': .*expected the same time"),
        ("d,a,N,,\n", "row 2, column start_s, value '': expected the time of a beat"),
    ],
)
def test_a_row_that_is_no_beat_in_its_turn_is_named(
    rows: str, problem: str, tmp_path: Path
) -> None:
    with pytest.raises(MappingError, match=problem):
        load_beats(write_table(tmp_path, rows))
