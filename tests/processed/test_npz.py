from __future__ import annotations

import io
import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from record_files import write_record_file

from src.processed import npz
from src.processed.npz import Archive, is_whole_npz, read_npz
from src.processed.record_files import load_signal

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


def test_named_arrays_are_read_and_writable(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    Archive({"a": np.array([1, 2], np.int16), "b": np.asfortranarray(np.eye(2))}).write(path)
    assert list(read_npz(path)) == ["a", "b"] and list(read_npz(path, "b")) == ["b"]
    values = read_npz(path, "a")["a"]
    values[0] = 7
    assert values.tolist() == [7, 2] and values.dtype == np.int16


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": np.array([{}], object)}, "holds objects: expected numbers or text"),
        ({"b": np.zeros(1)}, "no array a in it"),
    ],
)
def test_what_is_no_array_of_ours_is_refused(
    tmp_path: Path, content: dict[str, np.ndarray], message: str
) -> None:
    np.savez(tmp_path / "a.npz", allow_pickle=True, **content)
    with pytest.raises(ValueError, match=message):
        read_npz(tmp_path / "a.npz", "a")


def test_headers_that_claim_too_much_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (10**9,)}
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", header.getvalue() + bytes(8))
    with pytest.raises(ValueError, match=r"a\.npy claims shape \(1000000000,\) .* holds 8 bytes"):
        read_npz(path)


def test_a_truncated_file_is_not_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    assert not is_whole_npz(path)
    content = Archive({"a": np.arange(5000, dtype=np.float32)}).encode()
    for kept, expected in (
        (len(content), True),
        (len(content) - 1, False),
        (10, False),
        (0, False),
    ):
        path.write_bytes(content[:kept])
        assert is_whole_npz(path) is expected


def test_an_array_that_stands_twice_and_pipes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.npz"
    np.savez(path, a=np.zeros(1))
    with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("a.npy", archive.read("a.npy"))
    with pytest.raises(ValueError, match="holds an array twice"):
        read_npz(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match="is a pipe or device"):
        read_npz(path)
    assert not is_whole_npz(path)
