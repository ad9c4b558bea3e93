"""Records behind URLs: a collection's index from one listing, and records with all their files in a
temporary folder.
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

from src.records.formats.wfdb_header import lone_headers, named_files, segment_names
from src.records.reading import MANY_SUFFIXES, may_be_record
from src.records.remote import RemoteFile, RemoteFolder
from src.utils import stable_hash

logger = logging.getLogger(__name__)


_BATCH = 256  # files looked into at a time
COPY_FIRST = "copy such files to a folder on this machine and name that"
_MAX_DEPTH = 3  # a record, its segments, their samples


def list_folders(url: str) -> tuple[dict[str, list[str]], dict[str, RemoteFile]]:
    """List what lies below a URL once.

    Returns
    -------
    folders
        Folder relative to the URL -> names of its files in order, as of a local tree; hidden ones
        are left out.
    files
        What the store says of each file.

    Raises
    ------
    ValueError
        If nothing is there.
    OSError
        If the store cannot be reached or refuses.
    """
    files = RemoteFolder(url).list_files()
    if not files:
        raise ValueError(f"{url}: nothing is there; expected a collection of recordings")
    folders: dict[str, list[str]] = defaultdict(list)
    for path in sorted(files):
        folder, _, name = path.rpartition("/")
        if not any(part.startswith(".") for part in path.split("/")):
            folders[folder or "."].append(name)
    _drop_strangers(url, folders)
    _drop_segments(url, folders)
    _drop_files_of_many(url, folders)
    return folders, files


def _drop_strangers(url: str, folders: dict[str, list[str]]) -> None:
    """Take out the XML files that are no records, which only their content tells."""
    doubtful = [
        (folder, name)
        for folder, names in folders.items()
        for name in names
        if name.lower().endswith(".xml")
    ]
    for folder, name, copy in _copied(url, doubtful):
        if not may_be_record(copy):
            folders[folder].remove(name)


def _drop_segments(url: str, folders: dict[str, list[str]]) -> None:
    """Take out the segments that WFDB records are made of, which only the headers of these tell."""
    lone = [(folder, name) for folder, names in folders.items() for name in lone_headers(names)]
    for folder, _, copy in _copied(url, lone):
        if segments := segment_names(copy):
            folders[folder] = [
                name for name in folders[folder] if os.path.splitext(name)[0] not in segments
            ]


def _copied(url: str, wanted: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str, Path]]:
    """Yield folder, name and a local copy of files to be looked into; a copy is there until the
    next is asked for.
    """
    for start in range(0, len(wanted), _BATCH):
        with TemporaryDirectory(prefix="ecg-") as place:
            batch = [
                (folder, name, Path(place) / str(number) / name)
                for number, (folder, name) in enumerate(wanted[start : start + _BATCH])
            ]
            RemoteFolder(url).fetch(
                [
                    (name if folder == "." else f"{folder}/{name}", copy)
                    for folder, name, copy in batch
                ]
            )
            yield from batch


def _drop_files_of_many(url: str, folders: dict[str, list[str]]) -> None:
    """Take out the files that may hold many records: each record would take the whole file
    along.
    """
    left_out = [
        f"{folder}/{name}"
        for folder, names in folders.items()
        for name in names
        if holds_many(name)
    ]
    if left_out:
        logger.warning(
            "%s: %d files that may hold many records (%s) are left out; %s",
            url,
            len(left_out),
            left_out[0].removeprefix("./"),
            COPY_FIRST,
        )
    for folder, names in folders.items():
        folders[folder] = [name for name in names if not holds_many(name)]


def holds_many(name: str) -> bool:
    """Tell whether a file may hold many records, by its suffix."""
    return os.path.splitext(name.split("::")[0])[1].lower() in MANY_SUFFIXES


def stamp_of(relative: str, files: dict[str, RemoteFile]) -> str:
    """Return what changes when a record does: of its file, and of the samples that commonly stand
    beside a header.
    """
    stem, suffix = os.path.splitext(relative)
    others = [stem + other for other in (".dat", ".mat")] if suffix.lower() == ".hea" else []
    return stable_hash(
        [(files[name].size, files[name].stamp) for name in (relative, *others) if name in files]
    )


@contextmanager
def fetched_records(urls: Sequence[str]) -> Iterator[list[Path]]:
    """Yield local copies of records, each beside the files that its header names; they are gone
    afterwards.

    What is not there is not there locally either, so that reading it gives the same error.

    Raises
    ------
    OSError
        If the store cannot be reached or refuses, or the folder of a record is gone.
    """
    with TemporaryDirectory(prefix="ecg-") as place:
        by_folder: dict[str, list[str]] = defaultdict(list)
        for url in urls:
            folder, _, name = url.rpartition("/")
            by_folder[folder].append(name)
        local = {folder: Path(place) / str(number) for number, folder in enumerate(by_folder)}
        for folder, names in by_folder.items():
            _fetch_folder(RemoteFolder(folder), names, local[folder])
        yield [local[folder] / name for folder, _, name in (url.rpartition("/") for url in urls)]


def _fetch_folder(source: RemoteFolder, names: Sequence[str], local: Path) -> None:
    """Fetch records of one folder, and then, step by step, what the headers among them name."""
    waiting = list(dict.fromkeys(names))
    missing = source.fetch([(name, local / name) for name in waiting])
    if missing and len(missing) == len(waiting) and not source.exists():
        raise OSError(
            f"{source.url}: the folder is gone; bring it back and run the same command again"
        )
    seen, in_any_case = set(waiting), None
    for _ in range(_MAX_DEPTH):
        headers = [
            local / name
            for name in waiting
            if name.lower().endswith(".hea") and (local / name).exists()
        ]
        waiting = [
            name
            for name in dict.fromkeys(chain.from_iterable(map(named_files, headers)))
            if name not in seen
        ]
        seen.update(waiting)
        missing = source.fetch([(name, local / name) for name in waiting])
        if missing and in_any_case is None:
            in_any_case = {name.lower(): name for name in source.list_names()}
        spelled = [(in_any_case or {}).get(name.lower()) for name in missing]
        source.fetch([(name, local / name) for name in spelled if name])
