"""The leak gate: one recording in several files stays in one split or is taken out, and none is
judged that was learned from.

Challenge 2021 holds all of PTB-XL, CPSC 2018 and Chapman/Ningbo, and single collections hold
records twice. Copies are found by the fingerprints in the manifest; docs/duplicates.md says how
well.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from src.labels.text_tables import safe_cell, zip_cells
from src.processed.fingerprints import differing_bits, find_copies
from src.processed.manifest import COPY_REASON, is_rejected_copy
from src.processed.record_files import record_key, record_keys
from src.utils import atomic_path

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


DUPLICATES_FILE = "duplicates.csv"

_GROUPS_SHOWN, _COPIES_SHOWN = 10, 4


def restore_copies(manifest: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with copies that an earlier run took out as ok again; their record files are
    kept.
    """
    taken = is_rejected_copy(manifest)
    if not taken.any():
        return manifest
    return manifest.assign(
        status=manifest["status"].mask(taken, "ok"), reason=manifest["reason"].mask(taken, "")
    )


def find_duplicates(
    manifest: pd.DataFrame, placed: Collection[str] = (), datasets: Sequence[str] = ()
) -> list[tuple[str, ...]]:
    """Return the keys of the ok records that are the same recording, a tuple for each recording,
    the first copy first.

    Parameters
    ----------
    manifest
        As `src.store.load_manifest` returns it.
    placed
        Keys that an earlier run gave a split; they come first.
    datasets
        Then copies come in the order of these datasets, then by dataset and record id.
    """
    ok = manifest[manifest["status"] == "ok"]
    order = {name: number for number, name in enumerate(datasets)}
    records = list(zip_cells(ok["dataset"], ok["record_id"]))

    def rank(position: int) -> tuple[bool, int, tuple[str, str]]:
        record = records[position]
        return record_key(*record) not in placed, order.get(record[0], len(order)), record

    groups = [sorted(group, key=rank) for group in find_copies(ok["signal_hash"].tolist())]
    return sorted(tuple(record_key(*records[i]) for i in group) for group in groups)


def reject_copies(
    manifest: pd.DataFrame, groups: Sequence[tuple[str, ...]], policy: str
) -> pd.DataFrame:
    """Return the rows after a policy: group keeps all copies, keep-first the first, drop-all none.

    Raises
    ------
    ValueError
        With policy ``fail``, where there is a copy; the message lists them and says what to do.
    """
    if policy == "fail" and groups:
        raise ValueError(
            f"{len(groups)} recordings are in several records: {_listed(groups)}; keep "
            "them in one split with --on-duplicate group, "
            "or leave copies out with keep-first or drop-all"
        )
    if policy in ("group", "fail"):
        return manifest
    spared = 1 if policy == "keep-first" else 0
    reasons = {key: COPY_REASON + _other(group, key) for group in groups for key in group[spared:]}
    found = record_keys(manifest).map(reasons)
    return manifest.assign(
        status=manifest["status"].mask(found.notna(), "rejected"),
        reason=found.fillna(manifest["reason"]),
    )


def _other(group: tuple[str, ...], key: str) -> str:
    return group[0] if key != group[0] else group[1]


def _listed(groups: Sequence[tuple[str, ...]]) -> str:
    shown = ", ".join(" = ".join(_first(group, _COPIES_SHOWN)) for group in groups[:_GROUPS_SHOWN])
    return f"{shown} ..." if len(groups) > _GROUPS_SHOWN else shown


def _first(keys: tuple[str, ...], n: int) -> tuple[str, ...]:
    """Return the first keys, with dots for those that are left out."""
    return keys if len(keys) <= n else (*keys[:n], "...")


def save_duplicates(
    groups: Sequence[tuple[str, ...]], manifest: pd.DataFrame, processed: Path
) -> None:
    """Write ``duplicates.csv``: a row per copy, with how many bits of its fingerprint differ from
    the first's.

    Without copies there is no such file.
    """
    import pandas as pd

    path = processed / DUPLICATES_FILE
    if not groups:
        path.unlink(missing_ok=True)
        return
    shown = ("dataset", "record_id", "split", "status")
    copied = manifest.loc[
        record_keys(manifest).isin([key for group in groups for key in group]),
        [*shown, "signal_hash"],
    ]
    rows = {
        key: cells
        for key, *cells in zip_cells(record_keys(copied), *(copied[name] for name in copied))
    }
    listed = [
        (number, rows[group[0]][-1], *rows[key])
        for number, group in enumerate(groups, 1)
        for key in group
    ]
    bits = differing_bits([first for _, first, *_ in listed], [own for *_, own in listed])
    table = [
        (number, *map(safe_cell, cells), *counts)
        for (number, _, *cells, _), *counts in zip(
            listed, *(count.tolist() for count in bits), strict=True
        )
    ]
    columns = ["recording", *shown, "differing_bits", "compared_bits"]
    with atomic_path(path) as temporary:
        pd.DataFrame(table, columns=columns).to_csv(temporary, index=False, lineterminator="\n")


def report_duplicates(groups: Sequence[tuple[str, ...]], policy: str) -> None:
    """Log how many recordings have copies and what became of them."""
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
            _listed(groups),
        )
