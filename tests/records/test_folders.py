"""Records below a local folder; tests/records/test_remote.py has those at URLs."""

from __future__ import annotations

from pathlib import Path

import pytest

from src.records.folders import FoundRecord, index_folder, survey_folder


def test_index_takes_headers_before_bare_mats_and_follows_links_once(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in (
        "a.hea",
        "a.mat",
        "a.dat",
        "b.MAT",
        "notes.txt",
        ".hidden.hea",
        "sub/c.hea",
        "orphan.dat",
    ):
        (tmp_path / name).touch()
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    assert [(r.relative, r.stem) for r in index_folder(tmp_path)] == [
        ("a.hea", "a"),
        ("b.MAT", "b"),
        ("sub/c.hea", "c"),
    ]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gone: no such folder"):
        index_folder(tmp_path / "gone")


def test_links_that_lead_round_in_a_circle_are_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.hea").touch()
    (tmp_path / "loop.hea").symlink_to("loop.hea")
    (tmp_path / "one.hea").symlink_to("two.hea")
    (tmp_path / "two.hea").symlink_to("one.hea")
    (tmp_path / "gone.hea").symlink_to("nowhere.hea")
    (tmp_path / "again").symlink_to(".")
    assert [record.relative for record in index_folder(tmp_path)] == ["a.hea"]


def test_segments_of_a_record_are_no_records(tmp_path: Path) -> None:
    for name in ("m_1", "m_2", "alone"):
        (tmp_path / f"{name}.dat").write_bytes(bytes(400))
        (tmp_path / f"{name}.hea").write_text(
            f"{name} 1 100 200\n{name}.dat 16 100/mV 16 0 0 0 0 II\n"
        )
    (tmp_path / "m_layout.hea").write_text("m_layout 1 100 0\n~ 16 100/mV 16 0 0 0 0 II\n")
    (tmp_path / "m.hea").write_text("m/3 1 100 400\nm_layout 0\nm_1 200\nm_2 200\n")
    assert [record.relative for record in index_folder(tmp_path)] == ["alone.hea", "m.hea"]


def test_an_unreadable_file_of_many_is_one_record(tmp_path: Path) -> None:
    (tmp_path / "broken.h5").write_bytes(b"damaged")
    assert index_folder(tmp_path) == [FoundRecord("broken.h5", "broken")]


def test_xml_files_of_other_kinds_are_no_records(tmp_path: Path) -> None:
    (tmp_path / "notes.xml").write_text("<notes/>")
    (tmp_path / "a.hea").touch()
    assert index_folder(tmp_path) == [FoundRecord("a.hea", "a")]


SCHILLER = (
    '<?xml version="1.0" encoding="UTF-16"?><MeasurementRecord xmlns="x"></MeasurementRecord>'
)


def test_files_that_are_not_read_are_listed_with_their_reason(tmp_path: Path) -> None:
    files = {
        "a.hea": b"",
        "a.dat": b"x",
        "a.atr": b"x",
        "a.xml": b"<other/>",
        "p.xml": SCHILLER.encode("utf-16"),
        "pom.xml": b"<project/>",
        "b.gdf": b"GDF 2.20",
        "c.dat": b"x",
        "d.zip": b"PK\x03\x04",
        "e.csv": b"PK\x03\x04",
        "figure.png": b"\x89PNG",
        "README": b"text",
        ".hidden": b"x",
        "unknown.abc": b"12",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    index = survey_folder(tmp_path)
    assert index.records == (FoundRecord("a.hea", "a"),)
    listed = {file.relative: file.unread for file in index.passed_over}
    recordings = {name for name, unread in listed.items() if unread.is_recording}
    side_files = {name for name, unread in listed.items() if unread.is_side_file}
    assert recordings == {"p.xml", "b.gdf"}
    assert side_files == {"figure.png", "README", "c.dat"}
    assert listed.keys() - recordings - side_files == {"pom.xml", "d.zip", "e.csv", "unknown.abc"}
    assert "Schiller XML (root element MeasurementRecord)" in listed["p.xml"].reason
    assert listed["c.dat"].reason == "its header c.hea is not in the folder"
    assert listed["e.csv"].reason == "is a zip archive: unpack it"
