from __future__ import annotations

import csv
import os
import time
from pathlib import Path

import pandas as pd
import pytest

from src.labels.text_tables import map_cells, plain_cell, read_table, safe_cell, save_frame


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


@pytest.mark.parametrize("header", ["id,ID", "id, id ", "é,e\u0301", "a\u200b,a", "a\ufeff;A"])
def test_columns_that_read_alike_are_refused(tmp_path: Path, header: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"{header}\n1,2\n", encoding="utf-8")
    with pytest.raises(ValueError, match="are repeated in the header"):
        read_table(path)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "sparse", "hole", "line"])
def test_files_that_are_no_tables_are_refused_at_once(tmp_path: Path, kind: str) -> None:
    """A hole is a part of a file that takes no space on the disk; a line has no end."""
    path = tmp_path / "t.csv"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_text("id,x\n1,2\n" if kind != "line" else "x," * 100_000)
        sizes = {"sparse": 2**36, "hole": 2**28}
        os.truncate(path, sizes.get(kind, path.stat().st_size))
    began = time.process_time()
    with pytest.raises(ValueError, match=r"t\.csv: .*expected"):
        read_table(path)
    assert time.process_time() - began < 0.5


def test_rows_that_are_far_shorter_than_the_header_are_refused(tmp_path: Path) -> None:
    """Each row gets all columns: 20,000 rows of one cell would become 100 million."""
    (tmp_path / "t.csv").write_text(",".join(f"c{i}" for i in range(5000)) + "\n" + "a\n" * 20_000)
    with pytest.raises(ValueError, match="far shorter than its header of 5000 columns"):
        read_table(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("x;=1", "x;'=1"),
        ("x\t+1", "x\t'+1"),
        ("x|@a", "x|'@a"),
        ("x\r\n-a", "x\r\n'-a"),
        ('x; "=1', "x;' \"=1"),
        ("\uff1dcmd", "'\uff1dcmd"),
        ("AF;-1", "AF;'-1"),
        ("x;'=1", "x;''=1"),
        ("x,=1", "x,=1"),
        ("a-b;c=d", "a-b;c=d"),
        ("-1.5", "-1.5"),
    ],
)
def test_no_part_of_a_cell_begins_a_formula(text: str, cell: str) -> None:
    assert safe_cell(text) == cell and plain_cell(cell) == text


def test_columns_of_cells_are_made_safe_and_come_back(tmp_path: Path) -> None:
    texts = ["NORM", "x;=1", " =1", "'", "a|b", "x\n=2", "-5"]
    frame = pd.DataFrame({"plain": ["a"] * len(texts), "risky": texts})
    save_frame(frame, tmp_path / "t.csv")
    # The last number is one in a spreadsheet too.
    for delimiter in ",;\t|":
        with open(tmp_path / "t.csv", encoding="utf-8", newline="") as stream:
            rows = list(csv.reader(stream, delimiter=delimiter))
        starts = [cell.lstrip(" '\"")[:1] for row in rows for cell in row if cell[:1] != "'"]
        assert not {"=", "+", "@"} & set(starts)
    read = pd.read_csv(tmp_path / "t.csv", dtype=str, keep_default_na=False)
    assert map_cells(read, plain_cell)["risky"].tolist() == texts
