"""Philips Sierra XML against the package sierraecg, and against values worked out by hand."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
from fuzz.seeds import PHILIPS_LEADS, pack_lzw, pack_xli, philips_xml

from src.records.folders import index_folder
from src.records.formats.xli import unpack_lzw
from src.records.reading import iter_records, read_record
from src.records.record import RecordError

REAL = sorted((Path(__file__).parents[3] / "data/real/vendor_xml").glob("philips*.xml"))
RNG = np.random.default_rng(61)
N = 600
STORED = RNG.integers(-30, 30, (7, N)).cumsum(axis=1)


def named(encoding: str = "Base64", method: str = "XLI", n: int = N, leads: int = 7) -> str:
    labels = " ".join(PHILIPS_LEADS[:leads])
    return (
        f'dataencoding="{encoding}" compression="{method}" numberofleads="{leads}" '
        f'leadlabels="{labels}" samplespersecond="500" resolution="5" durationperchannel="{2 * n}"'
    )


def write(
    folder: Path, attributes: str, samples: object, version: str = "1.04", encoding: str = "utf-8"
) -> Path:
    if isinstance(samples, bytes):
        samples = base64.b64encode(samples).decode()
    (folder / "p.xml").write_bytes(philips_xml(attributes, str(samples), version).encode(encoding))
    return folder / "p.xml"


def xli(stored: np.ndarray) -> bytes:
    return b"".join(map(pack_xli, stored))


def restored(stored: np.ndarray) -> np.ndarray:
    """The limb leads by the definition, sample by sample."""
    rows = stored.tolist()
    for k in range(len(rows[0])):
        one, two = rows[0][k], rows[1][k]
        rows[2][k] = three = two - one - rows[2][k]
        rows[3][k] = -rows[3][k] - (one + two) // 2
        rows[4][k] = (one - three) // 2 - rows[4][k]
        rows[5][k] = (two + three) // 2 - rows[5][k]
    return np.array(rows)


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_real_exports_equal_those_of_sierraecg(path: Path) -> None:
    sierraecg = pytest.importorskip("sierraecg")
    theirs = sierraecg.read_file(str(path))
    record = read_record(path)
    expected = np.stack([lead.samples for lead in theirs.leads]) * 5e-3
    # Within 1 uV; what theirs has more is the calibration pulse of 1 mV.
    np.testing.assert_allclose(record.signal, expected[:, : record.n_samples], atol=1e-3)
    assert np.unique(expected[:, record.n_samples :]).tolist() == [0.0, 1.0]
    assert record.leads == tuple(lead.label for lead in theirs.leads)
    assert record.fs == theirs.leads[0].sampling_freq == 500


@pytest.mark.parametrize(
    ("name", "codes", "age", "sex"),
    [
        ("philips_104", ("SR", "LVHCNP", "STELVH"), 60.0, "male"),
        ("philips_10401", ("SR", "ET"), 69.0, None),
    ],
)
def test_statements_and_patients_of_real_exports(
    name: str, codes: tuple[str, ...], age: float, sex: str | None
) -> None:
    path = next((path for path in REAL if path.stem == name), None)
    if path is None:
        pytest.skip("the recordings are not here")
    record = read_record(path)
    assert (record.codes, record.age, record.sex) == (codes, age, sex)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_compressed_limb_leads_are_restored_from_differences(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path, named(), xli(STORED), encoding=encoding)
    record = read_record(path)
    np.testing.assert_allclose(record.signal, restored(STORED) * 0.005, rtol=1e-6)
    assert (record.record_id, record.fs, record.leads) == ("p", 500.0, PHILIPS_LEADS)
    assert (record.codes, record.sex, record.patient_id) == (("SR",), "male", "P-3")
    # Born on 20 January 1950, recorded on 19 January 2010
    assert (record.age, record.flags) == (59.0, ())
    assert [window.n_samples for window in iter_records(path, window_s=0.5)] == [250, 250]


def test_version_103_names_no_leads(tmp_path: Path) -> None:
    attributes = (
        'dataencoding="Base64" compressflag="True" compressmethod="XLI" durationperchannel="1200"'
    )
    record = read_record(write(tmp_path, attributes, xli(STORED), "1.03"))
    np.testing.assert_allclose(record.signal, restored(STORED) * 0.005, rtol=1e-6)
    assert (record.leads, record.codes) == (PHILIPS_LEADS, ("Sinus bradycardia",))
    assert (record.age, record.fs) == (50.0, 500.0)


def test_plain_samples_are_used_as_they_are_unless_they_are_differences(tmp_path: Path) -> None:
    whole = restored(np.vstack([STORED[:2], np.zeros((4, N), int), STORED[6:]]))
    plain = " ".join(map(str, whole.ravel()))
    record = read_record(write(tmp_path, named("Plain", "Uncompressed"), plain))
    np.testing.assert_allclose(record.signal, whole * 0.005, rtol=1e-6)
    raw = whole.astype("<i2").tobytes()
    record = read_record(write(tmp_path, named("Base64", "Uncompressed"), raw))
    np.testing.assert_allclose(record.signal, whole * 0.005, rtol=1e-6)
    assert record.flags == ()
    stored = np.vstack([STORED[:2], RNG.integers(-1, 2, (4, N)), STORED[6:]])
    raw = stored.astype("<i2").tobytes()
    record = read_record(write(tmp_path, named("Base64", "Uncompressed"), raw))
    np.testing.assert_allclose(record.signal, restored(stored) * 0.005, rtol=1e-6)
    assert record.flags == ("limb_leads_were_differences",)


def test_a_calibration_pulse_at_the_end_is_left_off(tmp_path: Path) -> None:
    pulse = np.repeat([0, 200, 0], [40, 100, 60])
    counts = np.hstack([STORED[[0, 1, 6]], np.tile(pulse, (3, 1))])
    attributes = named("Base64", "Uncompressed", N + 200, 3).replace("I II III", "I II V1")
    record = read_record(write(tmp_path, attributes, counts.astype("<i2").tobytes()))
    np.testing.assert_allclose(record.signal[:3], STORED[[0, 1, 6]] * 0.005, rtol=1e-6)
    limbs = ("III", "aVR", "aVL", "aVF")
    assert record.flags == (
        "calibration_pulse_removed:0.4s",
        *(f"derived:{name}" for name in limbs),
    )


def test_lzw_gives_back_what_was_packed() -> None:
    for content in (b"aaaaaaaaaaaaaaa", bytes(9000), RNG.bytes(5000), b"abcabcabcabc" * 99):
        assert unpack_lzw(pack_lzw(content), len(content)) == content
    # 'a', then the code that is about to be made: aa; then one that is not
    assert unpack_lzw(bits(97, 256, 1023), 9) == b"aaa"
    assert unpack_lzw(bits(97, 258), 9) is None


def bits(*codes: int) -> bytes:
    text = "".join(f"{code:010b}" for code in codes)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


@pytest.mark.parametrize(
    ("attributes", "samples", "expected"),
    [
        (named(), xli(STORED[:6]), "holds the samples of 6 of its 7 leads"),
        (named(n=N + 1), xli(STORED), "lead 1 holds 600 samples, its facts promise 601"),
        (named(n=N - 9), xli(STORED), "its facts promise 591"),
        (named(), b"\xff\xff\xff\x7f\0\0\0\0", "lead 1 claims 2147483647 bytes, 0 are left"),
        (named(), b"\4\0\0\0\0\0\0\0\x80\x80\x80\x80", "lead 1 holds damaged codes"),
        (named(), "???", "is not valid base64"),
        (named("Hex"), "00", "samples are Hex, XLI: expected Base64 or Plain"),
        (named("Plain", "Uncompressed"), "1 2 3", "holds 3 samples, its facts promise 4200"),
        (named("Plain", "Uncompressed"), "1 2 x", "digits that are not numbers"),
        (named(n=10**9), "", "expected one recording"),
        (named().replace('"500"', '"x"'), "", "has rate 'x' and resolution '5'"),
        (named().replace('"7"', '"9"'), "", "names 7 of its 9 leads"),
        (named() + ' bitspersample="12"', "", "has bitspersample 12: expected 16"),
    ],
)
def test_bad_files_give_one_clear_error(
    tmp_path: Path, attributes: str, samples: object, expected: str
) -> None:
    with pytest.raises(RecordError, match=expected):
        read_record(write(tmp_path, attributes, samples))


def test_exports_are_found_in_a_folder(tmp_path: Path) -> None:
    write(tmp_path, named(), xli(STORED), encoding="utf-16")
    assert [found.stem for found in index_folder(tmp_path)] == ["p"]
