"""Finding the records below a folder or URL, with the ids that their files give them."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
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
    """A record in a dataset folder.

    Attributes
    ----------
    relative
        Its file relative to the dataset folder, with forward slashes; ``file.hdf5::id`` for one of
        many records in a file.
    stem
        The stem of the file, or the id in a file of many.
    stamp
        A version stamp, for a record at a URL.
    """

    relative: str
    stem: str
    stamp: str = ""


def index_folder(root: str | Path) -> list[FoundRecord]:
    """List the records below a folder or URL.

    A stem in a folder is one record: a header is preferred to a bare .mat. Each record of a file of
    many is listed. The segments of a WFDB record are not, as their samples would be there twice.
    Files of many records at a URL are skipped with a warning.

    Raises
    ------
    ValueError
        If the folder does not exist.
    OSError
        If the URL cannot be reached.
    """
    if url := as_url(root):
        return _index_url(url)
    root = as_path(root)
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; expected a collection of recordings")
    records: list[FoundRecord] = []
    for folder, names in _walk(root):
        names = _without_segments(root / folder, names)
        candidates = [name for name in names if may_be_record(f"{root}/{folder}/{name}")]
        for stem, relative, suffix in _choose(folder, candidates):
            if suffix in MANY_SUFFIXES:
                records += _records_in_file(root, relative, stem)
            else:
                records.append(FoundRecord(relative, printable(stem, MAX_ID_LENGTH)))
    return _sorted_by_file(records)


def _without_segments(folder: Path, names: list[str]) -> list[str]:
    """Return the names of files that are not segments of a WFDB record in the folder."""
    segments: set[str] = set()
    for header in lone_headers(names):
        segments.update(segment_names(folder / header))
    if not segments:
        return names
    return [name for name in names if os.path.splitext(name)[0] not in segments]


def _index_url(url: str) -> list[FoundRecord]:
    folders, files = list_folders(url)
    records = []
    for folder, names in folders.items():
        for stem, relative, _ in _choose(folder, names):
            stamp = stamp_of(relative, files)
            records.append(FoundRecord(relative, printable(stem, MAX_ID_LENGTH), stamp))
    return _sorted_by_file(records)


def _choose(folder: str, names: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Yield stem, relative path and suffix of the records of a folder.

    Of the files with a stem, the one whose suffix is first in `READABLE_SUFFIXES` is the record.
    """
    best: dict[str, tuple[int, str]] = {}
    for name in names:
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in READABLE_SUFFIXES and not name.startswith("."):
            ranked = (READABLE_SUFFIXES.index(suffix.lower()), name)
            best[stem] = min(best.get(stem, ranked), ranked)
    for stem, (rank, name) in best.items():
        relative = name if folder == "." else f"{folder}/{name}"
        yield stem, relative, READABLE_SUFFIXES[rank]


def _sorted_by_file(records: Iterable[FoundRecord]) -> list[FoundRecord]:
    # The sort is stable, so records inside a file keep the order in which they are stored.
    return sorted(records, key=lambda record: PART_IN_FILE.split(record.relative)[0])


def _records_in_file(root: Path, relative: str, stem: str) -> list[FoundRecord]:
    """Return the records of a file that may hold many.

    An unreadable file is listed as one record, so that reading it reports the error.
    """
    try:
        parts = list_parts(root / relative)
    except RecordError:
        parts = ()
    if not parts:
        return [FoundRecord(relative, printable(stem, MAX_ID_LENGTH))]
    return [FoundRecord(f"{relative}::{part}", printable(part, MAX_ID_LENGTH)) for part in parts]


def _walk(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder of a tree, relative to its root, and the names of its regular files.

    Links to folders are followed; each real folder is entered once, so that a loop of links ends.
    """
    entered: set[str] = set()
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        real = os.path.realpath(root / folder)
        if real in entered:
            continue
        entered.add(real)
        with os.scandir(root / folder) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
        subfolders = [
            entry.name
            for entry in ordered
            if not entry.name.startswith(".") and _holds(entry.is_dir)
        ]
        # The stack is popped from its end.
        for name in reversed(subfolders):
            waiting.append(f"{folder}/{name}" if folder else name)
        yield folder or ".", [entry.name for entry in ordered if _holds(entry.is_file)]


def _holds(test: Callable[[], bool]) -> bool:
    """Return the result of a test of a directory entry, False for a link that leads to itself."""
    try:
        return test()
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENAMETOOLONG):
            raise
        return False
