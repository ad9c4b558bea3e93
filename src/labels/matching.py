"""Matching rows of the label mapping with record files; an ambiguous match is never guessed."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from src.labels.ids import clean_id, file_key, id_key
from src.labels.mapping import LabelRow
from src.records.folders import MAX_ID_LENGTH, PART_IN_FILE, FolderIndex, FoundRecord, PassedOver
from src.records.reading import READABLE_SUFFIXES
from src.utils import stable_hash, storable

_KNOWN_SUFFIX = re.compile(
    rf"({'|'.join(map(re.escape, (*READABLE_SUFFIXES, '.dat')))})$", re.IGNORECASE
)
_NO_FILE = "no file of this name in the folder"
_RATE_SUFFIX = re.compile(r"_(hr|lr)$")


@dataclass(frozen=True)
class RecordMatch:
    """A record with its row, or None, and the id that the record has from here on."""

    record_id: str
    found: FoundRecord
    row: LabelRow | None


@dataclass(frozen=True)
class UnreadMatch:
    """A file that is not read, with its row, or None, and the id that it has in the manifest."""

    record_id: str
    file: PassedOver
    row: LabelRow | None


@dataclass(frozen=True)
class Matches:
    """The matches of one dataset.

    Attributes
    ----------
    records
        Every record, in the order of the index.
    missing
        Rows without a record of their own, with the reason.
    unread
        Files that are no records but hold a recording or are named by a row, with that row or None.
    """

    records: tuple[RecordMatch, ...]
    missing: tuple[tuple[LabelRow, str], ...] = field(default=())
    unread: tuple[UnreadMatch, ...] = field(default=())


# Spellings ----------------------------------------------------------------------------------------


def _clean(record_id: str) -> str:
    """Return an id or path with forward slashes, without a known suffix; ``a.h5::b`` is ``a/b``."""
    text = record_id.replace("\\", "/").strip()
    text = re.sub(r"^(\./)+", "", text).strip("/")
    return _KNOWN_SUFFIX.sub("", PART_IN_FILE.sub("/", text))


def _base(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _without_base(path: str) -> str:
    """Return the folder of a path with its slash, empty for a bare name."""
    return path[: len(path) - len(_base(path))]


def _base_without_rate(path: str) -> str:
    return _RATE_SUFFIX.sub("", _base(path).casefold())


def _base_without_zeros(path: str) -> str:
    return re.sub(r"(?<!\d)0+(?=\d)", "", _base_without_rate(path))


def _base_as_number(path: str) -> str:
    """Return the name as a table of floats makes it a number: 3 for ``0003`` and ``3.0``."""
    return id_key(_base_without_zeros(path))


# From strict to lenient. A row is matched at the first level where it has one candidate.
_LEVELS: tuple[Callable[[str], str], ...] = (
    lambda path: path,
    clean_id,
    lambda path: clean_id(path).casefold(),
    lambda path: _base(clean_id(path)),
    lambda path: _base(clean_id(path)).casefold(),
    lambda path: _base_without_rate(clean_id(path)),
    lambda path: _base_without_zeros(clean_id(path)),
    lambda path: _base_as_number(clean_id(path)),
)
_MAX_SHOWN = 10  # names in a reason


def _name_in_row(row: LabelRow, containers: set[str]) -> str:
    """Return the name of a row's record: its path if given, else its id.

    If the path is a file of many records, `containers` holds its name, and the id is added.
    """
    path = _clean(row.path)
    if _base(path).casefold() in containers:
        return f"{path}/{_clean(row.record_id)}"
    return path or _clean(row.record_id)


# Matching -----------------------------------------------------------------------------------------


class _NamedRow(NamedTuple):
    """A row with the name of its record, as `_name_in_row` returns it."""

    row: LabelRow
    name: str


@dataclass
class _Level:
    """The rows that one level sorts: by the record they match, ambiguous ones, and the others."""

    claims: dict[str, list[LabelRow]] = field(default_factory=lambda: defaultdict(list))
    ambiguous: list[tuple[LabelRow, str]] = field(default_factory=list)
    unmatched: list[_NamedRow] = field(default_factory=list)


def match_folder(rows: Sequence[LabelRow], index: FolderIndex) -> Matches:
    """Match the rows of one dataset to its records, and those left to files that are not read.

    A row whose file is there has another trouble than one whose file is not.
    """
    matches = match_records(rows, index.records)
    as_found = [FoundRecord(file.relative, file.stem) for file in index.passed_over]
    left = [row for row, reason in matches.missing if reason == _NO_FILE]
    row_of = {}
    for match in match_records(left, as_found).records:
        if match.row is not None:
            row_of[match.found.relative] = match.row
    taken = {id(row) for row in row_of.values()}
    missing = [(row, reason) for row, reason in matches.missing if id(row) not in taken]
    wanted = [
        file for file in index.passed_over if file.unread.is_recording or file.relative in row_of
    ]
    ids = _ids_of_unread(wanted, row_of, {match.record_id for match in matches.records})
    unread = [UnreadMatch(ids[file.relative], file, row_of.get(file.relative)) for file in wanted]
    return Matches(matches.records, tuple(missing), tuple(unread))


def _ids_of_unread(
    files: Sequence[PassedOver], row_of: Mapping[str, LabelRow], taken: set[str]
) -> dict[str, str]:
    """Return relative file -> id in the manifest: that of its row, its stem, or else its path."""
    ids: dict[str, str] = {}
    used = {file_key(record_id) for record_id in taken}
    for file in sorted(files, key=lambda file: file.relative not in row_of):
        row = row_of.get(file.relative)
        path = storable(file.relative, MAX_ID_LENGTH).replace("/", "-")
        choices = [row.record_id] if row else []
        choices += [file.stem, path, f"{path}~{stable_hash(file.relative, 6)}"]
        ids[file.relative] = next(name for name in choices if file_key(name) not in used)
        used.add(file_key(ids[file.relative]))
    return ids


def match_records(rows: Sequence[LabelRow], found: Sequence[FoundRecord]) -> Matches:
    """Match the rows of one dataset to its records.

    A row names its record by bare name or path, with or without suffix or ``_hr``/``_lr``, in any
    case, with either separator, with or without leading zeros. Stricter matches win: a record
    matched by its exact name is not a candidate for looser ones. A row that matches several
    records, or a record that several rows match, is reported and left unmatched.
    """
    free = {record.relative: record for record in found}
    matched: dict[str, LabelRow] = {}
    missing: list[tuple[LabelRow, str]] = []
    containers = _container_names(found)
    waiting = [_NamedRow(row, _name_in_row(row, containers)) for row in rows]
    for spell in _LEVELS:
        if not (waiting and free):
            break
        level = _match_level(waiting, free.values(), spell)
        missing += level.ambiguous
        for relative, claimants in level.claims.items():
            # Also a record with several claimants is taken: no looser name may settle the claim.
            del free[relative]
            if len(claimants) == 1:
                matched[relative] = claimants[0]
                continue
            ids = ", ".join(repr(row.record_id) for row in claimants[:_MAX_SHOWN])
            if len(claimants) > _MAX_SHOWN:
                ids += f" and {len(claimants) - _MAX_SHOWN} more"
            reason = f"ambiguous: rows {ids} all match {relative}"
            missing += [(row, reason) for row in claimants]
        waiting = level.unmatched
    missing += [(row, _NO_FILE) for row, _ in waiting]
    record_ids = _record_ids(found)
    records = tuple(
        RecordMatch(record_ids[record.relative], record, matched.get(record.relative))
        for record in found
    )
    return Matches(records, tuple(missing))


def _container_names(found: Iterable[FoundRecord]) -> set[str]:
    """Return the names, without suffix and case, of the files that hold many records."""
    names = set()
    for record in found:
        file, *part = PART_IN_FILE.split(record.relative, maxsplit=1)
        if part:
            names.add(_base(file).casefold())
    return names


def _match_level(
    rows: Iterable[_NamedRow], free: Iterable[FoundRecord], spell: Callable[[str], str]
) -> _Level:
    """Match rows and records whose names are equal as `spell` spells them."""
    index: dict[str, _Candidates] = defaultdict(_Candidates)
    for record in free:
        path = _clean(record.relative)
        # A file that was recognized by its content may have any suffix.
        for name in {spell(path), spell(_without_base(path) + record.stem)}:
            index[name].records.append(record)
    level = _Level()
    for row, name in rows:
        found = index.get(spell(name))
        candidates = found.closest(name) if found is not None else []
        if len(candidates) == 1:
            level.claims[candidates[0].relative].append(row)
        elif candidates:
            files = ", ".join(record.relative for record in candidates[:5])
            reason = f"ambiguous: {row.record_id!r} matches {len(candidates)} records ({files})"
            level.ambiguous.append((row, reason))
        else:
            level.unmatched.append(_NamedRow(row, name))
    return level


class _Candidates:
    """The records of one spelling, found by the last folders of a path.

    `_tree` has a branch for each last folder, which has one for each folder above, and so on. Each
    branch lists its records, so that a row is not compared with all of them.
    """

    def __init__(self) -> None:
        self.records: list[FoundRecord] = []
        self._tree: _Branch | None = None

    def closest(self, name: str) -> list[FoundRecord]:
        """Return the records that share most of the last folders with the path in a row."""
        if len(self.records) < 2:
            return self.records
        if self._tree is None:
            self._tree = self._grow()
        branch = self._tree
        for folder in _folders_upward(name):
            if folder not in branch.below:
                break
            branch = branch.below[folder]
        return branch.records

    def _grow(self) -> _Branch:
        tree = _Branch(self.records)
        for record in self.records:
            branch = tree
            for folder in _folders_upward(_clean(record.relative)):
                branch = branch.below.setdefault(folder, _Branch())
                branch.records.append(record)
        return tree


@dataclass
class _Branch:
    """Records whose paths end in the same folders, and the folders above these."""

    records: list[FoundRecord] = field(default_factory=list)
    below: dict[str, _Branch] = field(default_factory=dict)


def _folders_upward(path: str) -> list[str]:
    return clean_id(path).casefold().split("/")[-2::-1]


def _record_ids(found: Sequence[FoundRecord]) -> dict[str, str]:
    """Return relative file -> record id: the stem, or the path if several folders hold the stem.

    Ids that a file system may take for one, as some do not tell case and Unicode form apart, end in
    a hash of the path.
    """
    n_of_stem = Counter(file_key(record.stem) for record in found)
    ids = {}
    for record in found:
        record_id = record.stem
        if n_of_stem[file_key(record.stem)] > 1:
            record_id = storable(_clean(record.relative), MAX_ID_LENGTH).replace("/", "-")
        ids[record.relative] = record_id
    # Once is enough, unless a file is named like the result.
    for n_digits in (6, 16, 32):
        n_of_id = Counter(file_key(record_id) for record_id in ids.values())
        for path, record_id in ids.items():
            if n_of_id[file_key(record_id)] > 1:
                ids[path] = f"{record_id}~{stable_hash(path, n_digits)}"
    return ids
