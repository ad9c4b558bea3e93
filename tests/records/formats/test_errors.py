from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from src.records.formats.errors import missing_extra, open_error, package_error, read_whole
from src.records.record import RecordError


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EACCES, errno.EISDIR, errno.EIO])
def test_an_error_of_the_file_becomes_one_of_the_record(code: int) -> None:
    error = open_error("a.hea", OSError(code, os.strerror(code)))
    assert isinstance(error, RecordError)
    assert str(error) == f"a.hea: cannot be read ({os.strerror(code)})"


def test_an_error_without_a_number_keeps_its_text() -> None:
    assert str(open_error("a.hea", OSError("gone"))) == "a.hea: cannot be read (gone)"


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT])
def test_an_error_of_the_machine_is_returned_as_it_is(code: int) -> None:
    error = OSError(code, os.strerror(code))
    assert open_error("a.hea", error) is error
    assert package_error("a.h5", error, "HDF5") is error


def test_an_error_of_a_package_names_its_class_and_the_format() -> None:
    error = package_error("a.h5", KeyError("x"), "HDF5")
    assert isinstance(error, RecordError)
    assert str(error) == "a.h5: not readable as HDF5 (KeyError: 'x')"
    missing = package_error("a.h5", FileNotFoundError(errno.ENOENT, "no file"), "HDF5")
    assert isinstance(missing, RecordError)


def test_a_file_is_read_up_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.scp"
    path.write_bytes(b"12345")
    assert read_whole(path, 5, "one recording") == b"12345"
    with pytest.raises(RecordError, match=r"a\.scp: has 5 bytes, over 4: expected one recording"):
        read_whole(path, 4, "one recording")


def test_a_sparse_file_is_refused_by_its_size(tmp_path: Path) -> None:
    path = tmp_path / "a.scp"
    with open(path, "wb") as stream:
        stream.truncate(2**40)
    with pytest.raises(RecordError, match=r"has 1099511627776 bytes, over 67108864"):
        read_whole(path, 2**26, "one recording")


def test_a_missing_file_and_a_folder_are_errors_of_the_record(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"a\.scp: cannot be read \(No such file"):
        read_whole(tmp_path / "a.scp", 5, "one recording")
    with pytest.raises(RecordError, match="cannot be read"):
        read_whole(tmp_path, 2**20, "one recording")


def test_a_missing_package_is_named_with_the_command_that_installs_it() -> None:
    error = missing_extra("a.dcm", "pydicom", "DICOM")
    assert str(error) == (
        "a.dcm: DICOM files need the package pydicom: pip install -r requirements-formats.txt"
    )
