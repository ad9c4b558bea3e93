"""A local copy of a processed folder that lies behind a URL."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from src.labels.text_tables import zip_cells
from src.processed.locks import lock_folder
from src.processed.manifest import load_manifest
from src.processed.record_files import record_keys, record_path
from src.utils import as_path, as_url

if TYPE_CHECKING:
    import pandas as pd

    from src.records.remote import RemoteFolder

logger = logging.getLogger(__name__)


TABLES = ("preprocess_config.json", "manifest.csv", "duplicates.csv", "splits.json")
"""What a run leaves beside its record files and logs, in the order in which it is uploaded: the
splits last.
"""
_BATCH = 256  # record files fetched at a time


def local_copy(processed: str | Path) -> Path:
    """Return a processed folder as a local one: itself, or a copy of what lies behind a URL,
    brought up to date.

    The copy is kept in ``~/.cache/ecg-tensor-pipeline``, with the packed cache, and may be deleted
    at any time.

    Raises
    ------
    ValueError
        If the URL holds no processed records.
    OSError
        If it cannot be reached, or there is no room here.
    """
    url = as_url(processed)
    if url is None:
        return as_path(processed)
    from src.records.remote import RemoteFolder, cache_folder

    remote, folder = RemoteFolder(url), cache_folder(url, "copies")
    with lock_folder(folder, "copying", wait=True):  # who comes second finds what the first fetched
        _update_copy(remote, folder)
    return folder


def _update_copy(remote: RemoteFolder, folder: Path) -> None:
    """Fetch the record files that are new or changed, then the tables: a copy that breaks off goes
    on from the old ones.
    """
    with TemporaryDirectory(prefix="ecg-") as place:
        missing = remote.fetch([(name, Path(place) / name) for name in TABLES])
        if "manifest.csv" in missing:
            raise ValueError(
                f"{remote.url}: no processed records here; run preprocess with --out "
                f"{remote.url} first"
            )
        before = _hashes(load_manifest(folder))
        wanted = [
            key
            for key, made in _hashes(load_manifest(place)).items()
            if before.get(key) != made or not record_path(folder, key).exists()
        ]
        if wanted:
            logger.info("%s: fetching %d record files to %s", remote.url, len(wanted), folder)
        _fetch_record_files(remote, folder, wanted)
        for name in TABLES:
            if name in missing:
                (folder / name).unlink(missing_ok=True)
            else:
                shutil.move(Path(place) / name, folder / name)


def _fetch_record_files(remote: RemoteFolder, folder: Path, keys: Sequence[str]) -> None:
    """Fetch record files, each under a temporary name until it is whole."""
    for start in range(0, len(keys), _BATCH):
        paths = [record_path(folder, key) for key in keys[start : start + _BATCH]]
        parts = {path: path.with_name(f".tmp-{path.name}") for path in paths}
        missing = remote.fetch([(f"records/{path.name}", part) for path, part in parts.items()])
        if missing:
            raise ValueError(
                f"{remote.url}/{missing[0]}: is in the manifest but not there; run "
                "preprocess again to make it anew"
            )
        for path, part in parts.items():
            part.replace(path)


def _hashes(manifest: pd.DataFrame) -> Mapping[str, str]:
    """Return key -> what the record file was made from, of the records that are ok."""
    rows = manifest[manifest["status"] == "ok"]
    return dict(zip_cells(record_keys(rows), rows["config_hash"] + rows["input_hash"]))
