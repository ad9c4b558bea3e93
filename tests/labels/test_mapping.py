from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from src.labels.mapping import (
    MappingError,
    iter_rows,
    load_mapping,
    save_mapping,
    update_mapping,
)

HEADER = "dataset,record_id,mapped_label"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_rows_with_all_columns(tmp_path: Path) -> None:
    path = write(
        tmp_path / "m.csv",
        f"{HEADER},patient_id,fold,age,sex,annotated,note\n"
        "a,r1,AF;LBBB,p1,3,71,F,AF;LBBB;PVC,x\n"
        "a,r2, AF ,,,,,,\n",
    )
    first, second = iter_rows(load_mapping(path))
    assert first.labels == ("AF", "LBBB") and first.annotated == ("AF", "LBBB", "PVC")
    assert (first.patient_id, first.fold, first.age, first.sex) == ("p1", 3, 71.0, "female")
    assert (
        second.labels == ("AF",) and second.fold is None and second.age is None and second.sex == ""
    )


def test_a_byte_order_mark_and_crlf_are_understood(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(b"\xef\xbb\xbf" + f"{HEADER}\r\na,r1,AF\r\n".encode())
    assert len(load_mapping(path)) == 1


def test_every_problem_is_listed_with_row_column_and_value(tmp_path: Path) -> None:
    path = write(
        tmp_path / "m.csv",
        (
            f"{HEADER},fold,age,sex,annotated\n"
            ",r1,AF,,,,\n"
            "a,,AF,,,,\n"
            "a,r2,,,,,\n"
            "a,r3,AF,one,,,\n"
            "a,r4,AF,,-4,,\n"
            "a,r4,AF,,,x,\n"
            "a,r5,AF,,,,PVC\n"
            "a,r6,,,,,PVC\n"
        ),
    )
    with pytest.raises(MappingError) as error:
        load_mapping(path)
    assert [problem.split(":")[0] for problem in error.value.problems] == [
        "row 2, column dataset, value ''",
        "row 3, column record_id, value ''",
        "row 4, column mapped_label, value ''",
        "row 5, column fold, value 'one'",
        "row 6, column age, value '-4'",
        "row 7, column record_id, value 'r4'",
        "row 7, column sex, value 'x'",
        "row 8, column mapped_label, value 'AF'",
    ]
    assert "m.csv: 8 problems" in str(error.value)


def test_a_patient_of_two_sexes_and_two_datasets_in_one_folder(tmp_path: Path) -> None:
    path = write(
        tmp_path / "m.csv",
        (
            f"{HEADER},patient_id,sex,path\n"
            "a,r1,AF,p1,F,/x/one/r1\n"
            "a,r2,AF,p1,woman,/x/one/r2\n"
            "a,r3,AF,p1,M,/x/one/r3\n"
            "b,r1,AF,p1,M,/x/one/r4\n"
            "b,r2,AF,p1,,/x/one/r5\n"
            "c,r1,AF,,F,one/r1\n"
            "d,r1,AF,,M,one/r1\n"
            "d,r2,AF,,F,C:\\x\\one\\r1\n"
        ),
    )
    with pytest.raises(MappingError) as error:
        load_mapping(path)
    assert error.value.problems == [
        "row 4, column sex, value 'M': patient 'p1' is female in row 2",
        "row 5, column path, value '/x/one/r4': /x/one is the folder of dataset 'a' too (row 2)",
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            "id,label\n1,AF\n",
            "columns dataset, record_id, mapped_label are missing: found id, label",
        ),
        ("", "not a CSV table"),
        (f"{HEADER}\na,b,c,d,e\n", "not a CSV table"),
        (f"{HEADER}\na,b,c\na,b,c,d,e\n", "not a CSV table"),
    ],
)
def test_other_tables_are_refused(tmp_path: Path, content: str, expected: str) -> None:
    with pytest.raises(MappingError, match=expected):
        load_mapping(write(tmp_path / "m.csv", content))


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        MappingError, match=r"gone\.csv: 1 problem in the label mapping: no such file"
    ):
        load_mapping(tmp_path / "gone.csv")


def test_updating_touches_only_its_own_dataset(tmp_path: Path) -> None:
    path = write(tmp_path / "m.csv", f"{HEADER}\nmine,r1,AF\nother,r1,NORM\n")
    update_mapping(
        path,
        pd.DataFrame(
            {"dataset": ["other"], "record_id": ["r9"], "mapped_label": ["MI"], "fold": [2]}
        ),
    )
    rows = {(row.dataset, row.record_id): row for row in iter_rows(load_mapping(path))}
    assert set(rows) == {("mine", "r1"), ("other", "r9")}
    assert rows["other", "r9"].fold == 2


def test_two_updates_at_once_lose_no_row(tmp_path: Path) -> None:
    """Threads lock as processes do: each opens the lock file itself."""
    path = tmp_path / "u.csv"
    rows = {
        name: pd.DataFrame(
            {"dataset": name, "record_id": [f"{name}{i}" for i in range(50)], "mapped_label": "A"}
        )
        for name in "abcdef"
    }
    with ThreadPoolExecutor(len(rows)) as threads:
        list(threads.map(lambda frame: update_mapping(path, frame), rows.values()))
    assert load_mapping(path)["dataset"].value_counts().to_dict() == dict.fromkeys(rows, 50)
    assert [file.name for file in tmp_path.iterdir()] == ["u.csv"]


def test_the_same_paths_under_two_names_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(
        tmp_path / "m.csv", f"{HEADER},path\nmine,r0,AF,\nold,r1,AF,x/r1\nold,r2,AF,x/r2\n"
    )
    new = pd.DataFrame(
        {
            "dataset": "new",
            "record_id": ["r1", "r2"],
            "mapped_label": "NORM",
            "path": ["x/r1", "x/r2"],
        }
    )
    update_mapping(path, new)
    assert "dataset 'new' has the same 2 paths as 'old' (rows 3 to 4)" in caplog.text


def test_wrong_new_rows_change_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "m.csv", f"{HEADER}\nmine,r1,AF\n")
    before = path.read_bytes()
    with pytest.raises(MappingError, match="new rows"):
        update_mapping(
            path, pd.DataFrame({"dataset": ["b"], "record_id": [""], "mapped_label": ["AF"]})
        )
    assert path.read_bytes() == before


def test_weights_are_numbers_and_reach_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("dataset,record_id,mapped_label,weight\nd,a,AF,0.3\nd,b,AF,\n")
    assert [row.weight for row in iter_rows(load_mapping(path))] == [0.3, 1.0]
    path.write_text("dataset,record_id,mapped_label,weight\nd,a,AF,-1\nd,b,AF,heavy\nd,c,AF,nan\n")
    with pytest.raises(MappingError) as caught:
        load_mapping(path)
    assert len(caught.value.problems) == 3 and "row 3, column weight, value 'heavy'" in str(
        caught.value
    )


@pytest.mark.parametrize("header", ["Age,age", "sex,Sex ", "Record_ID"])
def test_columns_that_stand_twice_are_named(header: str, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(
        f"dataset,record_id,mapped_label,{header}\nd,r,A,{header.count(',') * ','}\n"
    )
    with pytest.raises(MappingError, match="are repeated"):
        load_mapping(tmp_path / "m.csv")


def test_columns_of_exactly_one_name_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.csv", f"{HEADER},patient_id,patient_id\na,r1,AF,p,q\n")
    with pytest.raises(MappingError, match="columns patient_id are repeated"):
        load_mapping(path)


def test_patients_and_folds_have_one_spelling(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(
        tmp_path / "m.csv",
        (
            f"{HEADER};patient_id;fold\n".replace(",", ";")
            + "a;r1;AF;3;1\na;r2;AF;3.0; 1.0\na;r3;AF;unknown;nan\nb;r1;AF;0003;\n"
        ),
    )
    rows = list(iter_rows(load_mapping(path)))
    assert [row.patient_id for row in rows] == ["3", "3", "", "0003"]
    assert [row.fold for row in rows] == [1, 1, None, None]
    assert "'unknown' (1)" in caplog.text and "'3.0' is '3'" in caplog.text


def test_ids_in_two_unicode_forms_are_one_record(tmp_path: Path) -> None:
    path = write(tmp_path / "m.csv", f"{HEADER}\na,re\u0301c,AF\na,r\u00e9c,AF\n")
    with pytest.raises(MappingError, match=r"row 3, column record_id.*is repeated"):
        load_mapping(path)


@pytest.mark.parametrize("cell", ["\"['AF', 'PVC']\"", "nan", "{'AF': 1}"])
def test_printed_labels_in_the_mapping_are_refused(tmp_path: Path, cell: str) -> None:
    with pytest.raises(MappingError, match="expected labels separated by ;"):
        load_mapping(write(tmp_path / "m.csv", f"{HEADER}\na,r1,{cell}\n"))


def test_ages_above_a_limit_are_understood(tmp_path: Path) -> None:
    path = write(tmp_path / "m.csv", f"{HEADER},age\na,r1,AF,>89\na,r2,AF,90+\na,r3,AF,61 y\n")
    assert [row.age for row in iter_rows(load_mapping(path))] == [90, 90, 61]


TIMED = f"{HEADER},patient_id,start_s,end_s\n"


def test_rows_with_times_are_one_record(tmp_path: Path) -> None:
    path = write(
        tmp_path / "m.csv",
        f"{TIMED}a,r1,N,p1,0,12.5\na,r2,MI,,,\na,r1,AFIB,,12.5,60\na,r1,LVH,,,\n",
    )
    frame = load_mapping(path)
    whole, timed = iter_rows(frame)
    assert (whole.record_id, whole.labels, whole.intervals) == ("r2", ("MI",), ())
    assert (timed.record_id, timed.patient_id) == ("r1", "p1")
    assert timed.labels == ("N", "AFIB", "LVH")
    assert [item[:3] for item in timed.intervals] == [
        (0.0, 12.5, ("N",)),
        (12.5, 60.0, ("AFIB",)),
        (0.0, float("inf"), ("LVH",)),
    ]
    save_mapping(frame, tmp_path / "again.csv")
    assert list(iter_rows(load_mapping(tmp_path / "again.csv"))) == [whole, timed]


def test_wrong_times_name_row_value_and_expectation(tmp_path: Path) -> None:
    path = write(
        tmp_path / "m.csv",
        TIMED + "a,r1,N,,0,10\n"
        "a,r1,AFIB,,9,20\n"
        "a,r2,N,,5,\n"
        "a,r3,N,,10,9\n"
        "a,r4,N,,-1,ten\n"
        "a,r5,N,p1,0,1\n"
        "a,r5,N,p2,1,2\n"
        "a,r6,N,,,\n"
        "a,r6,N,,,\n",
    )
    with pytest.raises(MappingError) as error:
        load_mapping(path)
    assert error.value.problems == [
        "row 3, column start_s, value '9': record 'r1' has a label from 0 to 10 s in row 2 "
        "already: expected times that do not overlap, with labels of one time separated by ;",
        "row 4, column start_s, value '5': end_s is empty: expected both times, or none for the "
        "whole record",
        "row 5, column end_s, value '9': is before start_s '10': expected an end at or after the "
        "start",
        "row 6, column end_s, value 'ten': expected seconds from the record's beginning or nothing",
        "row 6, column start_s, value '-1': expected seconds from the record's beginning or "
        "nothing",
        "row 8, column patient_id, value 'p2': row 7 of the same record says 'p1': expected one "
        "value",
        "row 10, column record_id, value 'r6': is repeated in its dataset: expected one row per "
        "record, its labels separated by ;",
    ]
