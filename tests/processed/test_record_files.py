from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src.processed.record_files import (
    key_parts,
    load_record_file,
    load_signal,
    record_key,
    record_keys,
    record_path,
    rename_earlier_files,
    to_millivolts,
)


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


def test_no_two_records_share_a_key_or_a_file() -> None:
    pairs = [
        (dataset, record) for dataset in ("a", "a_", "_", "a_b") for record in ["b", "_b", "__b"]
    ]
    pairs += [("a", ":__b"), ("a_", ":__b"), ("a", ":_b")]
    keys = [record_key(*pair) for pair in pairs]
    assert list(map(key_parts, keys)) == pairs
    assert len({record_path("p", key).name.casefold() for key in keys}) == len(pairs)
    assert record_key("a", "b") == "a__b" and record_key("a_", "b") == "a_:__b"
    frame = pd.DataFrame(pairs, columns=["dataset", "record_id"], dtype=str)
    assert record_keys(frame).tolist() == keys


def test_a_name_made_to_look_shortened_is_not_that_of_the_long_one() -> None:
    long = "a__" + "x" * 300
    forged = record_path("p", long).name.removesuffix(".npz")
    assert record_path("p", forged).name != record_path("p", long).name


def test_files_of_an_earlier_version_are_found_and_get_their_name(tmp_path: Path) -> None:
    records = tmp_path / "records"
    records.mkdir()
    path = records / "a___b.npz"

    def write(dataset: str, record_id: str) -> None:
        np.savez(path, dataset=np.array(dataset), record_id=np.array(record_id))

    ours, other = record_key("a_", "b"), record_key("a", "_b")
    write("a", "_b")  # the file of another record
    assert record_path(tmp_path, ours) != path == record_path(tmp_path, other)
    rename_earlier_files(tmp_path, [ours, other])
    assert path.exists()
    write("a_", "b")
    assert record_path(tmp_path, ours) == path
    rename_earlier_files(tmp_path, [ours, other])
    assert not path.exists() and record_path(tmp_path, ours).name == "a_%3A__b.npz"
    assert record_path(tmp_path, ours).exists()


@pytest.mark.parametrize("name", ["signal", "lead_std", "fs"])
def test_a_record_file_of_doubles_is_named(processed: Path, tmp_path: Path, name: str) -> None:
    arrays = load_record_file(next((processed / "records").glob("*.npz")))
    np.savez(tmp_path / "r.npz", **{**arrays, name: arrays[name].astype(np.float64)})
    with pytest.raises(ValueError, match=f"r.npz: .*{name} is float64: expected float32"):
        load_record_file(tmp_path / "r.npz")
