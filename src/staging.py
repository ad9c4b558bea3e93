"""Processed folders behind URLs: a run works on local tables and uploads what it makes; training
works on a local copy.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from src.config import PreprocessConfig
from src.durable import hold_folder
from src.fetching import fetched_records
from src.npz import is_whole_npz
from src.pool import chunked
from src.remote import RemoteFolder, as_path, as_url, cache_folder
from src.store import Journal, ManifestRow, load_manifest, record_keys, record_path
from src.tensors import RecordTask, process_chunk
from src.text_tables import zip_cells

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

Work = Callable[[list[RecordTask]], list[ManifestRow]]

TABLES = ("preprocess_config.json", "manifest.csv", "duplicates.csv", "splits.json")
"""What a run leaves beside its record files and logs, in the order in which it is uploaded: the
splits last.
"""

_BASE = ".manifest-stamp"
_BATCH = 256  # record files fetched at a time
_TASKS_COPIED = 32  # at a time: those of a whole chunk of day-long recordings would fill a disk


@dataclass(frozen=True)
class Stage:
    """Where a run keeps its tables: the output folder itself, or a local folder that stands for one
    behind a URL.

    Record files of the latter are uploaded chunk by chunk by whoever made them, before their rows
    are journalled.
    """

    folder: Path
    remote: RemoteFolder | None = None
    held: frozenset[str] = frozenset()

    def holds(self, key: str) -> bool:
        """Tell whether the record file of a key is there, and here whether it is whole."""
        path = record_path(self.folder, key)
        return path.name in self.held if self.remote else is_whole_npz(path)

    def work(self, tasks: Sequence[RecordTask], config: PreprocessConfig, on_error: str) -> Work:
        """Return what processes a chunk of the tasks and leaves its record files where they
        belong.
        """
        local = partial(process_chunk, processed=self.folder, config=config, on_error=on_error)
        if self.remote is None and not any(task.stamp for task in tasks):
            return local
        return partial(
            process_remote_chunk,
            processed=self.folder,
            config=config,
            on_error=on_error,
            target=self.remote,
        )

    def pull(self) -> Stage:
        """Fetch the tables of earlier runs and list the record files; rows journalled here count if
        no other run came between.
        """
        if self.remote is None:
            return self
        logger.info("%s: tables are kept in %s while the run lasts", self.remote.url, self.folder)
        files = self.remote.list_files()
        for name in self.remote.fetch([(name, self.folder / name) for name in TABLES]):
            (self.folder / name).unlink(missing_ok=True)
        base, stamp = (
            self.folder / _BASE,
            files["manifest.csv"].stamp if "manifest.csv" in files else "",
        )
        if not base.exists() or base.read_text(encoding="utf-8") != stamp:
            Journal(self.folder).remove()
        base.write_text(stamp, encoding="utf-8")
        return replace(
            self,
            held=frozenset(
                name.removeprefix("records/") for name in files if name.startswith("records/")
            ),
        )

    def push(self) -> None:
        """Upload the tables; those that are gone here go there."""
        if self.remote is None:
            return
        for name in TABLES:
            if (self.folder / name).exists():
                self.remote.upload([(self.folder / name, name)])
            elif name != "splits.json":
                self.remote.remove(name)
        stamp = self.remote.stamp("manifest.csv")
        (self.folder / _BASE).write_text(stamp, encoding="utf-8")


@contextmanager
def open_stage(processed: str | Path) -> Iterator[Stage]:
    """Yield the stage of a processed folder, held; the logs that a run leaves in it are uploaded at
    the end, however it ends.

    Raises
    ------
    RuntimeError
        If another run holds it.
    """
    url = as_url(processed)
    folder, remote = (
        (as_path(processed), None)
        if url is None
        else (cache_folder(url, "runs"), RemoteFolder(url))
    )
    with hold_folder(folder, "preprocess"):  # first: the logs of a run that is going on are its own
        try:
            yield Stage(folder, remote)
        finally:
            if remote is not None:
                logs = sorted((folder / "logs").glob("*.log"))
                remote.upload([(path, f"logs/{path.name}") for path in logs])
                shutil.rmtree(folder / "logs", ignore_errors=True)


def process_remote_chunk(
    tasks: Sequence[RecordTask],
    processed: Path,
    config: PreprocessConfig,
    on_error: str,
    target: RemoteFolder | None,
) -> list[ManifestRow]:
    """Process records as `process_chunk` does, from temporary copies where they lie behind URLs.

    With a `target`, record files go there instead of to `processed`; when this returns, they are
    there.
    """
    rows = []
    for part in chunked(tasks, _TASKS_COPIED):
        with TemporaryDirectory(prefix="ecg-") as folder, local_tasks(part) as copied:
            place = processed if target is None else Path(folder)
            (place / "records").mkdir(parents=True, exist_ok=True)
            rows += process_chunk(copied, place, config, on_error)
            if target is not None:
                target.upload(
                    [
                        (path, f"records/{path.name}")
                        for path in sorted((place / "records").iterdir())
                    ]
                )
    return rows


@contextmanager
def local_tasks(tasks: Sequence[RecordTask]) -> Iterator[list[RecordTask]]:
    """Yield the tasks with local copies of those that lie behind URLs, which are gone
    afterwards.
    """
    with fetched_records([task.path for task in tasks if task.stamp]) as copies:
        left = iter(copies)
        yield [replace(task, copy=str(next(left))) if task.stamp else task for task in tasks]


# A processed folder to read -----------------------------------------------------------------------


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
    remote, folder = RemoteFolder(url), cache_folder(url, "copies")
    with hold_folder(folder, "copying", wait=True):  # who comes second finds what the first fetched
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
