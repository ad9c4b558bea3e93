from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fuzz.seeds import cardiosoft_strip, cardiosoft_xml

from src.records.folders import index_folder
from src.records.reading import iter_records, read_record
from src.records.record import RecordError

ROWS = np.array([[100, -200, 0, -32768], [1, 2, 3, 4], [5, 6, 7, 8]])
LEADS = ("I", "II", "V1")


def write(folder: Path, strips: str, **replaced: str) -> Path:
    text = cardiosoft_xml(strips)
    for old, new in replaced.items():
        text = text.replace(old.replace("_", " "), new)
    (folder / "c.xml").write_bytes(text.encode("latin-1"))
    return folder / "c.xml"


def full_disclosure(order: str = "I,II,V1", values: str = "") -> str:
    values = values or ",".join(map(str, np.tile(ROWS, 3).T.ravel()))
    return (
        '<FullDisclosure><SampleRate units="Hz">100</SampleRate><Resolution units="uVperLsb">2.5'
        "</Resolution><NumberOfChannels>3</NumberOfChannels>"
        f"<LeadOrder>{order}</LeadOrder><FullDisclosureData>{values}</FullDisclosureData>"
        "</FullDisclosure>"
    )


def test_a_resting_recording_in_millivolts(tmp_path: Path) -> None:
    path = write(tmp_path, cardiosoft_strip(ROWS, LEADS))
    record = read_record(path)
    # 5 uV per unit
    expected = [[0.5, -1.0, 0.0, np.nan], [0.005, 0.01, 0.015, 0.02], [0.025, 0.03, 0.035, 0.04]]
    np.testing.assert_allclose(record.signal[:3], expected, atol=1e-6)
    assert (record.record_id, record.fs, record.leads[:3]) == ("c", 500.0, LEADS)
    assert (record.age, record.sex, record.patient_id) == (61.0, "female", "P-5")
    assert record.codes == ("Sinus rhythm",)
    assert record.flags == tuple(f"derived:{name}" for name in ("III", "aVR", "aVL", "aVF"))
    assert [found.stem for found in index_folder(tmp_path)] == ["c"]
    long = cardiosoft_strip(np.tile(ROWS, 200), LEADS)
    windows = list(iter_records(write(tmp_path, long), window_s=0.5))
    assert [window.n_samples for window in windows] == [250, 250, 250]


def test_the_fullest_of_strips_and_full_disclosure_is_read(tmp_path: Path) -> None:
    inner = cardiosoft_strip(ROWS, LEADS, "Strip")
    path = write(tmp_path, f"<StripData>{inner}{inner}</StripData>{full_disclosure()}")
    record = read_record(path)
    # 2.5 uV per unit, sample by sample
    expected = np.where(ROWS == -32768, np.nan, ROWS * 0.0025)
    np.testing.assert_allclose(record.signal[:3], np.tile(expected, 3), atol=1e-6)
    assert (record.fs, record.flags[0]) == (100.0, "strips:3")


def test_an_age_from_the_date_of_birth(tmp_path: Path) -> None:
    born = "<BirthDateTime><Year>1953</Year><Month>5</Month><Day>3</Day></BirthDateTime>"
    strip = cardiosoft_strip(ROWS, LEADS)
    path = write(tmp_path, strip, **{'<Age_units="years">61</Age>': born})
    # The day before the birthday
    assert read_record(path).age == 60.0


@pytest.mark.parametrize(
    ("strips", "expected"),
    [
        ("", "has 0 strips: expected StripData or FullDisclosure"),
        (
            cardiosoft_strip(ROWS, LEADS).replace(">4<", ">5<"),
            "lead I holds 4 samples, ChannelSampleCountTotal promises 5",
        ),
        (
            cardiosoft_strip(ROWS, LEADS).replace(">3<", ">4<"),
            "holds 3 leads, NumberOfLeads promises 4",
        ),
        (cardiosoft_strip(ROWS, LEADS).replace("uVperLsb", "mmHg"), "Resolution is '5' mmHg"),
        (cardiosoft_strip(ROWS, LEADS).replace(">500<", ">x<"), "SampleRate is 'x': expected Hz"),
        (cardiosoft_strip(ROWS, LEADS).replace("100,", "1oo,"), "lead I has digits that are not"),
        (full_disclosure(order="I,II"), "LeadOrder names 2 of 3 channels"),
        (full_disclosure(values="1,2,3,4"), "holds 4 values of 3 leads"),
    ],
)
def test_bad_files_give_one_clear_error(tmp_path: Path, strips: str, expected: str) -> None:
    with pytest.raises(RecordError, match=expected):
        read_record(write(tmp_path, strips))
