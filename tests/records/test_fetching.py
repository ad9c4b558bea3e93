"""Listing and copying records at a URL, with a store in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from src.records.fetching import fetched_records, holds_many, list_folders, stamp_of
from src.records.remote import RemoteFile

HEADER = "r 1 100 200\nr.DAT 16 100/mV 16 0 0 0 0 II\n"


@pytest.fixture
def store() -> Iterator[str]:
    fs = fsspec.filesystem("memory")
    fs.pipe("/box/a/r.hea", HEADER.encode())
    fs.pipe("/box/a/r.dat", bytes(400))
    fs.pipe("/box/a/.hidden.hea", HEADER.encode())
    fs.pipe("/box/notes.xml", b"<notes/>")
    fs.pipe("/box/many.h5", b"")
    yield "memory://box"
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


def test_only_records_are_listed(store: str) -> None:
    folders, files = list_folders(store)
    assert folders == {".": ["notes.xml"], "a": ["r.dat", "r.hea"]}
    assert files["a/r.dat"].size == 400


def test_an_empty_url_is_an_error(store: str) -> None:
    with pytest.raises(ValueError, match="nothing is there"):
        list_folders(f"{store}/none")


def test_a_header_comes_with_the_samples_that_it_names_in_any_case(store: str) -> None:
    with fetched_records([f"{store}/a/r.hea", f"{store}/a/gone.hea"]) as (copy, gone):
        assert copy.read_text() == HEADER
        assert (copy.parent / "r.dat").stat().st_size == 400
        assert not gone.exists()
    assert not copy.parent.exists()


def test_a_folder_that_is_gone_is_an_error(store: str) -> None:
    with pytest.raises(OSError, match="the folder is gone"), fetched_records([f"{store}/b/r.hea"]):
        pass


def test_the_stamp_of_a_header_covers_its_samples() -> None:
    files = {"r.hea": RemoteFile(10, "1"), "r.dat": RemoteFile(400, "1")}
    stamp = stamp_of("r.hea", files)
    assert stamp == stamp_of("r.hea", {**files, "other.dat": RemoteFile(1, "1")})
    assert stamp != stamp_of("r.hea", {**files, "r.dat": RemoteFile(400, "2")})


def test_files_of_many_are_known_by_suffix() -> None:
    assert holds_many("a/b.HDF5") and holds_many("b.h5::1") and not holds_many("b.hea")


def test_paths_of_copies_keep_the_order_of_the_urls(store: str) -> None:
    urls = [f"{store}/a/r.dat", f"{store}/many.h5", f"{store}/a/r.hea"]
    with fetched_records(urls) as copies:
        assert [Path(copy).name for copy in copies] == ["r.dat", "many.h5", "r.hea"]
