"""Processed folders behind URLs: a run works on local tables and uploads what it makes; training
works on a local copy.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from src.processed.locks import lock_folder
from src.processed.manifest import Journal, ManifestRow
from src.processed.mirror import TABLES
from src.processed.npz import is_whole_npz
from src.processed.record_files import record_path
from src.processed.runs.pool import chunked
from src.processed.runs.tasks import RecordTask
from src.records.fetching import fetched_records
from src.records.remote import RemoteFolder, cache_folder
from src.utils import as_path, as_url

logger = logging.getLogger(__name__)


Work = Callable[[list[RecordTask]], list[ManifestRow]]
ChunkProcess = Callable[[Sequence[RecordTask], Path], list[ManifestRow]]
"""Writes the record files of some tasks below a folder and returns their manifest rows."""

_BASE = ".manifest-stamp"
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

    def work(self, process: ChunkProcess, tasks: Sequence[RecordTask]) -> Work:
        """Return a function of a chunk of the tasks that leaves its record files where they belong.

        `process` makes them in a folder. It takes local files, so tasks behind URLs are copied.
        """
        if self.remote is None and not any(task.stamp for task in tasks):
            return partial(_process_local_chunk, process=process, processed=self.folder)
        return partial(
            process_remote_chunk, process=process, processed=self.folder, target=self.remote
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
    with lock_folder(folder, "preprocess"):  # first: the logs of a run that is going on are its own
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
    """Process records from temporary copies where they lie behind URLs.

    With a `target`, record files go there instead of to `processed`; when this returns, they are
    there.
    """
    rows = []
    for part in chunked(tasks, _TASKS_COPIED):
        with TemporaryDirectory(prefix="ecg-") as folder, local_tasks(part) as copied:
            place = processed if target is None else Path(folder)
            (place / "records").mkdir(parents=True, exist_ok=True)
            rows += process(copied, place)
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
