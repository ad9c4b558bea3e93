from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fuzz.seeds import mortara_xml

from src.records.folders import index_folder
from src.records.reading import read_record
from src.records.record import RecordError

ROWS = np.array([[100, -200, 0, -32768], [1, 2, 3, 4]])
LIMB = ("III", "aVR", "aVL", "aVF")
GOOD = mortara_xml(ROWS.astype("<i2"))


def write(folder: Path, text: str) -> Path:
    (folder / "m.xml").write_text(text)
    return folder / "m.xml"


def test_a_recording_in_millivolts(tmp_path: Path) -> None:
    record = read_record(write(tmp_path, GOOD))
    # 200 units per mV
    expected = [[0.5, -1.0, 0.0, np.nan], [0.005, 0.01, 0.015, 0.02]]
    np.testing.assert_allclose(record.signal[:2], expected, atol=1e-6)
    assert (record.record_id, record.fs, record.leads) == ("m", 500.0, ("I", "II", *LIMB))
    # Born on 15 May 1990, recorded on 1 December 2023
    assert (record.age, record.sex, record.patient_id) == (33.0, "male", "P-6")
    assert record.flags == tuple(f"derived:{name}" for name in LIMB)
    assert [found.stem for found in index_folder(tmp_path)] == ["m"]


@pytest.mark.parametrize(("bits", "kind"), [("8", "i1"), ("16", "<i2"), ("32", "<i4")])
def test_bits_and_offsets(tmp_path: Path, bits: str, kind: str) -> None:
    rows = np.array([[100, -100], [1, 2]]).astype(kind)
    path = write(tmp_path, mortara_xml(rows, f'OFFSET="50" BITS="{bits}"'))
    expected = [[0.75, -0.25], [0.255, 0.26]]
    np.testing.assert_allclose(read_record(path).signal[:2], expected, atol=1e-6)


def test_patients_in_labelled_fields(tmp_path: Path) -> None:
    fields = (
        '<DEMOGRAPHIC_FIELDS><DEMOGRAPHIC_FIELD LABEL="ID:" VALUE="P-9"/>'
        '<DEMOGRAPHIC_FIELD LABEL="Age&amp;yr" VALUE="47"/>'
        '<DEMOGRAPHIC_FIELD LABEL="Sex" VALUE="F"/></DEMOGRAPHIC_FIELDS>'
    )
    start = GOOD.index("<SUBJECT")
    end = GOOD.index("/>", start) + 2
    record = read_record(write(tmp_path, GOOD[:start] + fields + GOOD[end:]))
    assert (record.age, record.sex, record.patient_id) == (47.0, "female", "P-9")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("CHANNEL", "CHANEL", "has 0 CHANNEL: expected 1 to 1000"),
        ('"BASE64"', '"HEX"', "channel I is SIGNED HEX of 16 bits: expected SIGNED or UNSIGNED"),
        ('BITS="16"', 'BITS="12"', "of 12 bits"),
        ('DURATION="4"', 'DURATION="5"', "channel I holds 4 samples, DURATION promises 5"),
        ('UNITS_PER_MV="200"', 'UNITS_PER_MV="x"', "UNITS_PER_MV 'x' and OFFSET '0'"),
        ('SAMPLE_FREQ="500"', 'SAMPLE_FREQ="x"', r"channels have SAMPLE_FREQ \[0.0\]"),
        ('DATA="ZAA4', 'DATA="!!!!', "channel I is not valid base64"),
        ("<CHANNEL", "<x/><CHANNEL DURATION='1'", "not well-formed XML"),
    ],
)
def test_bad_files_give_one_clear_error(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert old in GOOD
    with pytest.raises(RecordError, match=expected):
        read_record(write(tmp_path, GOOD.replace(old, new)))
