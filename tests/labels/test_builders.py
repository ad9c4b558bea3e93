from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from src.__main__ import build_parser
from src.labels.builders import BUILDERS, build_labels
from src.labels.collections.challenge import split_codes
from src.labels.collections.ptbxl import load_task
from src.labels.collections.rows import LabelOptions
from src.labels.collections.sph import split_statements
from src.labels.crosswalk import SET_NAMES
from src.labels.mapping import COLUMNS, find_problems, load_mapping, update_mapping
from src.labels.text_tables import read_table

DATABASE = """ecg_id,patient_id,age,sex,scp_codes,strat_fold,filename_lr,filename_hr
1,15709.0,56.0,1,"{'NORM': 100.0, 'SR': 0.0}",3,records100/00000/00001_lr,records500/00000/00001_hr
2,13243.0,300.0,0,"{'IMI': 15.0, 'NDT': 0.0, 'SBRAD': 0.0}",9,records100/00000/00002_lr,records500/00000/00002_hr
3,13243.0,,0,"{'AFIB': 0.0}",9,records100/00000/00003_lr,records500/00000/00003_hr
4,1.0,40.0,0,"{'CLBBB': 100.0}",1,records100/00000/00004_lr,records500/00000/00004_hr
"""  # noqa: E501


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def labels_of(frame: pd.DataFrame) -> dict[str, str]:
    assert tuple(frame.columns) == COLUMNS
    assert find_problems(frame) == []
    return dict(zip(frame["record_id"], frame["mapped_label"], strict=True))


@pytest.fixture
def ptbxl(tmp_path: Path) -> Path:
    (tmp_path / "ptbxl_database.csv").write_text(DATABASE, encoding="utf-8")
    touch(tmp_path, *(f"records100/00000/0000{n}_lr.hea" for n in (1, 2, 3)))
    return tmp_path


def header(name: str, dx: str, age: str = "74", sex: str = "Male") -> str:
    return (
        f"{name} 1 500 5000\n{name}.mat 16+24 1000/mV 16 0 1 1 0 I\n# Age: {age}\n#Sex: "
        f"{sex}\n# Dx: {dx}\n"
    )


def write_headers(root: Path, **codes: str) -> Path:
    for name, dx in codes.items():
        (root / f"{name}.hea").write_text(header(name, dx), encoding="utf-8")
    return root


def test_ptbxl_superclass(ptbxl: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        frame = build_labels("ptbxl", ptbxl)
    assert labels_of(frame) == {"00001_lr": "NORM", "00002_lr": "MI;STTC", "00003_lr": ""}
    first, second, third = frame.to_dict("records")
    assert (first["patient_id"], first["fold"], first["age"], first["sex"]) == (
        "15709",
        "3",
        "56",
        "F",
    )
    assert first["path"] == "records100/00000/00001_lr"
    assert (second["age"], second["sex"], third["age"]) == ("90", "M", "")
    assert set(frame["annotated"]) == {"NORM;MI;STTC;CD;HYP"}
    assert "1 records have no signal file" in caplog.text
    assert "00004_lr" in caplog.text


@pytest.mark.parametrize(
    ("task", "second", "n_classes"),
    [
        ("subclass", "IMI;STTC", 23),
        ("diagnostic", "IMI;NDT", 44),
        ("form", "NDT", 19),
        ("rhythm", "SBRAD", 12),
        ("all", "IMI;NDT;SBRAD", 71),
    ],
)
def test_ptbxl_tasks(ptbxl: Path, task: str, second: str, n_classes: int) -> None:
    frame = build_labels("ptbxl", ptbxl, task=task)
    assert labels_of(frame)["00002_lr"] == second
    assert {len(set(cell.split(";"))) for cell in frame["annotated"]} == {n_classes}


def test_ptbxl_unknown_statements(ptbxl: Path, caplog: pytest.LogCaptureFixture) -> None:
    (ptbxl / "ptbxl_database.csv").write_text(
        DATABASE.replace("AFIB", "WHAT").replace("'NDT'", "'HUH'"), encoding="utf-8"
    )
    with caplog.at_level(logging.WARNING):
        frame = build_labels("ptbxl", ptbxl)
    assert labels_of(frame) == {"00001_lr": "NORM", "00002_lr": "MI", "00003_lr": "OTHER"}
    assert set(frame["annotated"]) == {"NORM;MI;STTC;CD;HYP;OTHER"}
    assert "unknown scp codes, with their number of records: HUH 1, WHAT 1" in caplog.text


def test_a_patient_of_two_sexes_has_none(ptbxl: Path, caplog: pytest.LogCaptureFixture) -> None:
    (ptbxl / "ptbxl_database.csv").write_text(
        DATABASE.replace("3,13243.0,,0", "3,13243.0,,1"), encoding="utf-8"
    )
    with caplog.at_level(logging.WARNING):
        frame = build_labels("ptbxl", ptbxl)
    assert list(frame["sex"]) == ["F", "", ""]
    assert (
        "2 records belong to patients recorded with both sexes; their sex is left empty "
        "(00002_lr, 00003_lr)" in caplog.text
    )


def test_ptbxl_likelihood(ptbxl: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        frame = build_labels("ptbxl", ptbxl, min_likelihood=15)
    assert labels_of(frame)["00002_lr"] == "MI"  # 15 suffices, ungraded no longer does
    assert "ungraded statements of 3 records" in caplog.text
    assert labels_of(build_labels("ptbxl", ptbxl, min_likelihood=15.1))["00002_lr"] == ""


def test_ptbxl_records_that_no_human_validated_weigh_less_on_request(ptbxl: Path) -> None:
    assert set(build_labels("ptbxl", ptbxl)["weight"]) == {""}
    with pytest.raises(ValueError, match="validated_by_human"):
        build_labels("ptbxl", ptbxl, unvalidated_weight=0.3)
    lines = (ptbxl / "ptbxl_database.csv").read_text(encoding="utf-8").splitlines()
    marks = ["validated_by_human", *("False" if i % 2 else "True" for i in range(len(lines) - 1))]
    (ptbxl / "ptbxl_database.csv").write_text(
        "\n".join(f"{line},{mark}" for line, mark in zip(lines, marks, strict=True)),
        encoding="utf-8",
    )
    assert list(build_labels("ptbxl", ptbxl, unvalidated_weight=0.3)["weight"])[:2] == ["", "0.3"]


def test_ptbxl_rate_and_root(ptbxl: Path) -> None:
    inner = build_labels("ptbxl", ptbxl / "records100")
    assert inner["path"].iloc[0] == "00000/00001_lr"
    touch(ptbxl, "records500/00000/00001_hr.hea")
    assert list(labels_of(build_labels("ptbxl", ptbxl))) == ["00001_hr"]
    assert len(build_labels("ptbxl", ptbxl, rate=100)) == 3
    with pytest.raises(ValueError, match="rate is 250: expected 100 or 500"):
        build_labels("ptbxl", ptbxl, rate=250)
    with pytest.raises(ValueError, match="no PTB-XL recordings at 500 Hz; it holds 3 at 100 Hz"):
        build_labels("ptbxl", ptbxl / "records100", rate=500)


def test_ptbxl_in_other_label_sets(ptbxl: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        frame = build_labels("ptbxl", ptbxl, classes="challenge2021")
    assert labels_of(frame) == {"00001_lr": "NSR", "00002_lr": "SB;TAb", "00003_lr": "AF"}
    assert "IMI (IMI) 1" in caplog.text
    assert "Brady" not in frame["annotated"].iloc[0].split(";")  # no statement of PTB-XL says so
    same = build_labels("ptbxl", ptbxl, classes="ptbxl_superclass")
    pd.testing.assert_frame_equal(same, build_labels("ptbxl", ptbxl))


def test_ptbxl_with_a_broken_cell(ptbxl: Path) -> None:
    (ptbxl / "ptbxl_database.csv").write_text(
        DATABASE.replace("{'AFIB': 0.0}", "AFIB"), encoding="utf-8"
    )
    with pytest.raises(ValueError, match="record 00003_lr, scp_codes 'AFIB' is not a table"):
        build_labels("ptbxl", ptbxl)


def test_challenge_scored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_headers(
        tmp_path,
        A0001="59118001,713427006",
        E00001="164873001",
        JS00001="426177001, 426177001",
        JS10647="12345,164889003",
    )
    (tmp_path / "Q0001.hea").write_text(
        header("Q0001", "427172004", "NaN", "Unknown"), encoding="utf-8"
    )
    write_headers(tmp_path, A00001="Unknown")
    with caplog.at_level(logging.INFO):
        frame = build_labels("challenge", tmp_path)
    assert labels_of(frame) == {
        "A0001": "RBBB",
        "E00001": "OTHER",
        "JS00001": "SB",
        "JS10647": "AF",
        "Q0001": "PVC",
    }
    by_id = frame.set_index("record_id")
    assert by_id.loc["A0001", "annotated"] == "NSR;AF;PAC;IAVB;LBBB;RBBB;OTHER"
    assert "SA" not in by_id.loc["JS00001", "annotated"].split(
        ";"
    )  # Chapman-Shaoxing never gives it, Ningbo does
    assert "SA" in by_id.loc["JS10647", "annotated"].split(";")
    assert tuple(by_id.loc["A0001", ["age", "sex"]]) == ("74", "M")
    assert tuple(by_id.loc["Q0001", ["age", "sex"]]) == ("", "")
    assert "unknown snomed codes, with their number of records: 12345 1" in caplog.text
    assert "164873001 (LVH) 1" in caplog.text
    assert "1 records have no #Dx code" in caplog.text


def test_challenge_all_and_superclass(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_headers(
        tmp_path,
        A0005="164884008",
        E00001="164873001,426783006",
        E00002="426783006",
        I0001="164884008",
    )
    assert labels_of(build_labels("challenge", tmp_path, task="all")) == {
        "A0005": "PVC",
        "E00001": "NSR;LVH",
        "E00002": "NSR",
        "I0001": "PVC",
    }
    with caplog.at_level(logging.WARNING):
        frame = build_labels("challenge", tmp_path, classes="ptbxl_superclass")
    assert labels_of(frame) == {"E00001": "HYP", "E00002": "NORM"}
    assert (
        "2 records have no label among these classes and are skipped (A0005, I0001)" in caplog.text
    )


def test_challenge_of_unknown_source_and_equal_names(tmp_path: Path) -> None:
    for folder, code in (("a", "164889003"), ("b", "426783006")):
        (tmp_path / folder).mkdir()
        write_headers(tmp_path / folder, rec1=code)
    frame = build_labels("challenge", tmp_path, dataset="mine")
    assert labels_of(frame) == {"a/rec1": "AF", "b/rec1": "NSR"}
    assert set(frame["annotated"]) == {"NSR;AF"}  # what occurs among them
    assert set(frame["dataset"]) == {"mine"}


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("59118001,427084000", ["59118001", "427084000"]),
        (" 59118001 , 59118001", ["59118001"]),
        ("Unknown", []),
        ("", []),
        ("['59118001'; 427084000.0]", ["59118001", "427084000"]),
        ("59118001,AFIB", ["59118001", "AFIB"]),
    ],
)
def test_dx_lines(text: str, codes: list[str]) -> None:
    assert split_codes(text) == codes


@pytest.mark.parametrize(
    ("age", "sex", "expected"),
    [
        ("74", "Male", ("74", "M")),
        ("NaN", "Unknown", ("", "")),
        ("-1", "F", ("", "F")),
        ("300", "female", ("", "F")),
        ("064Y", "m", ("64", "M")),
        ("6.5 years", "NaN", ("6.5", "")),
    ],
)
def test_challenge_ages_and_sexes(
    tmp_path: Path, age: str, sex: str, expected: tuple[str, str]
) -> None:
    text = header("E00001", "426783006", age, sex).replace("\n", "\r\n").encode("latin-1")
    (tmp_path / "E00001.hea").write_bytes(text + "# Hx: Müller\r\n".encode("latin-1"))
    assert tuple(build_labels("challenge", tmp_path).loc[0, ["age", "sex"]]) == expected


def test_sinus_rhythm_of_an_unknown_source(tmp_path: Path) -> None:
    write_headers(tmp_path, rec1="426783006", rec2="164889003", rec3="59118001")
    assert labels_of(build_labels("challenge", tmp_path, classes="ptbxl_superclass")) == {
        "rec2": "",
        "rec3": "CD",
    }
    write_headers(tmp_path, rec4="164934002")
    frame = build_labels("challenge", tmp_path, classes="ptbxl_superclass").set_index("record_id")
    assert tuple(frame.loc["rec1", ["mapped_label", "annotated"]]) == (
        "NORM",
        "NORM;MI;STTC;CD;HYP",
    )


def test_challenge2017(tmp_path: Path) -> None:
    (tmp_path / "REFERENCE.csv").write_text(
        "A00001,N\nA00002,A\nA00003,O\nA00004,~\nA00005,N\n", encoding="utf-8"
    )
    touch(tmp_path, *(f"training/A0000{n}.mat" for n in range(1, 5)))
    frame = build_labels("challenge2017", tmp_path)
    assert labels_of(frame) == {
        "A00001": "NSR",
        "A00002": "AF",
        "A00003": "OTHER_RHYTHM",
        "A00004": "NOISE",
    }
    assert set(frame["annotated"]) == {"NSR;AF;OTHER_RHYTHM;NOISE"}
    shared = build_labels("challenge2017", tmp_path, classes="challenge2021")
    assert list(shared["mapped_label"]) == [
        "NSR",
        "AF",
        "OTHER",
    ]  # noise tells nothing, and is no other rhythm
    assert list(shared["annotated"]) == ["NSR;AF;OTHER"] * 3
    (tmp_path / "REFERENCE.csv").write_text("A00001,X\n", encoding="utf-8")
    with pytest.raises(ValueError, match="row 1, label 'X': expected one of N, A, O, ~"):
        build_labels("challenge2017", tmp_path)
    (tmp_path / "REFERENCE.csv").write_text("A00001," + "X" * 10**4 + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"label 'XXX.* \.\.\.: expected one of") as error:
        build_labels("challenge2017", tmp_path)
    assert len(str(error.value)) < 1000


def test_cpsc2018_official(tmp_path: Path) -> None:
    (tmp_path / "REFERENCE.csv").write_text(
        "Recording,First_label,Second_label,Third_label\nA0001,5,,\nA0002,2,5,8\nA0003,1,,\n",
        encoding="utf-8",
    )
    touch(tmp_path, "TrainingSet1/A0001.mat", "TrainingSet1/A0002.mat", "TrainingSet2/A0003.mat")
    frame = build_labels("cpsc2018", tmp_path)
    assert labels_of(frame) == {"A0001": "RBBB", "A0002": "AF;RBBB;STD", "A0003": "NSR"}
    assert set(frame["annotated"]) == {"NSR;AF;PAC;PVC;IAVB;LBBB;RBBB;STD;STE"}
    shared = build_labels("cpsc2018", tmp_path, classes="ptbxl_superclass")
    assert list(shared["mapped_label"]) == ["CD", "STTC;CD", "NORM"]
    assert list(shared["annotated"]) == ["NORM;CD", "NORM;STTC;CD", "NORM;MI;STTC;CD;HYP"]


def test_cpsc2018_snomed_columns(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(
        "record,age,gender,fs,164889003,713427006,427172004\nA0001,52.0,Male,500,1.0,1.0,0.0\n",
        encoding="utf-8",
    )
    touch(tmp_path, "A0001.mat")
    frame = build_labels("cpsc2018", tmp_path)
    assert labels_of(frame) == {"A0001": "AF;RBBB"}
    assert (
        frame["annotated"].iloc[0] == "AF;RBBB"
    )  # its PVC stand under 164884008, which has no column here
    assert tuple(frame.loc[0, ["age", "sex"]]) == ("52", "M")


def test_cpsc2018_knows_absent_what_the_challenge_does_not_score(tmp_path: Path) -> None:
    codes = (
        "164889003,270492004,164909002,426783006,284470004,59118001,429622005,164931005,164884008"
    )
    (tmp_path / "labels.csv").write_text(
        f"record,age,gender,fs,{codes}\nA0001,52,Male,500,1,0,0,0,0,0,0,0,0\n", encoding="utf-8"
    )
    touch(tmp_path, "A0001.mat")
    annotated = build_labels("cpsc2018", tmp_path)["annotated"].iloc[0].split(";")
    assert len(annotated) == 9 and {"STD", "STE", "PVC"} <= set(annotated)


def test_sph(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text(
        "ECG_ID,AHA_Code,Patient_ID,Age,Sex,N,Date\nS1.h5,22;23,P1,55,M,5000,2020-03-04\nS2,1,P2,32,F,5000,2020-01-01\n"
        "S3,60+310;145+362;777,P3,60,F,5000,2020-01-01\nS4,1,P4,5,M,5000,2020-01-01\n",
        encoding="utf-8",
    )
    touch(tmp_path, "records/S1.h5", "records/S2.h5", "records/S3.h5")
    frame = build_labels("sph", tmp_path)
    assert labels_of(frame) == {"S1": "SB;SA", "S2": "NORM;NSR", "S3": "PVC;STC;STD"}
    assert tuple(frame.loc[0, ["patient_id", "age", "sex", "path"]]) == (
        "P1",
        "55",
        "M",
        "records/S1",
    )
    known = [cell.split(";") for cell in frame["annotated"]]
    assert ["NSR" in names for names in known] == [
        False,
        True,
        False,
    ]  # SPH has no code for sinus rhythm


@pytest.mark.parametrize(
    ("cell", "codes"),
    [
        ("22;23", ["22", "23"]),
        ("1;1", ["1"]),
        ("60+310", ["60"]),
        ("341+60", ["60", "60+341"]),
        ("147+367;30", ["147", "147+367", "30"]),
        ("", []),
    ],
)
def test_statements_with_modifiers(cell: str, codes: list[str]) -> None:
    assert split_statements(cell) == codes


def test_csv(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = tmp_path / "my.csv"
    table.write_text(
        "file,dx,years,sex,who\nr1.hea,AF|LBBB|AF,61 y,w,3.0\nr2.hea,odd,??,M,4.0\n",
        encoding="utf-8",
    )
    columns = {"record_id": "file", "mapped_label": "dx", "age": "years", "patient_id": "who"}
    with caplog.at_level(logging.WARNING):
        frame = build_labels("csv", tmp_path, dataset="mine", columns=columns, separator="|")
    assert labels_of(frame) == {"r1.hea": "AF;LBBB", "r2.hea": "odd"}
    assert tuple(frame.loc[0, ["dataset", "patient_id", "age", "sex", "annotated"]]) == (
        "mine",
        "3",
        "61",
        "F",
        "",
    )
    assert "age not understood and left empty: ??" in caplog.text
    shared = build_labels(
        "csv", tmp_path, columns=columns, separator="|", classes="ptbxl_superclass"
    )
    assert labels_of(shared) == {"r1.hea": "CD", "r2.hea": "OTHER"}
    with pytest.raises(
        ValueError, match=r"which columns are record_id and mapped_label\? It has file, dx"
    ):
        build_labels("csv", tmp_path)
    with pytest.raises(
        ValueError, match="columns label are unknown: expected record_id, mapped_label"
    ):
        build_labels("csv", tmp_path, columns={"label": "dx"})
    with pytest.raises(ValueError, match="columns dy are missing"):
        build_labels("csv", tmp_path, columns={**columns, "mapped_label": "dy"})


@pytest.mark.parametrize(
    ("cells", "separator"),
    [
        (["AF|NSR"], "|"),
        (["AF , NSR"], ","),
        (["AF NSR"], " "),
        (["AF;;NSR;"], ";"),
        (["['AF', 'NSR']"], ";"),
        (['["AF","NSR"]'], ","),
        (["[AF;NSR]"], ";"),
        (["AF && NSR && AF"], "&&"),
    ],
)
def test_csv_separators(tmp_path: Path, cells: list[str], separator: str) -> None:
    pd.DataFrame({"RECORD_ID": ["r1"], "Mapped_Label": cells}).to_csv(
        tmp_path / "t.tsv", sep="\t", index=False, encoding="utf-16"
    )
    assert labels_of(build_labels("csv", tmp_path, separator=separator)) == {"r1": "AF;NSR"}


def test_csv_labels_that_hold_a_separator(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "t.csv").write_text(
        'record_id,mapped_label\nr1,"AF|NSR"\nr2,"a;b"\n', encoding="utf-8"
    )
    with caplog.at_level(logging.WARNING):
        build_labels("csv", tmp_path)
    assert (
        "1 label contains '|' ('AF|NSR'); if it separates labels, use --separator '|'"
        in caplog.text
    )
    with pytest.raises(ValueError, match=r"1 label contains ';' \('a;b'\).*else rename them"):
        build_labels("csv", tmp_path, separator="|")


def read_csv(tmp_path: Path, text: str, **options: Any) -> pd.DataFrame:
    """Return the rows that `labels csv` makes of a table."""
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    return build_labels("csv", tmp_path, **options)


def test_csv_with_a_column_for_each_class(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = (
        "record_id,is_male,1dAVb,AF,SB,death\n"
        "11,True,False,True,False,True\n7,False,True,True,False,False\n5,False,False,,False,False\n"
    )
    frame = read_csv(tmp_path, text)
    assert labels_of(frame) == {"11": "AF", "7": "1dAVb;AF", "5": ""}
    assert set(frame["annotated"]) == {"1dAVb;AF;SB"}
    assert "each of the columns 1davb, af, sb is read as a class" in caplog.text
    chosen = read_csv(tmp_path, text, columns={"mapped_label": "AF,", "sex": "is_male"})
    assert labels_of(chosen) == {"11": "AF", "7": "AF", "5": ""}
    assert list(chosen["sex"]) == ["M", "F", "F"]


def test_csv_with_labels_in_several_columns(tmp_path: Path) -> None:
    text = "record_id,report_0,report_1,x\n1,AF,PVC,0\n2,NSR,,1\n3,,AF,0\n"
    expected = {"1": "AF;PVC", "2": "NSR", "3": "AF"}
    for columns in ("report_0,report_1", "Report_*"):
        assert labels_of(read_csv(tmp_path, text, columns={"mapped_label": columns})) == expected
    with pytest.raises(ValueError, match="columns report_9 are missing"):
        read_csv(tmp_path, text, columns={"mapped_label": "report_0,report_9"})


def test_csv_with_a_row_for_each_label(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = "record_id,mapped_label,patient_id\n3,AF,p\n4,NSR,\n3.0,PVC,\n"
    frame = read_csv(tmp_path, text)
    assert labels_of(frame) == {"3": "AF;PVC", "4": "NSR"}
    assert "3 rows are of 2 records" in caplog.text
    with pytest.raises(ValueError, match=r"rows 2 and 3 are of record '3' and differ in patient"):
        read_csv(tmp_path, "record_id,mapped_label,patient_id\n3,AF,p\n3,PVC,q\n")


def test_csv_with_codes_as_numbers_and_empty_cells(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frame = read_csv(tmp_path, "record_id,mapped_label\na,0.0\nb,1\nc,0\nd,nan\n")
    assert labels_of(frame) == {"a": "0", "b": "1", "c": "0"}
    assert "cells read as no label: 'nan' (1)" in caplog.text


@pytest.mark.parametrize(("sign", "written"), [("\n", r"\n"), ("\t", r"\t")])
def test_csv_with_labels_in_lines_or_at_tabs(tmp_path: Path, sign: str, written: str) -> None:
    text = f'record_id,mapped_label\n1,"AF{sign}PVC"\n'
    assert labels_of(read_csv(tmp_path, text, separator=written)) == {"1": "AF;PVC"}
    with pytest.raises(ValueError, match=rf"use --separator '\\{written[1]}'"):
        read_csv(tmp_path, text)


def test_a_workbook_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"PK\x03\x04\x14\x00")
    for call in (
        lambda: build_labels("csv", tmp_path),
        lambda: load_mapping(tmp_path / "t.csv"),
    ):
        with pytest.raises(ValueError, match=r"is an Excel workbook.*export the sheet as 'CSV"):
            call()
    (tmp_path / "t.csv").rename(tmp_path / "t.xlsx")
    with pytest.raises(ValueError, match=r"found the workbook t\.xlsx: export its sheet"):
        build_labels("csv", tmp_path)


def test_challenges_of_2024_and_2025(tmp_path: Path) -> None:
    for name, comment in {
        "a": "# Labels: NORM, Old MI",
        "b": "# Labels:",
        "c": "# Chagas label: True",
        "d": "# Chagas label: False",
        "e": "# Chagas label:",
    }.items():
        (tmp_path / f"{name}.hea").write_text(f"{name} 0 100 10\n# Age: 56\n{comment}\n")
    frame = build_labels("challenge", tmp_path)
    assert labels_of(frame) == {"a": "NORM;Old MI", "b": "", "c": "Chagas", "d": ""}
    annotated = dict(zip(frame["record_id"], frame["annotated"], strict=True))
    assert annotated["b"].startswith("NORM;Acute MI;Old MI") and annotated["d"] == "Chagas"
    shared = build_labels("challenge", tmp_path, classes="ptbxl_superclass")
    assert labels_of(shared)["a"] == "NORM"


def test_csv_of_codes_and_of_class_names(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text(
        "record_id,mapped_label\nr1,164889003;59118001\nr2,CLBBB\nr3,CD\nr4,RBBB;164884008\n",
        encoding="utf-8",
    )
    assert labels_of(build_labels("csv", tmp_path, classes="challenge2021")) == {
        "r1": "AF;RBBB",
        "r2": "LBBB",
        "r3": "OTHER",
        "r4": "RBBB",
    }
    assert labels_of(build_labels("csv", tmp_path, classes="ptbxl_superclass")) == {
        f"r{n}": "CD" for n in range(1, 5)
    }
    own = tmp_path / "own.txt"
    own.write_text("class;codes\nblock;CLBBB\nblock;RBBB\nCD;aha:80\n", encoding="utf-8")
    assert labels_of(build_labels("csv", tmp_path, classes=own)) == {
        "r1": "block",
        "r2": "block",
        "r3": "CD",
        "r4": "block",
    }


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (
            "mimic",
            {},
            "kind 'mimic' is unknown: expected ptbxl, challenge, challenge2017, cpsc2018, sph, "
            "code15, chapman, georgia, ptb, mimic-iv-ecg, echonext, chagas2025, ludb, mitbih, "
            "afdb, annotations, csv",
        ),
        (
            "ptbxl",
            {"task": "scored"},
            "task 'scored' is unknown for ptbxl: expected superclass, subclass",
        ),
        ("sph", {"rate": 100}, "kind sph takes no rate: its options are none"),
        ("ptbxl", {"task": "all", "classes": "crosswalk"}, "are two label spaces"),
        ("ptbxl", {"min_likelihood": 101}, "min_likelihood is 101: expected 0 to 100"),
        ("challenge", {"classes": "nine"}, "classes 'nine': expected ptbxl_superclass"),
        ("challenge", {}, "dataset challenge: no record has a label"),
        ("sph", {}, r"no metadata\.csv here"),
    ],
)
def test_wrong_input(tmp_path: Path, kind: str, options: dict[str, Any], message: str) -> None:
    root = tmp_path / "a" / "b" / "c"
    root.mkdir(parents=True)
    with pytest.raises(ValueError, match=message):
        build_labels(kind, root, **options)
    with pytest.raises(ValueError, match="no such folder"):
        build_labels("sph", root / "none")


def test_the_command_line_has_every_option_with_its_default() -> None:
    args = build_parser().parse_args(["labels", "csv", "--root", "x", "--out", "y"])
    given = {option.name: getattr(args, option.name) for option in fields(LabelOptions)}
    given["columns"] = dict(given["columns"])
    assert LabelOptions(**given) == LabelOptions()


def test_every_option_belongs_to_a_builder() -> None:
    names = {name for builder in BUILDERS.values() for name in builder.options}
    assert names == {option.name for option in fields(LabelOptions)}
    assert LabelOptions(rate=100, separator="|").given() == ["rate", "separator"]


def test_rows_replace_their_own_dataset_only(ptbxl: Path, tmp_path: Path) -> None:
    out = tmp_path / "mapping.csv"
    update_mapping(out, build_labels("ptbxl", ptbxl, dataset="one"))
    update_mapping(out, build_labels("ptbxl", ptbxl, dataset="two", task="rhythm"))
    update_mapping(out, build_labels("ptbxl", ptbxl, dataset="one", task="all"))
    mapping = load_mapping(out)
    assert mapping["dataset"].value_counts().to_dict() == {"one": 3, "two": 3}
    assert mapping[mapping["dataset"] == "two"]["mapped_label"].tolist() == ["SR", "SBRAD", "AFIB"]


def test_command_line(ptbxl: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "my.csv").write_text("file,dx,who\nr1,AF|LBBB,p\n", encoding="utf-8")

    def run(*words: str) -> None:
        args = build_parser().parse_args(["labels", *words, "--out", str(tmp_path / "out.csv")])
        assert args.run_command(args) == 0

    run("ptbxl", "--root", str(ptbxl), "--rate", "100", "--min-likelihood", "15")
    run(
        "csv",
        "--root",
        str(tmp_path),
        "--table",
        "my.csv",
        "--dataset",
        "mine",
        "--separator",
        "|",
        "--classes",
        "ptbxl_superclass",
        "--columns",
        "record_id=file",
        "mapped_label=dx",
        "--columns",
        "patient_id=who",
    )
    rows = load_mapping(tmp_path / "out.csv")
    assert list(rows["mapped_label"]) == ["NORM", "MI", "", "CD"]
    assert rows.iloc[3]["patient_id"] == "p"
    assert "1 rows of mine" in capsys.readouterr().out


def test_command_line_names_every_kind_and_task(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["labels", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert all(
        name in text
        for kind, builder in BUILDERS.items()
        for name in (kind, *builder.tasks, *SET_NAMES)
    )
    for kind in BUILDERS:
        assert build_parser().parse_args(["labels", kind, "--root", "r", "--out", "o"]).kind == kind


def test_real_ptbxl(real_data: Callable[[str], Path]) -> None:
    root = real_data("ptbxl100")
    frame = build_labels("ptbxl", root)
    counts = frame["mapped_label"].str.split(";").explode().value_counts()
    assert len(frame) == 19601
    assert {name: counts[name] for name in ("NORM", "MI", "STTC", "CD", "HYP", "")} == {
        "NORM": 8553,
        "MI": 4921,
        "STTC": 4716,
        "CD": 4403,
        "HYP": 2387,
        "": 366,
    }
    assert frame["mapped_label"].str.contains(";").sum() == 4638
    sizes = {
        task: len(build_labels("ptbxl", root, task=task)["annotated"].iloc[0].split(";"))
        for task in ("subclass", "diagnostic", "form", "rhythm")
    }
    assert sizes == {"subclass": 23, "diagnostic": 44, "form": 19, "rhythm": 12}
    whole = build_labels("ptbxl", root, task="all")
    assert (
        len(
            {
                label
                for cell in whole.loc[whole["fold"] == "9", "mapped_label"]
                for label in cell.split(";")
            }
        )
        == 71
    )


def test_real_statements_are_those_of_the_table(real_data: Callable[[str], Path]) -> None:
    official = read_table(real_data("ptbxl100") / "scp_statements.csv").rows
    for task, column in (("superclass", "diagnostic_class"), ("subclass", "diagnostic_subclass")):
        assert load_task(task) == {row[""]: row[column] for row in official}
    for task in ("diagnostic", "form", "rhythm"):
        assert load_task(task) == {row[""]: row[""] if row[task] else "" for row in official}


def test_real_challenge(real_data: Callable[[str], Path]) -> None:
    root = real_data("challenge2021")
    labels = labels_of(build_labels("challenge", root))
    assert len(labels) == 141
    assert (labels["A0001"], labels["JS20004"], labels["E07505"]) == (
        "RBBB",
        "STach;PAC;PVC",
        "OTHER",
    )
    known = labels_of(build_labels("challenge", root, task="all"))
    assert "OTHER" not in known.values()


def test_real_superclasses_agree_with_ptbxl(real_data: Callable[[str], Path]) -> None:
    ours = build_labels(
        "challenge", real_data("challenge2021"), classes="ptbxl_superclass"
    ).set_index("record_id")
    theirs = build_labels("ptbxl", real_data("ptbxl100")).set_index("record_id")
    pairs = [
        (ours.loc[name], theirs.loc[f"{name[2:]}_lr"])
        for name in ours.index
        if name.startswith("HR")
    ]
    assert len(pairs) == 22
    assert all(a["sex"] == b["sex"] for a, b in pairs)
    assert sum(a["mapped_label"] == b["mapped_label"] for a, b in pairs) == 18
    wrong = [
        a.name
        for a, b in pairs
        if set(a["mapped_label"].split(";")) - set(b["mapped_label"].split(";")) - {""}
    ]
    assert wrong == [
        "HR00003"
    ]  # the Challenge gives it a first-degree block that PTB-XL 1.0.3 does not


def test_real_small_collections(real_data: Callable[[str], Path]) -> None:
    rhythms = build_labels("challenge2017", real_data("challenge2017"))
    assert rhythms["mapped_label"].value_counts().to_dict() == {
        "NSR": 75,
        "OTHER_RHYTHM": 34,
        "AF": 11,
    }
    assert labels_of(build_labels("cpsc2018", real_data("cpsc2018_native_sample"))) == {
        "A1980": "PAC",
        "A1983": "NSR",
    }
    sph = labels_of(build_labels("sph", real_data("sph_sample")))
    assert sph == {
        "SPH00001": "SB;SA",
        "SPH00004": "SA",
        "SPH00007": "RBBB",
        "SPH00010": "NORM;NSR",
    }


def test_ptbxl_tasks_can_be_joined(ptbxl: Path) -> None:
    labels = labels_of(build_labels("ptbxl", ptbxl, task="superclass+all"))
    assert list(labels.values())[:2] == ["NORM;SR", "MI;STTC;IMI;NDT;SBRAD"]
    with pytest.raises(ValueError, match=r"task 'superclass\+what' is unknown"):
        build_labels("ptbxl", ptbxl, task="superclass+what")


def test_headers_that_are_pipes_or_devices_are_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.hea").write_text("a 1 100 10\n#Dx: 426783006\n")
    os.mkfifo(tmp_path / "b.hea")
    (tmp_path / "c.hea").symlink_to("/dev/zero")
    with open(tmp_path / "d.hea", "wb") as stream:
        stream.truncate(2**36)
    assert labels_of(build_labels("challenge", tmp_path)) == {"a": "NSR"}
    assert "3 records have an unreadable header and are skipped (b.hea, c.hea, d.hea)" in (
        caplog.text
    )


def test_names_in_another_unicode_form_find_their_files(tmp_path: Path) -> None:
    """A table in one form beside files in the other, as macOS and Linux write them."""
    touch(tmp_path, "r\u00e9c.hea", "e\u0301b.hea")
    (tmp_path / "REFERENCE.csv").write_text("re\u0301c,N\n\u00e9b,A\n\u200bnone,N\n", "utf-8")
    frame = build_labels("challenge2017", tmp_path)
    assert frame["path"].tolist() == ["r\u00e9c", "e\u0301b"]


def test_headers_alike_but_for_unicode_form_are_two_records(tmp_path: Path) -> None:
    for folder, name in (("x", "r\u00e9c"), ("y", "re\u0301c")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.hea").write_text("r 1 100 10\n#Dx: 426783006\n")
    assert set(labels_of(build_labels("challenge", tmp_path))) == {"x/r\u00e9c", "y/re\u0301c"}


def test_a_table_with_times_keeps_a_row_per_interval(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "file,rhythm,from,to,sub\nr1,N,0,12.5,p1\nr1,AFIB,12.5,30,p1\nr2,N,0,30,p2\n"
    )
    columns = {
        "record_id": "file",
        "mapped_label": "rhythm",
        "start_s": "from",
        "end_s": "to",
        "patient_id": "sub",
    }
    frame = build_labels("csv", tmp_path, columns=columns)
    assert find_problems(frame) == []
    shown = ["record_id", "mapped_label", "start_s", "end_s", "patient_id"]
    assert frame[shown].to_numpy().tolist() == [
        ["r1", "N", "0", "12.5", "p1"],
        ["r1", "AFIB", "12.5", "30", "p1"],
        ["r2", "N", "0", "30", "p2"],
    ]
