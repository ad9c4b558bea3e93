from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fuzz.seeds import ishne

from src.records.reading import iter_records, read_record
from src.records.record import RecordError

RNG = np.random.default_rng(53)
N = 1000
COUNTS = RNG.integers(-900, 900, (N, 2)).astype("<i2")

GOOD = ishne(2, N, 200, (1000, 2500))


def write(folder: Path, head: bytes, counts: np.ndarray = COUNTS) -> Path:
    path = folder / "h.ecg"
    path.write_bytes(head + counts.tobytes())
    return path


def test_a_recording_in_millivolts(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    record = read_record(path)
    # 1000 nV and 2500 nV per unit
    np.testing.assert_allclose(record.signal, COUNTS.T * [[0.001], [0.0025]], rtol=1e-6)
    assert (record.record_id, record.fs, record.leads) == ("h", 200.0, ("II", "V1"))
    assert (record.age, record.sex, record.patient_id, record.flags) == (50, "female", "P-9", ())
    windows = list(iter_records(path, window_s=1.5))
    assert [window.n_samples for window in windows] == [300, 300, 300]
    np.testing.assert_array_equal(windows[2].signal, record.signal[:, 600:900])


def test_it_is_found_under_any_suffix(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    assert read_record(path.rename(tmp_path / "h.xyz")).n_samples == N


def test_a_changed_header_is_flagged(tmp_path: Path) -> None:
    head = bytearray(GOOD)
    head[30] ^= 1
    assert read_record(write(tmp_path, bytes(head))).flags == ("checksum_mismatch",)
    head[8:10] = b"\0\0"
    assert read_record(write(tmp_path, bytes(head))).flags == ()


def test_what_a_header_leaves_out_is_assumed_or_given(tmp_path: Path) -> None:
    path = write(tmp_path, ishne(0, N, 0, ()))
    record = read_record(path)
    np.testing.assert_allclose(record.signal, COUNTS.T / 1000, rtol=1e-6)
    assert (record.fs, record.leads) == (100.0, ("", ""))
    assert record.flags == ("n_leads_assumed:2", "fs_assumed", "unit_assumed:uV")
    record = read_record(path, source_fs=250, source_gain_per_mv=200)
    np.testing.assert_allclose(record.signal, COUNTS.T / 200, rtol=1e-6)
    assert (record.fs, record.flags) == (250.0, ("n_leads_assumed:2",))


@pytest.mark.parametrize("promised", [N, 2 * N, 0])
def test_samples_are_counted_by_lead_or_together(tmp_path: Path, promised: int) -> None:
    record = read_record(write(tmp_path, ishne(2, promised, 200, (1000, 1000))))
    assert record.signal.shape == (2, N)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (ishne(2, N + 1, 200, (1, 1)), "promises 1001 samples of 2 leads, 1000 are stored"),
        (GOOD[:156] + b"\x0d\0" + GOOD[158:], "has 13 leads: expected 1 to 12"),
        (GOOD[:22] + b"\x05\0\0\0" + GOOD[26:], "says that its samples begin at byte 5"),
        (b"ISHNE1.0", "says that its samples begin"),
    ],
)
def test_bad_files_give_one_clear_error(tmp_path: Path, head: bytes, expected: str) -> None:
    with pytest.raises(RecordError, match=expected):
        read_record(write(tmp_path, head))
