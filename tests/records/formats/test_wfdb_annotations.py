"""Annotation files: hand-made ones, those that wfdb writes, and real ones, compared with wfdb."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from settings import ROOT

from src.records.formats.wfdb_annotations import MAX_BYTES, SYMBOLS, read_annotations
from src.records.record import RecordError

REAL = sorted((ROOT / "data/real").glob("*/*.atr"))


def word(code: int, value: int) -> bytes:
    return struct.pack("<H", (code << 10) + value)


def note(text: bytes) -> bytes:
    return word(63, len(text)) + text + b"\0" * (len(text) % 2)


# (N at sample 5, N at 105, V with subtype -1 at 70,105 (after a jump of 70,000), then the end
HAND_MADE = (
    word(28, 5)
    + note(b"(N\0")
    + word(1, 100)
    + word(59, 0)
    + struct.pack("<HH", 1, 70_000 - 2**16)
    + word(5, 0)
    + word(61, 255)
    + word(62, 1)
    + word(0, 0)
)


def write(folder: Path, raw: bytes) -> Path:
    (folder / "r.atr").write_bytes(raw)
    return folder / "r.atr"


def test_a_hand_made_file(tmp_path: Path) -> None:
    read = read_annotations(write(tmp_path, HAND_MADE))
    assert read.samples.tolist() == [5, 105, 70_105]
    assert read.symbols == ["+", "N", "V"]
    assert (read.subtypes.tolist(), read.notes, read.fs) == ([0, 0, -1], {0: "(N"}, None)


def test_symbols_are_those_of_wfdb() -> None:
    table = pytest.importorskip("wfdb").io.annotation.ann_label_table
    expected = dict(zip(table["label_store"], table["symbol"], strict=True))
    assert expected == {**SYMBOLS, 0: " "}


def assert_same(path: Path) -> None:
    wfdb = pytest.importorskip("wfdb")
    expected = wfdb.rdann(str(path.with_suffix("")), path.suffix[1:])
    read = read_annotations(path)
    assert read.samples.tolist() == expected.sample.tolist()
    assert read.symbols == expected.symbol
    assert read.subtypes.tolist() == expected.subtype.tolist()
    notes = [read.notes.get(i, "") for i in range(len(expected.sample))]
    assert notes == [text.partition("\0")[0].strip() for text in expected.aux_note]


def test_a_file_that_wfdb_writes(tmp_path: Path) -> None:
    wfdb = pytest.importorskip("wfdb")
    wfdb.wrann(
        "r",
        "atr",
        np.array([0, 7, 5000, 2_000_000]),
        symbol=["+", "N", "~", "X"],
        subtype=np.array([0, 0, -1, 3]),
        aux_note=["(AFIB", "", "", ""],
        custom_labels=[(45, "X", "own")],
        fs=250,
        write_dir=str(tmp_path),
    )
    read = read_annotations(tmp_path / "r.atr")
    assert read.samples.tolist() == [0, 7, 5000, 2_000_000]
    assert (read.symbols, read.fs, read.notes) == (["+", "N", "~", ""], 250.0, {0: "(AFIB"})


@pytest.mark.parametrize("path", REAL, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_real_files_are_read_as_wfdb_reads_them(path: Path) -> None:
    assert_same(path)


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"", "has 0 bytes: expected annotations in words of 16 bits, ending in 0"),
        (HAND_MADE[:-1], "bytes: expected annotations in words of 16 bits"),
        (HAND_MADE[:-2], "ends without a word of 0: expected the whole file"),
        (HAND_MADE[:12], "annotation 3: the file ends inside a jump in time"),
        (word(28, 5) + word(63, 200), "annotation 2: the file ends inside a text"),
        (note(b"(N"), "annotation 1: a text comes before any annotation"),
        (word(61, 1), "annotation 1: a subtype comes before any annotation"),
        (
            word(1, 9) + word(59, 0) + struct.pack("<HH", 0xFFFF, 0xFFF0) + word(1, 0),
            "annotation 2: lies at sample -7, before 9: expected annotations in the order of time",
        ),
        (
            word(22, 0) + note(b"## time resolution: 0.0.1") + word(0, 0),
            "its time resolution is '0.0.1': expected 1 to 1e+06 Hz",
        ),
    ],
)
def test_damaged_files_are_refused_with_the_place(raw: bytes, problem: str, tmp_path: Path) -> None:
    with pytest.raises(RecordError) as error:
        read_annotations(write(tmp_path, raw))
    assert problem in str(error.value) and str(error.value).startswith(f"{tmp_path}/r.atr: ")


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "r.atr")
    for path in (tmp_path / "r.atr", tmp_path, tmp_path / "none.atr"):
        with pytest.raises(RecordError):
            read_annotations(path)
    with pytest.raises(RecordError, match="expected at most"):
        read_annotations(write_large(tmp_path / "large.atr"))


def write_large(path: Path) -> Path:
    path.write_bytes(bytes(MAX_BYTES + 2))
    return path
