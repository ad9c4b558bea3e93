from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from record_files import write_record_file

from src.processed import npz
from src.processed.manifest import MANIFEST_COLUMNS, Journal, ManifestRow, load_manifest
from src.processed.npz import Archive
from src.processed.record_files import load_record_file, load_signal, record_path, to_millivolts

ARRAYS = {
    "signal": np.random.default_rng(0).normal(size=(12, 500)).astype(np.float32),
    "lead_present": np.ones(12, bool),
    "label": np.array(["AF", "LBBB"]),
    "empty": np.array([], dtype=np.str_),
    "fs": np.float32(500),
    "record_id": np.array("rä1"),
    "remark": np.array("ä" * 400),
}


def test_plain_numpy_reads_what_was_written(tmp_path: Path) -> None:
    write_record_file(tmp_path / "a.npz", ARRAYS)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        for name, value in ARRAYS.items():
            np.testing.assert_array_equal(archive[name], value)
            assert archive[name].dtype == np.asarray(value).dtype
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert archive.testzip() is None
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_DEFLATED}
    np.testing.assert_array_equal(load_signal(tmp_path / "a.npz"), ARRAYS["signal"])


def test_equal_arrays_give_equal_bytes() -> None:
    arrays = {name: np.asarray(value) for name, value in ARRAYS.items()}
    assert (
        Archive(arrays).encode()
        == Archive({name: value.copy() for name, value in arrays.items()}).encode()
    )
    wide = np.arange(24_000, dtype=np.float32).reshape(12, 2000)
    assert (
        len(
            {
                Archive({"signal": signal}).encode()
                for signal in (wide[:, ::2], np.asfortranarray(wide[:, ::2]), wide[:, ::2].copy())
            }
        )
        == 1
    )


def test_a_file_that_takes_little_at_a_time_is_written_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(io.FileIO):
        def write(self, content: Any, /) -> int:
            return super().write(memoryview(content)[:100])

    archive = Archive({name: np.asarray(value) for name, value in ARRAYS.items()})
    with monkeypatch.context() as patch:
        patch.setattr(npz, "open", lambda path, mode, buffering: Slow(path, mode), raising=False)
        archive.write(tmp_path / "a.npz")
    assert (tmp_path / "a.npz").read_bytes() == archive.encode()


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


def test_the_journal_forgets_a_torn_last_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(
        [
            ManifestRow("d", "r1", status="ok", reason='has "quotes", commas\nand lines'),
            ManifestRow("d", "r2", status="ok"),
        ]
    )
    with open(journal.path, "a") as stream:
        stream.write("d,r3,,half a li")
    rows = journal.load()
    assert rows["record_id"].tolist() == ["r1", "r2"] and rows["reason"][0].endswith("lines")
    journal.remove()
    assert journal.load().empty


def test_a_manifest_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """It has no weights."""
    earlier = [name for name in MANIFEST_COLUMNS if name != "weight"]
    (tmp_path / "manifest.csv").write_text(
        ",".join(earlier) + "\n" + ",".join("d" for _ in earlier) + "\n"
    )
    frame = load_manifest(tmp_path)
    assert (
        list(frame) == list(MANIFEST_COLUMNS)
        and frame["weight"].tolist() == [""]
        and frame["split"].tolist() == ["d"]
    )
    assert load_manifest(tmp_path, ("dataset", "weight")).to_numpy().tolist() == [["d", ""]]


def test_a_file_that_is_no_manifest_is_named(tmp_path: Path) -> None:
    assert load_manifest(tmp_path).empty
    (tmp_path / "manifest.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"manifest\.csv: columns dataset, record_id"):
        load_manifest(tmp_path)
