"""Rows of the mapping to files on disk: each dataset folder is indexed once, and an unclear match
is never guessed.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from src.labels.mapping import LabelRow
from src.records.folders import MAX_ID_LENGTH, PART_IN_FILE, FoundRecord
from src.records.reading import READABLE_SUFFIXES
from src.utils import printable, stable_hash

_KNOWN_SUFFIX = re.compile(
    rf"({'|'.join(map(re.escape, (*READABLE_SUFFIXES, '.dat')))})$", re.IGNORECASE
)
_RATE_SUFFIX = re.compile(r"_(hr|lr)$")


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


def _clean(record_id: str) -> str:
    """Return a record id or path with forward slashes and without a known extension; ``a.h5::b``
    becomes ``a/b``.
    """
    text = record_id.replace("\\", "/").strip()
    text = re.sub(r"^(\./)+", "", text).strip("/")
    return _KNOWN_SUFFIX.sub("", PART_IN_FILE.sub("/", text))


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
        PART_IN_FILE.split(record.relative)[0]
        for record in found
        if PART_IN_FILE.search(record.relative)
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
                else printable(_clean(record.relative), MAX_ID_LENGTH).replace("/", "-")
            )
    counts = Counter(record_id.casefold() for record_id in ids.values())
    return {
        path: name if counts[name.casefold()] == 1 else f"{name}~{stable_hash(path, 6)}"
        for path, name in ids.items()
    }
