"""Files that survive crashes: many brought to the disk at once, what dead runs left cleaned up,
folders held by one run.

Nothing is visible under its final name before it is whole and on the disk.
"""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import re
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from types import TracebackType

from src.processed.locks import is_alive
from src.utils import host_id, sync_path, temporary_name

logger = logging.getLogger(__name__)

_LEFTOVER = re.compile(r"^\.tmp-([0-9a-f]{6})-(\d+)-[0-9a-f]{8}")
_STRANGE_S = (
    7 * 24 * 3600.0
)  # a temporary file of another machine is left over when it was not touched for so long
_SYNC_THREADS = 16  # file systems bring what is asked for at the same time to the disk in one go
_LOCAL_FILE_SYSTEMS = {"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "tmpfs"}


# Writing ------------------------------------------------------------------------------------------


class FileBatch:
    """Files written under temporary names, which get their final ones together once all are on the
    disk.

    As a context it removes on the way out what was not committed. Syncing file by file would take
    most of a preprocessing run; a batch of some dozens takes little longer than one of them, and
    `flush` lets the disk work while the next files are made.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[str, str]] = []
        self._syncing: list[tuple[str, str]] = []
        self._folders: set[str] = set()
        self._handles: dict[
            int, int
            # by device, a folder open since before anything was written: syncing it tells of any
            # error
        ] = {}
        self._thread: ThreadPoolExecutor | None = None
        self._synced: Future[None] | None = None

    def __len__(self) -> int:
        """How many files there are that no `flush` was asked for."""
        return len(self._waiting)

    def add(self, path: str | Path) -> str:
        """Return the temporary path to write what shall become `path`."""
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders.add(folder)
            self._watch(folder or ".")
        temporary = os.path.join(folder, temporary_name(name))
        self._waiting.append((temporary, str(path)))
        return temporary

    def _watch(self, folder: str) -> None:
        """Keep a folder of each file system open; one for each folder could be more than a process
        may have.
        """
        device = os.stat(folder).st_dev
        if device not in self._handles and os.name == "posix":
            self._handles[device] = os.open(folder, os.O_RDONLY)

    def discard(self, start: int = 0) -> None:
        """Remove the files from the `start`-th on of those that no `flush` was asked for."""
        for temporary, _ in self._waiting[start:]:
            Path(temporary).unlink(missing_ok=True)
        del self._waiting[start:]

    def flush(self) -> None:
        """Begin to bring what is written to the disk without waiting for it; what an earlier call
        began gets its names.
        """
        self._rename()
        self._syncing, self._waiting = self._waiting, []
        if self._syncing:
            self._thread = self._thread or ThreadPoolExecutor(1, "sync")
            self._synced = self._thread.submit(
                sync_files,
                [temporary for temporary, _ in self._syncing],
                list(self._handles.values()),
            )

    def _rename(self) -> None:
        if self._synced is not None:
            self._synced.result()
            self._synced = None
        for temporary, path in self._syncing:
            # a Path would take longer to make than the call
            os.replace(temporary, path)  # noqa: PTH105
        self._syncing = []

    def commit(self) -> None:
        """Bring all files to the disk, then give them their names."""
        self.flush()
        self._rename()
        if self._folders:
            sync_files([folder or "." for folder in self._folders], list(self._handles.values()))

    def __enter__(self) -> FileBatch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._thread is not None:
            self._thread.shutdown()
        self._waiting += self._syncing
        self._syncing = []
        self.discard()
        for handle in self._handles.values():
            os.close(handle)
        self._handles.clear()


def sync_files(paths: Sequence[str], folders: Sequence[int]) -> None:
    """Wait until files, or the names in folders, are on the disk; `folders` are open ones, of each
    file system one.

    A file system that is known to do so is asked for everything at once, which costs a fraction of
    asking for each file.
    """
    if folders and all(_syncs_at_once(handle) for handle in folders):
        for handle in folders:
            sync_file_system(handle)
        return
    with ThreadPoolExecutor(min(_SYNC_THREADS, len(paths))) as threads:
        list(threads.map(sync_path, paths))


def sync_file_system(handle: int) -> None:
    """Wait until all that was written to the file system of an open folder is on its disk."""
    if _libc().syncfs(handle) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@lru_cache(maxsize=1)
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _syncs_at_once(handle: int) -> bool:
    return sys.platform == "linux" and _is_local(os.fstat(handle).st_dev)


@lru_cache(maxsize=16)
def _is_local(device: int) -> bool:
    """Tell whether a device is a local file system on which Linux syncs all at once and tells of
    every error.

    Errors are told from Linux 5.8 on. Others, such as those in user space, may have syncfs do
    nothing.
    """
    release = re.match(r"(\d+)\.(\d+)", platform.release())
    if (
        release is None
        or (int(release[1]), int(release[2])) < (5, 8)
        or not hasattr(_libc(), "syncfs")
    ):
        return False
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = (
            Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        )
    except OSError:
        return False
    kinds = {
        line.rpartition(" - ")[2].split(" ")[0] for line in mounts if line.split(" ")[2] == number
    }
    return bool(kinds) and kinds <= _LOCAL_FILE_SYSTEMS


def remove_leftovers(folders: Iterable[Path]) -> int:
    """Delete the temporary files of processes that are gone from some folders; returns how many
    there were.
    """
    removed = 0
    for folder in folders:
        if not folder.is_dir():
            continue
        with os.scandir(folder) as entries:
            left = [
                entry for entry in entries if entry.name.startswith(".tmp-") and _is_leftover(entry)
            ]
        for entry in left:
            Path(entry.path).unlink(missing_ok=True)
        removed += len(left)
    if removed:
        logger.info("removed %d temporary files that an interrupted run left", removed)
    return removed


def _is_leftover(entry: os.DirEntry[str]) -> bool:
    match = _LEFTOVER.match(entry.name)
    if match is not None and match[1] == host_id():
        return not is_alive(int(match[2]))
    try:
        return time.time() - entry.stat().st_mtime > _STRANGE_S
    except FileNotFoundError:
        return False
