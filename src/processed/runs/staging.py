"""The output folder of a run, which may be at a URL: local tables, and uploads of its files."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from src.locks import lock_folder
from src.processed.manifest import Journal, ManifestRow
from src.processed.mirror import TABLES
from src.processed.npz import is_whole_npz
from src.processed.record_files import record_path
from src.processed.runs.pool import chunked
from src.processed.runs.tasks import RecordTask
from src.records.fetching import fetched_records
from src.records.remote import RemoteFolder, cache_folder
from src.utils import as_path, as_url, make_folder, output_file, temporary_folder

logger = logging.getLogger(__name__)

Work = Callable[[list[RecordTask]], list[ManifestRow]]
ChunkProcess = Callable[[Sequence[RecordTask], Path], list[ManifestRow]]
"""Writes the record files of some tasks below a folder and returns their manifest rows."""

# Local file with the stamp of the remote manifest that the local tables are based on.
_STAMP_FILE = ".manifest-stamp"
# Tasks copied at a time; a whole chunk of day-long recordings would fill a disk.
_TASKS_COPIED = 32


@dataclass(frozen=True)
class Stage:
    """The folder where a run keeps its tables.

    This is the output folder itself, or a local folder if the output is at a URL. Record files for
    a URL are uploaded chunk by chunk, by the process that made them, before their rows are
    journalled.

    Attributes
    ----------
    folder
        The local folder.
    remote
        The output folder at a URL, if it is at one.
    remote_files
        Names of the record files at the URL.
    """

    folder: Path
    remote: RemoteFolder | None = None
    remote_files: frozenset[str] = frozenset()

    def holds(self, key: str) -> bool:
        """Return whether a record's file exists; a local one must also be complete."""
        path = record_path(self.folder, key)
        if self.remote is not None:
            return path.name in self.remote_files
        return is_whole_npz(path)

    def work(self, process: ChunkProcess, tasks: Sequence[RecordTask]) -> Work:
        """Return a function that processes a chunk of tasks and stores its record files.

        `process` writes them into a folder. It reads local files, so records at URLs are copied
        first.
        """
        if self.remote is None and not any(task.stamp for task in tasks):
            return partial(_process_local_chunk, process=process, processed=self.folder)
        return partial(
            process_remote_chunk, process=process, processed=self.folder, target=self.remote
        )

    def pull(self) -> Stage:
        """Download the tables of earlier runs and list the record files.

        Rows journalled here are kept unless another run has changed the remote manifest since.
        """
        if self.remote is None:
            return self
        logger.info("%s: tables are kept in %s while the run lasts", self.remote.url, self.folder)
        files = self.remote.list_files()
        missing = self.remote.fetch([(name, self.folder / name) for name in TABLES])
        for name in missing:
            (self.folder / name).unlink(missing_ok=True)

        stamp = files["manifest.csv"].stamp if "manifest.csv" in files else ""
        stamp_file = self.folder / _STAMP_FILE
        if not stamp_file.exists() or stamp_file.read_text(encoding="utf-8") != stamp:
            Journal(self.folder).remove()
        output_file(stamp_file).write_text(stamp, encoding="utf-8")

        record_files = frozenset(
            name.removeprefix("records/") for name in files if name.startswith("records/")
        )
        return replace(self, remote_files=record_files)

    def push(self) -> None:
        """Upload the tables, and remove remote ones that no longer exist here."""
        if self.remote is None:
            return
        for name in TABLES:
            if (self.folder / name).exists():
                self.remote.upload([(self.folder / name, name)])
            elif name != "splits.json":
                self.remote.remove(name)
        stamp = self.remote.stamp("manifest.csv")
        output_file(self.folder / _STAMP_FILE).write_text(stamp, encoding="utf-8")


@contextmanager
def open_stage(processed: str | Path) -> Iterator[Stage]:
    """Yield the stage of a processed folder, locked for this run.

    The logs of a run at a URL are uploaded at the end, even if the run fails.

    Raises
    ------
    RuntimeError
        If another run holds the folder.
    """
    url = as_url(processed)
    remote = None
    folder = as_path(processed)
    if url is not None:
        remote = RemoteFolder(url)
        folder = cache_folder(url, "runs")
    # The lock comes first, since another run's logs are not ours to upload.
    with lock_folder(folder, "preprocess"):
        try:
            yield Stage(folder, remote)
        finally:
            if remote is not None:
                logs = sorted((folder / "logs").glob("*.log"))
                remote.upload([(path, f"logs/{path.name}") for path in logs])
                shutil.rmtree(folder / "logs", ignore_errors=True)


def _process_local_chunk(
    tasks: Sequence[RecordTask], process: ChunkProcess, processed: Path
) -> list[ManifestRow]:
    return process(tasks, processed)


def process_remote_chunk(
    tasks: Sequence[RecordTask],
    process: ChunkProcess,
    processed: Path,
    target: RemoteFolder | None,
) -> list[ManifestRow]:
    """Process records, from temporary copies of those at URLs.

    With a `target`, record files are uploaded to it instead of written to `processed`. They are
    there when this returns.
    """
    rows = []
    for part in chunked(tasks, _TASKS_COPIED):
        with temporary_folder() as temporary, local_tasks(part) as copied:
            folder = processed if target is None else temporary
            make_folder(folder / "records")
            rows += process(copied, folder)
            if target is not None:
                made = sorted((folder / "records").iterdir())
                target.upload([(path, f"records/{path.name}") for path in made])
    return rows


@contextmanager
def local_tasks(tasks: Sequence[RecordTask]) -> Iterator[list[RecordTask]]:
    """Yield the tasks with temporary local copies of records at URLs."""
    with fetched_records([task.path for task in tasks if task.stamp]) as copies:
        remaining = iter(copies)
        yield [replace(task, copy=str(next(remaining))) if task.stamp else task for task in tasks]
