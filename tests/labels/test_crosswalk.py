from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest
from settings import SHARED

from src.labels.collections.annotation import load_sources
from src.labels.collections.ptbxl import load_task
from src.labels.crosswalk import (
    OWN_NAMES,
    SET_NAMES,
    SUPERCLASSES,
    TABLES,
    VOCABULARIES,
    CrosswalkError,
    known_codes,
    load_class_set,
    load_crosswalk,
    translate,
)
from src.labels.text_tables import read_table

CHALLENGE_LISTS = SHARED / "tables"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_the_table_covers_the_vocabularies() -> None:
    rows = load_crosswalk()
    assert len({row.name for row in rows}) == len(rows) >= 150
    assert len(known_codes("scp")) == 71
    assert sum(bool(row.scored) for row in rows) == 26
    assert (
        len(load_sources()["sph"].codes) == 44 + 11
    )  # primary statements, and those that a modifier changes
    assert sorted(known_codes("cpsc2018")) == list("123456789")
    assert not {row.name for row in rows} & (set(SUPERCLASSES) - {"NORM"})


def test_the_source_letters_say_which_lists_hold_the_codes() -> None:
    sph = set(load_sources()["sph"].codes)
    for cells in read_table(TABLES / "crosswalk.csv").rows:
        held = {
            "P": cells["scp"],
            "C": cells["snomed"] if cells["class"] != "NORM" else "",
            "A": cells["aha"],
        }
        used = {"S": sph & set(cells["aha"].split(";"))}
        assert cells["source"] == "".join(
            letter for letter, codes in {**held, **used}.items() if codes
        ), cells["class"]


def test_ptbxl_statements_have_their_superclass_and_form_only_ones_the_medical_one() -> None:
    official = load_task("superclass")
    ours = {code: row.superclasses for code, row in known_codes("scp").items()}
    assert {
        code: names for code, names in ours.items() if names != (official[code],) and names
    } == dict.fromkeys(["STD_", "STE_", "NT_", "TAB_", "INVT", "LOWT"], ("STTC",))
    assert all(ours[code] == (name,) for code, name in official.items() if name)


def test_the_table_knows_every_code_of_the_challenge() -> None:
    if not CHALLENGE_LISTS.is_dir():
        pytest.skip(
            "the Challenge's code lists are not at hand (no shared/tables beside the project)"
        )
    lists = {}
    for name in ("scored", "unscored"):
        text = (CHALLENGE_LISTS / f"challenge2021_dx_mapping_{name}.csv").read_text(
            encoding="utf-8"
        )
        lists[name] = list(csv.DictReader(text.splitlines()))
    codes = {row["SNOMEDCTCode"] for rows in lists.values() for row in rows}
    assert codes <= set(known_codes("snomed"))
    assert {row["SNOMEDCTCode"] for row in lists["scored"]} == {
        code for row in load_crosswalk() for code in row.scored
    }
    columns = {
        "cpsc": "CPSC",
        "cpsc_extra": "CPSC_Extra",
        "incart": "StPetersburg",
        "ptb": "PTB",
        "ptbxl_snomed": "PTB_XL",
    }
    columns |= {"georgia": "Georgia", "chapman": "Chapman_Shaoxing", "ningbo": "Ningbo"}
    for source, column in columns.items():
        used = {row["SNOMEDCTCode"] for rows in lists.values() for row in rows if int(row[column])}
        assert set(load_sources()[source].codes) == used, source


def test_all_problems_of_a_table_are_reported_with_their_rows(tmp_path: Path) -> None:
    header = "class,name,superclass,alone,scp,snomed,aha,cpsc2018,challenge2017,scored2021\n"
    table = write(
        tmp_path / "t.csv", header + "AF,a,XX,,AFIB,1;1,,,,2\nB,b,,C,AFIB,,,,,\nAF,c,CD,,,,,,,\n"
    )
    with pytest.raises(CrosswalkError) as caught:
        load_crosswalk(table)
    assert caught.value.problems == [
        "row 2, column scored2021, value '2': is not among the row's snomed codes",
        "row 2, column snomed, value '1': is repeated, also in this row",
        (
            "row 2, column superclass, value 'XX': expected NORM, MI, STTC, CD, HYP, with ? "
            "where it is open"
        ),
        "row 3, column alone, value 'C': is no class",
        "row 3, column scp, value 'AFIB': is repeated, also in row 2",
        "row 4, column class, value 'AF': is repeated, also in row 2",
        "row 4, column scp, value '': no code in any of scp, snomed, aha, cpsc2018, challenge2017",
    ]


@pytest.mark.parametrize("content", [None, "class,name\nAF,x\n"])
def test_a_table_that_is_not_one_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "t.csv"
    if content is not None:
        write(path, content)
    with pytest.raises(ValueError, match=r"cannot be read|are missing: found class, name"):
        load_crosswalk(path)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("733534002", "164909002"),
        ("713427006", "59118001"),
        ("284470004", "63593006"),
        ("427172004", "17338001"),
    ],
)
def test_equivalent_pairs_are_one_class(first: str, second: str) -> None:
    for target in ("crosswalk", "challenge2021"):
        assert (
            translate([first, second], "snomed", target).labels
            == translate([second], "snomed", target).labels
        )
        assert len(translate([first], "snomed", target).labels) == 1


@pytest.mark.parametrize(
    ("codes", "vocabulary"),
    [
        (["CRBBB"], "scp"),
        (["59118001"], "snomed"),
        (["106"], "aha"),
        (["5"], "cpsc2018"),
        (["RBBB"], OWN_NAMES),
    ],
)
def test_four_vocabularies_meet_in_one_class(codes: list[str], vocabulary: str) -> None:
    assert translate(codes, vocabulary).labels == ("RBBB",)
    assert translate(codes, vocabulary, "challenge2021").labels == ("RBBB",)
    assert translate(codes, vocabulary, "ptbxl_superclass").labels == ("CD",)


def test_unknown_codes_are_counted_and_known_ones_told_apart() -> None:
    result = translate(["164889003", "12345", "12345", "164873001"], "snomed", "challenge2021")
    assert result.labels == ("AF",)
    assert result.unknown == Counter({"12345": 2})
    assert result.outside == Counter({"164873001": 1})  # hypertrophy is known, and not scored


def test_ventricular_ectopics_are_pvc_but_not_scored() -> None:
    assert translate(["164884008"], "snomed").labels == ("PVC",)
    assert translate(["164884008"], "snomed", "challenge2021").labels == ()


@pytest.mark.parametrize(
    ("codes", "vocabulary", "labels"),
    [
        (["NORM", "SR"], "scp", ("NORM",)),
        (["NORM", "IRBBB"], "scp", ("NORM", "CD")),  # PTB-XL writes it so
        (["426783006"], "snomed", ("NORM",)),
        (["426177001", "427393009"], "snomed", ("NORM",)),
        (["426783006", "164889003"], "snomed", ()),  # a finding outside the superclasses
        (["426783006", "99"], "snomed", ()),
        (["370365005"], "snomed", ("STTC", "HYP")),
        ([], "snomed", ()),
    ],
)
def test_superclasses(codes: list[str], vocabulary: str, labels: tuple[str, ...]) -> None:
    assert translate(codes, vocabulary, "ptbxl_superclass").labels == labels


def test_a_normal_ecg_that_stands_alone_is_a_sinus_rhythm() -> None:
    assert translate(["1"], "aha", "challenge2021").labels == ("NSR",)
    assert translate(["NORM", "AFIB"], "scp", "challenge2021").labels == ("AF",)


def test_named_sets_and_unknown_names() -> None:
    assert [len(load_class_set(name).classes) for name in SET_NAMES] == [
        5,
        26,
        len(load_crosswalk()),
        5,
    ]
    with pytest.raises(
        ValueError,
        match="'snomed5': expected ptbxl_superclass, challenge2021, crosswalk, aami, or a CSV",
    ):
        load_class_set("snomed5")
    with pytest.raises(ValueError, match="vocabulary 'icd' is unknown: expected scp, snomed"):
        translate(["1"], "icd")


def test_a_user_set_by_code_and_by_class(tmp_path: Path) -> None:
    by_code = load_class_set(
        write(
            tmp_path / "a.csv",
            "code,vocabulary,class\n164889003,snomed,FIB\nmy fib,csv,FIB\n9876,aha,X\n",
        )
    )
    assert by_code.classes == ("FIB", "X")
    assert translate(["my fib"], OWN_NAMES, by_code).labels == ("FIB",)
    assert translate(["9876"], "aha", by_code).labels == ("X",)
    by_class = load_class_set(
        write(tmp_path / "b.csv", "class,codes\nFIB,AF;AFLT\nblock,aha:104;59118001\n")
    )
    assert translate(["50"], "aha", by_class).labels == ("FIB",)
    assert translate(["AFLT"], "scp", by_class).labels == ("FIB",)
    assert (
        translate(["104"], "aha", by_class).labels
        == translate(["59118001"], "snomed", by_class).labels
        == ("block",)
    )


def test_all_problems_of_a_user_set_are_reported_with_their_rows(tmp_path: Path) -> None:
    table = write(tmp_path / "b.csv", "class,codes\nFIB,AF\nB,AFIB;5\n,what\nC,\nD,icd:3\n")
    with pytest.raises(CrosswalkError) as caught:
        load_class_set(table)
    rows = [problem.split(",")[0] for problem in caught.value.problems]
    assert rows == ["row 3", "row 3", "row 4", "row 4", "row 5", "row 6"]
    assert "scp code 'AFIB': is repeated, also in row 2" in str(caught.value)
    assert (
        "value '5': is no class, SCP-ECG or SNOMED CT code of the crosswalk: write its "
        "vocabulary before it"
    ) in str(caught.value)
    with pytest.raises(ValueError, match="columns code are missing: found class, name"):
        load_class_set(write(tmp_path / "c.csv", "class,name\nA,1\n"))


def test_tables_are_part_of_the_package() -> None:
    assert {path.name for path in TABLES.glob("*.csv")} == {
        "aami.csv",
        "chapman_acronyms.csv",
        "crosswalk.csv",
        "ludb_phrases.csv",
        "mimic_phrases.csv",
        "ptbxl_statements.csv",
        "sources.csv",
    }
    assert all(code for vocabulary in VOCABULARIES for code in known_codes(vocabulary))


def test_a_table_of_many_problems_shows_the_first(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("class,codes\n" + "A,aha:1\n" * 1001)
    with pytest.raises(CrosswalkError, match=r"csv: 1000 problems") as error:
        load_class_set(tmp_path / "c.csv")
    lines = str(error.value).splitlines()
    assert len(lines) == 22 and lines[-1] == "  ... and 980 more"
    assert len(error.value.problems) == 1000
