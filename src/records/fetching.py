"""Records at URLs: the index of a collection, and temporary local copies of records."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from src.records.formats.errors import HEAD_BYTES
from src.records.formats.wfdb_header import lone_headers, named_files, segment_names
from src.records.reading import LOCAL_SUFFIXES
from src.records.remote import RemoteFile, RemoteFolder
from src.utils import stable_hash, temporary_folder

logger = logging.getLogger(__name__)


COPY_FIRST = "copy such files to a folder on this machine and name that"
_BATCH = 256  # files copied at a time to look into them
_MAX_DEPTH = 3  # a record, its segments, their samples


# Listing ------------------------------------------------------------------------------------------


def list_folders(url: str) -> tuple[dict[str, list[str]], dict[str, RemoteFile]]:
    """List the files below a URL once.

    Segments of WFDB records are removed, and files that may hold many records, which are skipped
    with a warning.

    Returns
    -------
    folders
        Folder relative to the URL -> names of its files in order, as for a local tree; without
        hidden ones.
    files
        Relative path -> the size and version of every file.

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
    _drop_segments(url, folders)
    _drop_files_of_many(url, folders)
    return folders, files


def _drop_segments(url: str, folders: dict[str, list[str]]) -> None:
    """Remove segments of WFDB records; only the headers of the records name them."""
    headers = []
    for folder, names in folders.items():
        headers += [(folder, name) for name in lone_headers(names)]
    for folder, _, copy in _local_copies(url, headers):
        if segments := segment_names(copy):
            folders[folder] = [
                name for name in folders[folder] if os.path.splitext(name)[0] not in segments
            ]


def _drop_files_of_many(url: str, folders: dict[str, list[str]]) -> None:
    """Remove files that may hold many records: each record would need a copy of the whole file."""
    skipped: list[str] = []
    for folder, names in folders.items():
        skipped += [f"{folder}/{name}" for name in names if holds_many(name)]
        folders[folder] = [name for name in names if not holds_many(name)]
    if skipped:
        logger.warning(
            "%s: %d files that may hold many records (%s) are skipped; %s",
            url,
            len(skipped),
            skipped[0].removeprefix("./"),
            COPY_FIRST,
        )


def fetch_heads(url: str, folder: str, names: Sequence[str]) -> dict[str, bytes]:
    """Return the first bytes of files in a folder below a URL, by name.

    Raises
    ------
    OSError
        If the store cannot be reached or refuses.
    """
    source = RemoteFolder(url if folder == "." else f"{url}/{folder}")
    return source.fetch_heads(names, HEAD_BYTES)


def _local_copies(url: str, files: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str, Path]]:
    """Yield folder, name and a local copy of each file; the copy exists until the next is yielded.

    `files` are pairs of folder and name.
    """
    for start in range(0, len(files), _BATCH):
        with temporary_folder() as temporary:
            copies = []
            transfers = []
            for number, (folder, name) in enumerate(files[start : start + _BATCH]):
                copy = temporary / str(number) / name
                copies.append((folder, name, copy))
                transfers.append((name if folder == "." else f"{folder}/{name}", copy))
            RemoteFolder(url).fetch(transfers)
            yield from copies


def holds_many(name: str) -> bool:
    """Return whether a file may hold many records, by its suffix."""
    return os.path.splitext(name.split("::")[0])[1].lower() in LOCAL_SUFFIXES


def stamp_of(relative: str, files: dict[str, RemoteFile]) -> str:
    """Return a version stamp of a record: of its file and, for a header, the samples beside it."""
    names = [relative]
    stem, suffix = os.path.splitext(relative)
    if suffix.lower() == ".hea":
        names += [f"{stem}.dat", f"{stem}.mat"]
    return stable_hash([(files[name].size, files[name].stamp) for name in names if name in files])


# Fetching -----------------------------------------------------------------------------------------


@contextmanager
def fetched_records(urls: Sequence[str]) -> Iterator[list[Path]]:
    """Yield temporary local copies of records, each beside the files that its header names.

    A file that does not exist at the URL does not exist locally either, so that reading it gives
    the same error.

    Raises
    ------
    OSError
        If the store cannot be reached or refuses, or the folder of a record is gone.
    """
    names_by_folder: dict[str, list[str]] = defaultdict(list)
    for url in urls:
        folder, _, name = url.rpartition("/")
        names_by_folder[folder].append(name)
    with temporary_folder() as temporary:
        local = {}
        for number, (folder, names) in enumerate(names_by_folder.items()):
            local[folder] = temporary / str(number)
            _fetch_folder(RemoteFolder(folder), names, local[folder])
        copies = []
        for url in urls:
            folder, _, name = url.rpartition("/")
            copies.append(local[folder] / name)
        yield copies


def _fetch_folder(source: RemoteFolder, names: Sequence[str], local: Path) -> None:
    """Fetch records of one folder, then, step by step, the files that their headers name."""
    pending = list(dict.fromkeys(names))
    missing = source.fetch([(name, local / name) for name in pending])
    if missing and len(missing) == len(pending) and not source.exists():
        raise OSError(
            f"{source.url}: the folder is gone; bring it back and run the same command again"
        )
    requested = set(pending)
    by_lower_case: dict[str, str] | None = None
    for _ in range(_MAX_DEPTH):
        pending = [name for name in _named_in_headers(pending, local) if name not in requested]
        requested.update(pending)
        missing = source.fetch([(name, local / name) for name in pending])
        if not missing:
            continue
        # Headers may name files in another case than the store.
        if by_lower_case is None:
            by_lower_case = {name.lower(): name for name in source.list_names()}
        spelled = [by_lower_case.get(name.lower()) for name in missing]
        source.fetch([(name, local / name) for name in spelled if name])


def _named_in_headers(names: Sequence[str], local: Path) -> list[str]:
    """Return the files that the fetched headers among `names` name, each once."""
    named: dict[str, None] = {}
    for name in names:
        header = local / name
        if name.lower().endswith(".hea") and header.exists():
            named |= dict.fromkeys(named_files(header))
    return list(named)
