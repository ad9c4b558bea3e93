"""Protection against leaks: copies of one recording stay in one split, or are rejected.

Otherwise a model could be evaluated on a recording that it was trained on. Challenge 2021 holds all
of PTB-XL, CPSC 2018 and Chapman/Ningbo, and single collections hold some records twice. Copies are
found by the fingerprints in the manifest; docs/duplicates.md says how well.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from src.labels.text_tables import safe_cell, zip_cells
from src.processed.fingerprints import differing_bits, find_copies
from src.processed.manifest import COPY_REASON, is_rejected_copy
from src.processed.record_files import record_key, record_keys
from src.records.windows import window_number, window_parent
from src.utils import atomic_path

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


DUPLICATES_FILE = "duplicates.csv"

# In messages
_MAX_GROUPS_SHOWN = 10
_MAX_COPIES_SHOWN = 4


def restore_copies(manifest: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with copies that an earlier run rejected as ok again.

    Their record files still exist.
    """
    rejected = is_rejected_copy(manifest)
    if not rejected.any():
        return manifest
    return manifest.assign(
        status=manifest["status"].mask(rejected, "ok"), reason=manifest["reason"].mask(rejected, "")
    )


def find_duplicates(
    manifest: pd.DataFrame, placed: Collection[str] = (), datasets: Sequence[str] = ()
) -> list[tuple[str, ...]]:
    """Return the keys of the copies of each recording that several ok records hold.

    Parameters
    ----------
    manifest
        As `load_manifest` returns it.
    placed
        Keys that an earlier run gave a split. They come first among the copies of a recording.
    datasets
        Then copies come in the order of these datasets, then by dataset and record id.
    """
    ok = manifest[manifest["status"] == "ok"]
    dataset_order = {name: number for number, name in enumerate(datasets)}
    records = list(zip_cells(ok["dataset"], ok["record_id"]))

    def rank(position: int) -> tuple[bool, int, tuple[str, str]]:
        dataset, record_id = records[position]
        is_new = record_key(dataset, record_id) not in placed
        number = dataset_order.get(dataset, len(dataset_order))
        return is_new, number, (dataset, record_id)

    groups = []
    hashes, beats_of = _join_beats(ok, records)
    for positions in find_copies(hashes):
        for copies in _pair_beats([beats_of.get(i, {0: i}) for i in positions]):
            ordered = sorted(copies, key=rank)
            groups.append(tuple([record_key(*records[i]) for i in ordered]))
    return sorted(groups)


def _join_beats(
    ok: pd.DataFrame, records: Sequence[tuple[str, str]]
) -> tuple[list[str], dict[int, dict[int, int]]]:
    """Return the fingerprint of each row, that of a record with windows around beats once.

    Also returns the beats of each such record by the place of the first: number -> place.
    """
    hashes: list[str] = ok["signal_hash"].tolist()
    beats_of: dict[int, dict[int, int]] = {}
    first_of: dict[tuple[str, str], int] = {}
    times = ok["beat_s"].tolist() if "beat_s" in ok else []
    for place, time_s in enumerate(times):
        if time_s:
            dataset, record_id = records[place]
            first = first_of.setdefault((dataset, window_parent(record_id)), place)
            beats_of.setdefault(first, {})[window_number(record_id)] = place
            if place != first:
                hashes[place] = ""
    return hashes, beats_of


def _pair_beats(copies: Sequence[Mapping[int, int]]) -> Iterator[list[int]]:
    """Yield the places of the beats that are copies: those of one number, in several records."""
    for number in sorted({number for beats in copies for number in beats}):
        places = [beats[number] for beats in copies if number in beats]
        if len(places) > 1:
            yield places


def reject_copies(
    manifest: pd.DataFrame, groups: Sequence[tuple[str, ...]], policy: str
) -> pd.DataFrame:
    """Return the rows with the copies rejected that a policy does not keep.

    Parameters
    ----------
    manifest
        Rows of all records.
    groups
        Keys of the copies of each recording, as `find_duplicates` returns them.
    policy
        ``group`` keeps all copies, ``keep-first`` the first, ``drop-all`` none; ``fail`` raises.

    Raises
    ------
    ValueError
        With policy ``fail``, if there is a copy; the message lists them and says what to do.
    """
    if policy == "fail" and groups:
        raise ValueError(
            f"{len(groups)} recordings are in several records: {_format_groups(groups)}; keep them "
            "in one split with --on-duplicate group, or leave copies out with keep-first or "
            "drop-all"
        )
    if policy in ("group", "fail"):
        return manifest
    n_kept = 1 if policy == "keep-first" else 0
    reasons = {}
    for group in groups:
        for key in group[n_kept:]:
            # The reason names the first copy, and for the first copy the second.
            named = group[0] if key != group[0] else group[1]
            reasons[key] = COPY_REASON + named
    row_reasons = record_keys(manifest).map(reasons)
    return manifest.assign(
        status=manifest["status"].mask(row_reasons.notna(), "rejected"),
        reason=row_reasons.fillna(manifest["reason"]),
    )


def _format_groups(groups: Sequence[tuple[str, ...]]) -> str:
    """Return the first groups for a message, with dots for keys and groups that are left out."""
    shown = []
    for keys in groups[:_MAX_GROUPS_SHOWN]:
        dots = ["..."] if len(keys) > _MAX_COPIES_SHOWN else []
        shown.append(" = ".join([*keys[:_MAX_COPIES_SHOWN], *dots]))
    return ", ".join(shown) + (" ..." if len(groups) > _MAX_GROUPS_SHOWN else "")


def save_duplicates(
    groups: Sequence[tuple[str, ...]], manifest: pd.DataFrame, processed: Path
) -> None:
    """Write ``duplicates.csv``: one row per copy, or delete it if there are no copies.

    A row says in how many bits the fingerprint differs from that of the recording's first copy.
    """
    import pandas as pd

    path = processed / DUPLICATES_FILE
    if not groups:
        path.unlink(missing_ok=True)
        return
    # The cells and the fingerprint of each copy
    shown = ["dataset", "record_id", "split", "status"]
    keys = [key for group in groups for key in group]
    copies = manifest[record_keys(manifest).isin(keys)]
    cells_of = dict(
        zip(record_keys(copies), zip_cells(*[copies[name] for name in shown]), strict=True)
    )
    print_of = dict(zip_cells(record_keys(copies), copies["signal_hash"]))

    # All fingerprints are compared with those of the first copies in one call.
    table = []
    first_prints = []
    for number, group in enumerate(groups, 1):
        for key in group:
            table.append([str(number), *map(safe_cell, cells_of[key])])
            first_prints.append(print_of[group[0]])
    n_differing, n_compared = differing_bits(first_prints, [print_of[key] for key in keys])

    frame = pd.DataFrame(table, columns=["recording", *shown])
    frame = frame.assign(differing_bits=n_differing, compared_bits=n_compared)
    with atomic_path(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")


def report_duplicates(groups: Sequence[tuple[str, ...]], policy: str) -> None:
    """Log the number of recordings with copies, and what the policy does with them."""
    if groups:
        fate = {
            "group": "each stays in one split",
            "keep-first": "the first of each is kept",
            "drop-all": "all are left out",
        }
        n_records = sum(map(len, groups))
        logger.warning(
            "%d recordings are in %d records (%s): %s; %s",
            len(groups),
            n_records,
            DUPLICATES_FILE,
            fate[policy],
            _format_groups(groups),
        )
