"""Finding the records below a folder or URL, with the ids that their files give them."""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from src.records.fetching import fetch_heads, list_folders, stamp_of
from src.records.formats.unread import SIDE_FILE, Unread, is_side_name
from src.records.formats.wfdb_header import lone_headers, segment_names
from src.records.reading import (
    MANY_SUFFIXES,
    READABLE_SUFFIXES,
    explain_unread,
    is_told_by_suffix,
    list_parts,
    read_head,
    record_stem,
)
from src.records.record import RecordError
from src.utils import as_path, as_url, storable

logger = logging.getLogger(__name__)

# `src.processed.manifest` writes it into each processed folder.
_SETTINGS_FILE = "preprocess_config.json"

PART_IN_FILE = re.compile(r"\.(h5|hdf5|hdf|npy|npz|parquet|mat)::", re.IGNORECASE)
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


@dataclass(frozen=True)
class PassedOver:
    """A file in a dataset folder that is no record.

    Attributes
    ----------
    relative
        The file relative to the dataset folder, with forward slashes.
    stem
        Its stem.
    unread
        What it is.
    """

    relative: str
    stem: str
    unread: Unread


@dataclass(frozen=True)
class FolderIndex:
    """The files below a dataset folder.

    Attributes
    ----------
    records
        The records, sorted by file.
    passed_over
        Other files, besides the companions of records, such as their samples and annotations.
    """

    records: tuple[FoundRecord, ...]
    passed_over: tuple[PassedOver, ...] = ()


def index_folder(root: str | Path) -> list[FoundRecord]:
    """List the records below a folder or URL, as `survey_folder` does."""
    return list(survey_folder(root).records)


def survey_folder(root: str | Path) -> FolderIndex:
    """List the records below a folder or URL, and the files that are passed over.

    A stem in a folder is one record: a header is preferred to a bare .mat. Each record of a file of
    many is listed. Folders that preprocessing wrote are passed over. The segments of a WFDB record
    are not listed, as their samples would be there twice.
    Files of many records at a URL are skipped with a warning. Files whose suffix does not tell a
    record are opened for their first bytes.

    Raises
    ------
    ValueError
        If the folder does not exist, or preprocessing wrote it.
    OSError
        If the URL cannot be reached.
    """
    if url := as_url(root):
        return _survey_url(url)
    root = as_path(root)
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; expected a collection of recordings")
    if _is_processed(root):
        raise ValueError(f"{root}: was written by preprocess: expected a folder of recordings")
    records: list[FoundRecord] = []
    passed_over: list[PassedOver] = []
    for folder, names in _walk(root):
        names = _without_segments(root / folder, names)
        heads = _LocalHeads(root / folder)
        chosen, others = _choose(folder, names, heads)
        passed_over += others
        for stem, relative, suffix in chosen:
            if suffix in MANY_SUFFIXES:
                records += _records_in_file(root, relative, stem)
            else:
                records.append(FoundRecord(relative, storable(stem, MAX_ID_LENGTH)))
    return FolderIndex(tuple(_sorted_by_file(records)), tuple(passed_over))


class _Heads(Protocol):
    """The first bytes of the files of a folder."""

    def read(self, name: str) -> bytes:
        """Return the first bytes of a file; none if it cannot be read."""


@dataclass(frozen=True)
class _LocalHeads:
    """The first bytes of the files of a local folder."""

    folder: Path

    def read(self, name: str) -> bytes:
        try:
            return read_head(self.folder / name)
        except RecordError:
            return b""


@dataclass(frozen=True)
class _RemoteHeads:
    """The first bytes of the files of a folder at a URL."""

    heads: Mapping[str, bytes]

    def read(self, name: str) -> bytes:
        return self.heads.get(name, b"")


def _without_segments(folder: Path, names: list[str]) -> list[str]:
    """Return the names of files that are not segments of a WFDB record in the folder."""
    segments: set[str] = set()
    for header in lone_headers(names):
        segments.update(segment_names(folder / header))
    if not segments:
        return names
    return [name for name in names if os.path.splitext(name)[0] not in segments]


def _survey_url(url: str) -> FolderIndex:
    folders, files = list_folders(url)
    records: list[FoundRecord] = []
    passed_over: list[PassedOver] = []
    for folder, names in folders.items():
        heads = _RemoteHeads(fetch_heads(url, folder, _names_to_open(names)))
        chosen, others = _choose(folder, names, heads)
        passed_over += others
        for stem, relative, _ in chosen:
            stamp = stamp_of(relative, files)
            records.append(FoundRecord(relative, storable(stem, MAX_ID_LENGTH), stamp))
    return FolderIndex(tuple(_sorted_by_file(records)), tuple(passed_over))


def _names_to_open(names: Sequence[str]) -> list[str]:
    """Return the files whose first bytes tell whether they are records.

    They are those that no suffix tells. The samples and annotations of a record, which have its
    stem, are none, and neither are documents and hidden files.
    """
    visible = [name for name in names if not name.startswith(".")]
    told = {os.path.splitext(name)[0] for name in visible if is_told_by_suffix(name)}
    return [
        name
        for name in visible
        if not is_told_by_suffix(name)
        and os.path.splitext(name)[0] not in told
        and not is_document(name)
    ]


def is_document(name: str) -> bool:
    """Return whether a file is a document or a picture by its name, whatever it begins with."""
    suffix = os.path.splitext(name)[1].lower()
    return suffix not in READABLE_SUFFIXES and is_side_name(name)


def _choose(
    folder: str, names: Sequence[str], heads: _Heads
) -> tuple[list[tuple[str, str, str]], list[PassedOver]]:
    """Return stem, relative path and suffix of the records of a folder, and the files passed over.

    Of the files with a stem, the one whose suffix is first in `READABLE_SUFFIXES` is the record.
    """
    best: dict[str, tuple[int, str]] = {}
    unread: dict[str, Unread] = {}
    to_open = set(_names_to_open(names))
    for name in names:
        stem, suffix = record_stem(name), os.path.splitext(name)[1].lower()
        if name in to_open:
            problem = explain_unread(name, heads.read(name))
            if problem is not None:
                unread[name] = problem
                continue
        elif is_document(name) and not name.startswith("."):
            unread[name] = SIDE_FILE
            continue
        elif not is_told_by_suffix(name) or name.startswith("."):
            continue
        is_known = suffix in READABLE_SUFFIXES
        rank = READABLE_SUFFIXES.index(suffix) if is_known else len(READABLE_SUFFIXES)
        best[stem] = min(best.get(stem, (rank, name)), (rank, name))
    chosen = [
        (stem, _relative(folder, name), (*READABLE_SUFFIXES, "")[rank])
        for stem, (rank, name) in best.items()
    ]
    passed_over = [
        PassedOver(_relative(folder, name), storable(record_stem(name), MAX_ID_LENGTH), problem)
        for name, problem in unread.items()
        if record_stem(name) not in best
    ]
    return chosen, passed_over


def _relative(folder: str, name: str) -> str:
    return name if folder == "." else f"{folder}/{name}"


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
        return [FoundRecord(relative, storable(stem, MAX_ID_LENGTH))]
    return [FoundRecord(f"{relative}::{part}", storable(part, MAX_ID_LENGTH)) for part in parts]


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
        if folder and _is_processed(root / folder):
            logger.info("%s: was written by preprocess, and is passed over", root / folder)
            continue
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


def _is_processed(folder: Path) -> bool:
    """Return whether preprocessing wrote a folder: its arrays and tables are no recordings."""
    return (folder / _SETTINGS_FILE).is_file() and (folder / "records").is_dir()


def _holds(test: Callable[[], bool]) -> bool:
    """Return the result of a test of a directory entry, False for a link that leads to itself."""
    try:
        return test()
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENAMETOOLONG):
            raise
        return False
