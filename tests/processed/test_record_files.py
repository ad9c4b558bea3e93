from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from src.processed.record_files import load_record_file, load_signal, record_path, to_millivolts


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"\x93NUMPY"])
def test_a_broken_record_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    for load in (load_record_file, load_signal):
        with pytest.raises(ValueError, match=r"a\.npz: not a record file"):
            load(tmp_path / "a.npz")


def test_voltages_come_back() -> None:
    arrays = {
        "signal": np.array([[1, -1, 0]], np.float32),
        "lead_std": np.array([2.0], np.float32),
        "lead_mean": np.array([5.0], np.float32),
        "n_valid": np.int32(2),
    }
    np.testing.assert_array_equal(to_millivolts(arrays), [[7, 3]])


def test_keys_that_a_file_system_refuses_are_escaped() -> None:
    assert record_path("p", "a__b").name == "a__b.npz"
    assert record_path("p", "a__../x:y").name == "a__..%2Fx%3Ay.npz"
    long = record_path("p", "a__" + "ü" * 300).name
    assert len(long.encode()) < 255 and long != record_path("p", "a__" + "ü" * 301).name
