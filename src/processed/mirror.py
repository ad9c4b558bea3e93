"""A local copy of a processed folder at a URL."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from src.labels.text_tables import zip_cells
from src.locks import lock_folder
from src.processed.manifest import load_manifest
from src.processed.record_files import record_keys, record_path
from src.utils import as_path, as_url, remove_leftovers, temporary_folder, temporary_path

if TYPE_CHECKING:
    import pandas as pd

    from src.records.remote import RemoteFolder

logger = logging.getLogger(__name__)


TABLES = ("preprocess_config.json", "manifest.csv", "duplicates.csv", "splits.json")
"""The files that a run writes beside record files and logs, in the order of upload: splits last."""
# Record files fetched at a time
_BATCH = 256


def local_copy(processed: str | Path) -> Path:
    """Return a local folder as it is, or an up-to-date local copy of a folder at a URL.

    The copy is kept in ``~/.cache/ecg-tensor-pipeline``, with the packed cache, and may be deleted
    at any time.

    Raises
    ------
    ValueError
        If the URL holds no processed records.
    OSError
        If the URL cannot be reached, or the local disk has no room.
    """
    url = as_url(processed)
    if url is None:
        return as_path(processed)
    from src.records.remote import RemoteFolder, cache_folder

    remote = RemoteFolder(url)
    folder = cache_folder(url, "copies")
    # A second process waits, and then finds the files that the first one fetched.
    with lock_folder(folder, "copying", wait=True):
        remove_leftovers([folder, folder / "records"])
        _update_copy(remote, folder)
    return folder


def _update_copy(remote: RemoteFolder, folder: Path) -> None:
    """Fetch the record files that are new or changed, then replace the tables.

    The tables come last, so that an interrupted copy is resumed: its old manifest still shows which
    record files were old.
    """
    with temporary_folder() as new_tables:
        missing = remote.fetch([(name, new_tables / name) for name in TABLES])
        if "manifest.csv" in missing:
            raise ValueError(
                f"{remote.url}: no processed records here; run preprocess with --out "
                f"{remote.url} first"
            )

        old_hashes = _record_hashes(load_manifest(folder))
        outdated = []
        for key, new_hash in _record_hashes(load_manifest(new_tables)).items():
            if old_hashes.get(key) != new_hash or not record_path(folder, key).exists():
                outdated.append(key)
        if outdated:
            logger.info("%s: fetching %d record files to %s", remote.url, len(outdated), folder)
        _fetch_record_files(remote, folder, outdated)

        for name in TABLES:
            if name in missing:
                (folder / name).unlink(missing_ok=True)
            else:
                shutil.move(new_tables / name, folder / name)


def _fetch_record_files(remote: RemoteFolder, folder: Path, keys: Sequence[str]) -> None:
    """Fetch record files, each under a temporary name until it is complete."""
    for start in range(0, len(keys), _BATCH):
        paths = [record_path(folder, key) for key in keys[start : start + _BATCH]]
        temporary = {path: temporary_path(path) for path in paths}
        missing = remote.fetch([(f"records/{path.name}", temporary[path]) for path in paths])
        if missing:
            raise ValueError(
                f"{remote.url}/{missing[0]}: the manifest names it, but it does not exist; run "
                "preprocess again to rewrite it"
            )
        for path in paths:
            temporary[path].replace(path)


def _record_hashes(manifest: pd.DataFrame) -> Mapping[str, str]:
    """Return key -> hash of settings and input, for the ok records."""
    rows = manifest[manifest["status"] == "ok"]
    return dict(zip_cells(record_keys(rows), rows["config_hash"] + rows["input_hash"]))
