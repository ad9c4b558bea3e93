"""Records below a folder or URL, and the ids that their files give them."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from src.records.fetching import list_folders, stamp_of
from src.records.formats.wfdb_header import lone_headers, segment_names
from src.records.reading import MANY_SUFFIXES, READABLE_SUFFIXES, list_parts, may_be_record
from src.records.record import RecordError
from src.utils import as_path, as_url, printable

PART_IN_FILE = re.compile(r"\.(h5|hdf5|hdf)::", re.IGNORECASE)
MAX_ID_LENGTH = 1000  # characters


@dataclass(frozen=True)
class FoundRecord:
    """A record on disk: its file relative to the dataset folder, with forward slashes, and its
    stem.

    One of the many records of a file is ``file.hdf5::id``, and the id stands for the stem.
    """

    relative: str
    stem: str
    stamp: str = ""
    """Of a record behind a URL: what changes when it does."""


def index_folder(root: str | Path) -> list[FoundRecord]:
    """List the records below a folder or URL, one per stem and folder, a header before a bare .mat,
    and each of a file of many.

    The segments that a WFDB record is made of are no records of their own: their samples would be
    there twice. Behind a URL files of many are left out, with a warning.

    Raises
    ------
    ValueError
        If the folder is not there.
    OSError
        If what the URL names cannot be reached.
    """
    if url := as_url(root):
        return _index_url(url)
    root = as_path(root)
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; expected a collection of recordings")
    found = []
    for folder, names in _walk(root):
        segments = set[str]().union(
            *(segment_names(root / folder / name) for name in lone_headers(names))
        )
        whole = (
            (name for name in names if os.path.splitext(name)[0] not in segments)
            if segments
            else names
        )
        claimed = [name for name in whole if may_be_record(f"{root}/{folder}/{name}")]
        for stem, relative, suffix in _choose(folder, claimed):
            if suffix in MANY_SUFFIXES:
                found += _inside(root, relative, stem)
            else:
                found.append(FoundRecord(relative, printable(stem, MAX_ID_LENGTH)))
    return _in_order(found)


def _index_url(url: str) -> list[FoundRecord]:
    folders, files = list_folders(url)
    chosen = (item for folder, names in folders.items() for item in _choose(folder, names))
    return _in_order(
        [
            FoundRecord(relative, printable(stem, MAX_ID_LENGTH), stamp_of(relative, files))
            for stem, relative, _ in chosen
        ]
    )


def _choose(folder: str, names: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Yield stem, file and suffix of the records among the files of a folder: of each stem the most
    telling.
    """
    best: dict[str, tuple[int, str]] = {}
    for name in names:
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in READABLE_SUFFIXES and not name.startswith("."):
            rank = READABLE_SUFFIXES.index(suffix.lower())
            best[stem] = min(best.get(stem, (rank, name)), (rank, name))
    for stem, (rank, name) in best.items():
        yield stem, name if folder == "." else f"{folder}/{name}", READABLE_SUFFIXES[rank]


def _in_order(found: list[FoundRecord]) -> list[FoundRecord]:
    return sorted(
        found, key=lambda record: PART_IN_FILE.split(record.relative)[0]
    )  # those inside a file stay as they are stored


def _inside(root: Path, relative: str, stem: str) -> list[FoundRecord]:
    """Return the records of a file that may hold many; one that cannot be read is listed, and
    reading it says why.
    """
    try:
        parts = list_parts(root / relative)
    except RecordError:
        parts = ()
    return [
        FoundRecord(f"{relative}::{part}", printable(part, MAX_ID_LENGTH)) for part in parts
    ] or [FoundRecord(relative, printable(stem, MAX_ID_LENGTH))]


def _walk(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder of a tree, relative to it, and the names of its files; pipes and devices
    are none.

    Links to folders are followed, but each real folder is entered once, so that a loop of links
    ends.
    """
    seen: set[str] = set()
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        real = os.path.realpath(root / folder)
        if real in seen:
            continue
        seen.add(real)
        with os.scandir(root / folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        inner = [
            entry.name for entry in found if not entry.name.startswith(".") and _is(entry.is_dir)
        ]
        waiting += [f"{folder}/{name}" if folder else name for name in reversed(inner)]
        yield folder or ".", [entry.name for entry in found if _is(entry.is_file)]


def _is(test: Callable[[], bool]) -> bool:
    """Answer a question about an entry; a link that leads back to itself is as nothing, like one
    that leads nowhere.
    """
    try:
        return test()
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENAMETOOLONG):
            raise
        return False
