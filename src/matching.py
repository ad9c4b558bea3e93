"""Rows of the mapping to files on disk: each dataset folder is indexed once, and an unclear match
is never guessed.
"""

from __future__ import annotations

import errno
import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from src.fetching import list_folders, stamp_of
from src.formats.wfdb_header import lone_headers, segment_names
from src.labels import LabelRow
from src.records import MANY_SUFFIXES, READABLE_SUFFIXES, RecordError, list_parts, may_be_record
from src.remote import as_path, as_url
from src.utils import printable, stable_hash

logger = logging.getLogger(__name__)

_KNOWN_SUFFIX = re.compile(
    rf"({'|'.join(map(re.escape, (*READABLE_SUFFIXES, '.dat')))})$", re.IGNORECASE
)
_INSIDE = re.compile(r"\.(h5|hdf5|hdf)::", re.IGNORECASE)
_MAX_ID = 1000  # characters
_RATE_SUFFIX = re.compile(r"_(hr|lr)$")


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


@dataclass(frozen=True)
class RecordMatch:
    """A record with its row, or None, and the id it is known by from here on."""

    record_id: str
    found: FoundRecord
    row: LabelRow | None


@dataclass(frozen=True)
class Matches:
    """The outcome for one dataset: records in the order of their ids, and the rows without a file
    of their own.
    """

    records: tuple[RecordMatch, ...]
    missing: tuple[tuple[LabelRow, str], ...] = field(default=())


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
                found.append(FoundRecord(relative, printable(stem, _MAX_ID)))
    return _in_order(found)


def _index_url(url: str) -> list[FoundRecord]:
    folders, files = list_folders(url)
    chosen = (item for folder, names in folders.items() for item in _choose(folder, names))
    return _in_order(
        [
            FoundRecord(relative, printable(stem, _MAX_ID), stamp_of(relative, files))
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
        found, key=lambda record: _INSIDE.split(record.relative)[0]
    )  # those inside a file stay as they are stored


def _inside(root: Path, relative: str, stem: str) -> list[FoundRecord]:
    """Return the records of a file that may hold many; one that cannot be read is listed, and
    reading it says why.
    """
    try:
        parts = list_parts(root / relative)
    except RecordError:
        parts = ()
    return [FoundRecord(f"{relative}::{part}", printable(part, _MAX_ID)) for part in parts] or [
        FoundRecord(relative, printable(stem, _MAX_ID))
    ]


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


def _clean(record_id: str) -> str:
    """Return a record id or path with forward slashes and without a known extension; ``a.h5::b``
    becomes ``a/b``.
    """
    text = record_id.replace("\\", "/").strip()
    text = re.sub(r"^(\./)+", "", text).strip("/")
    return _KNOWN_SUFFIX.sub("", _INSIDE.sub("/", text))


def _wanted(row: LabelRow, containers: set[str]) -> str:
    """Return what a row calls its record; where its path names a file of many, the id says
    which.
    """
    path = _clean(row.path)
    return (
        f"{path}/{_clean(row.record_id)}"
        if _base(path).casefold() in containers
        else path or _clean(row.record_id)
    )


def _base(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _no_rate(path: str) -> str:
    return _RATE_SUFFIX.sub("", _base(path).casefold())


def _no_zeros(path: str) -> str:
    return re.sub(r"(?<!\d)0+(?=\d)", "", _no_rate(path))


# From strict to lenient: a row takes the first level at which exactly one free record answers.
_LEVELS: tuple[Callable[[str], str], ...] = (
    lambda path: path,
    lambda path: path.casefold(),
    _base,
    lambda path: _base(path).casefold(),
    _no_rate,
    _no_zeros,
)


def match_records(rows: Sequence[LabelRow], found: Sequence[FoundRecord]) -> Matches:
    """Match the rows of one dataset to its records.

    A row names its record by bare name or path, with or without extension or a ``_hr``/``_lr``
    suffix, in any case, with either separator, leading zeros there or not. Stricter readings win: a
    record taken by an exact name is not there for a looser one. A row that several records answer,
    or a record that several rows claim, is reported and left unmatched.
    """
    free = {record.relative: record for record in found}
    matched: dict[str, LabelRow] = {}
    unclear: list[tuple[LabelRow, str]] = []
    waiting = list(rows)
    files = (
        _INSIDE.split(record.relative)[0] for record in found if _INSIDE.search(record.relative)
    )
    containers = {_base(file).casefold() for file in files}
    for level in _LEVELS:
        if not waiting:
            break
        index: dict[str, list[FoundRecord]] = defaultdict(list)
        for record in free.values():
            index[level(_clean(record.relative))].append(record)
        claims: dict[str, list[LabelRow]] = defaultdict(list)
        rest: list[LabelRow] = []
        for row in waiting:
            wanted = _wanted(row, containers)
            candidates = _narrow(index.get(level(wanted), []), wanted)
            if len(candidates) == 1:
                claims[candidates[0].relative].append(row)
            elif candidates:
                names = ", ".join(record.relative for record in candidates[:5])
                unclear.append(
                    (
                        row,
                        (
                            f"ambiguous: {row.record_id!r} answers to {len(candidates)} "
                            f"records ({names})"
                        ),
                    )
                )
            else:
                rest.append(row)
        for relative, claimants in claims.items():
            del free[
                relative
            ]  # also where it is unclear whose it is: no looser name shall settle that
            if len(claimants) == 1:
                matched[relative] = claimants[0]
            else:
                ids = ", ".join(repr(row.record_id) for row in claimants)
                unclear += [
                    (row, f"ambiguous: rows {ids} all answer to {relative}") for row in claimants
                ]
        waiting = rest
    missing = [*unclear, *((row, "no file of this name in the folder") for row in waiting)]
    record_ids = _record_ids(found)
    records = tuple(
        RecordMatch(record_ids[record.relative], record, matched.get(record.relative))
        for record in found
    )
    return Matches(records, tuple(missing))


def _narrow(candidates: list[FoundRecord], wanted: str) -> list[FoundRecord]:
    """Keep the candidates that share the longest tail of folders with the path wanted."""
    if len(candidates) < 2:
        return candidates
    tail = wanted.casefold().split("/")[-2::-1]

    def shared(record: FoundRecord) -> int:
        folders = _clean(record.relative).casefold().split("/")[-2::-1]
        return next(
            (i for i, (a, b) in enumerate(zip(tail, folders, strict=False)) if a != b),
            min(len(tail), len(folders)),
        )

    best = max(shared(record) for record in candidates)
    return [record for record in candidates if shared(record) == best] if best else candidates


def _record_ids(found: Sequence[FoundRecord]) -> dict[str, str]:
    """Return relative file -> record id: the stem, or the path where several folders hold that
    stem.

    Ids that would still be the same, if only to a file system that does not tell cases apart, end
    in a hash of the path.
    """
    by_stem: dict[str, list[FoundRecord]] = defaultdict(list)
    for record in found:
        by_stem[record.stem.casefold()].append(record)
    ids = {}
    for records in by_stem.values():
        for record in records:
            alone = len(records) == 1
            ids[record.relative] = (
                record.stem
                if alone
                else printable(_clean(record.relative), _MAX_ID).replace("/", "-")
            )
    counts = Counter(record_id.casefold() for record_id in ids.values())
    return {
        path: name if counts[name.casefold()] == 1 else f"{name}~{stable_hash(path, 6)}"
        for path, name in ids.items()
    }
