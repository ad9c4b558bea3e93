from __future__ import annotations

import time
import unicodedata
from pathlib import Path

import pytest

from src.labels.mapping import LabelRow
from src.labels.matching import match_folder, match_records
from src.records.folders import FolderIndex, FoundRecord, PassedOver
from src.records.formats.unread import Unread


def found(*paths: str) -> list[FoundRecord]:
    return [FoundRecord(path, Path(path).stem) for path in paths]


def row(record_id: str, path: str = "") -> LabelRow:
    return LabelRow("d", record_id, ("AF",), path=path)


@pytest.mark.parametrize(
    ("record_id", "file"),
    [
        ("rec1", "rec1.hea"),
        ("rec1.hea", "a/b/rec1.hea"),
        ("rec1.mat", "rec1.hea"),
        ("rec1.dat", "rec1.hea"),
        ("b/rec1", "a/b/rec1.hea"),
        ("x/y/rec1", "rec1.hea"),
        ("REC1", "rec1.hea"),
        ("rec1", "REC1.HEA"),
        ("b\\rec1.mat", "b/rec1.mat"),
        ("00001", "00001_hr.hea"),
        ("00001_lr", "records/00001.hea"),
        ("1", "00001_lr.hea"),
        ("HR00001", "HR1.mat"),
        ("./rec1", "rec1.hea"),
    ],
)
def test_a_row_finds_its_file_in_every_spelling(record_id: str, file: str) -> None:
    matches = match_records([row(record_id)], found(file, "unrelated_7.hea"))
    matched = {m.found.relative: m.row for m in matches.records}
    assert matched[file] is not None and matched["unrelated_7.hea"] is None
    assert matches.missing == ()


def test_records_without_a_row_and_rows_without_a_record() -> None:
    matches = match_records([row("gone")], found("a.hea"))
    assert [(m.record_id, m.row) for m in matches.records] == [("a", None)]
    assert [(r.record_id, reason) for r, reason in matches.missing] == [
        ("gone", "no file of this name in the folder")
    ]


def test_an_ambiguous_match_is_reported_and_not_guessed() -> None:
    matches = match_records([row("1")], found("00001_hr.hea", "00001_lr.hea"))
    assert all(m.row is None for m in matches.records)
    assert "ambiguous: '1' matches 2 records (00001_hr.hea, 00001_lr.hea)" in matches.missing[0][1]


def test_two_rows_for_one_file_are_reported() -> None:
    matches = match_records([row("1"), row("01")], found("001.hea"))
    assert matches.records[0].row is None
    assert (
        all("all match 001.hea" in reason for _, reason in matches.missing)
        and len(matches.missing) == 2
    )


def test_an_exact_name_wins_over_a_looser_one() -> None:
    matches = match_records([row("a1"), row("A1")], found("a1.hea", "A1.hea", "a01.hea"))
    assert {m.found.relative: m.row.record_id if m.row else None for m in matches.records} == {
        "a1.hea": "a1",
        "A1.hea": "A1",
        "a01.hea": None,
    }


def test_folders_decide_between_equal_names_and_ids_stay_apart() -> None:
    matches = match_records(
        [row("root/p1/x"), row("root/p2/x")], found("p1/x.hea", "p2/x.hea", "y.hea")
    )
    assert {m.record_id: m.row.record_id if m.row else None for m in matches.records} == {
        "p1-x": "root/p1/x",
        "p2-x": "root/p2/x",
        "y": None,
    }


def test_the_path_column_comes_before_the_id() -> None:
    matches = match_records([row("anything", path="p2/x.hea")], found("p1/x.hea", "p2/x.hea"))
    assert [m.found.relative for m in matches.records if m.row] == ["p2/x.hea"]


def test_a_file_that_two_rows_claim_is_not_left_to_a_looser_name() -> None:
    matches = match_records([row("a"), row("a.hea"), row("A")], found("a.hea"))
    assert matches.records[0].row is None and len(matches.missing) == 3


def test_a_row_of_floats_and_of_another_unicode_form_finds_its_file() -> None:
    records = found("0003.hea", "re\u0301c.hea")
    matches = match_records([row("3.0"), row("r\u00e9c\u200b")], records)
    assert [match.row.record_id for match in matches.records if match.row] == [
        "3.0",
        "r\u00e9c\u200b",
    ]


def test_names_that_a_file_system_takes_for_one_get_two_ids() -> None:
    matches = match_records([], found("re\u0301c.hea", "r\u00e9c.hea", "b\u200b.hea", "b.hea"))
    ids = {unicodedata.normalize("NFC", match.record_id) for match in matches.records}
    assert len(ids) == 4 and all("~" in record_id for record_id in ids)


def test_many_records_of_one_name_are_matched_in_linear_time() -> None:
    records = found(*(f"p{i:05d}/ecg.hea" for i in range(4000)))
    rows = [row(f"p{i}", f"data/p{i:05d}/ecg.hea") for i in range(4000)]
    began = time.process_time()
    matches = match_records(rows, records)
    assert all(match.row for match in matches.records)
    assert time.process_time() - began < 5


def test_a_reason_lists_few_of_many_claims() -> None:
    matches = match_records([row(f"r{i}", "a.hea") for i in range(500)], found("a.hea"))
    assert len(matches.missing) == 500
    assert "and 490 more" in matches.missing[0][1] and len(matches.missing[0][1]) < 300


def test_a_row_of_a_file_that_is_not_read_does_not_say_that_it_is_missing() -> None:
    def passed_over(path: str, *, is_recording: bool) -> PassedOver:
        unread = Unread("is not read", is_recording=is_recording)
        return PassedOver(path, Path(path).stem, unread)

    index = FolderIndex(
        tuple(found("good.hea", "1.2.840.7")),
        (
            passed_over("p/philips.xml", is_recording=True),
            passed_over("q/philips.xml", is_recording=True),
            passed_over("good/good.pdf", is_recording=False),
            passed_over("named.pdf", is_recording=False),
        ),
    )
    rows = [row("p/philips"), row("named"), row("lost"), row("good"), row("1.2.840.7")]
    matches = match_folder(rows, index)
    assert [match.row and match.row.record_id for match in matches.records] == ["good", "1.2.840.7"]
    assert matches.missing == ((rows[2], "no file of this name in the folder"),)
    assert [(item.record_id, item.file.relative, item.row) for item in matches.unread] == [
        ("p/philips", "p/philips.xml", rows[0]),
        ("philips", "q/philips.xml", None),
        ("named", "named.pdf", rows[1]),
    ]


def test_a_file_of_any_suffix_is_matched_by_its_stem() -> None:
    records = [FoundRecord("a/rec1.bin", "rec1"), FoundRecord("IM0001", "IM0001")]
    matches = match_records([row("rec1"), row("IM0001")], records)
    assert not matches.missing
    assert not match_records([row("rec1.bin")], records).missing
