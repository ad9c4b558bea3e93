from __future__ import annotations

from pathlib import Path

import pytest

from src.labels.text_tables import read_table


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_marks_and_line_ends(tmp_path: Path, encoding: str, end: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(f"Id,Name{end}1,Müller{end}".encode(encoding))
    assert read_table(path, ["ID"]).rows == ({"id": "1", "name": "Müller"},)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_quotes_and_blank_rows(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "t.csv"
    text = '"id" , label,note\n1,"a;b%c|d","two\nlines"\n\n,,\n2, x\n'
    path.write_text(text.replace(",", delimiter).replace("%", ","), encoding="utf-8")
    table = read_table(path)
    assert table.header == ("id", "label", "note")
    assert table.rows == (
        {"id": "1", "label": "a;b,c|d", "note": "two\nlines"},
        {"id": "2", "label": "x", "note": ""},
    )
    assert table.numbers == (2, 5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "columns id are missing: found none"),
        (b"a,b\n1,2\n", "columns id are missing: found a, b"),
        (b"id,ID\n1,2\n", "columns id are repeated"),
        (b"id,b\n1,2,3\n", "row 2 has more cells than the header"),
        ("id\nMüller\n".encode("latin-1"), "not UTF-8 at byte 4"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "t.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_table(path, ["id"])
