"""Writing many files so that they survive a crash.

No file gets its final name before it is complete and on the disk.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import stat
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from types import TracebackType

from src.utils import sync_path, temporary_name

# File systems write in one go what is synced at the same time.
_SYNC_THREADS = 16
_LOCAL_FILE_SYSTEMS = {"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "tmpfs"}


# Writing ------------------------------------------------------------------------------------------


class FileBatch:
    """Files under temporary names that get their final names together, once all are on the disk.

    Used as a context, it removes uncommitted files at its end. Syncing file by file would take most
    of a preprocessing run. A batch of some dozens takes little longer than one file, and `flush`
    lets the disk work while the next files are made.
    """

    def __init__(self) -> None:
        # Pairs of temporary and final path
        self._waiting: list[tuple[str, str]] = []
        self._syncing: list[tuple[str, str]] = []
        self._folders: set[str] = set()
        # By device, a folder that is opened before anything is written: syncing it reports every
        # error since then.
        self._handles: dict[int, int] = {}
        self._thread: ThreadPoolExecutor | None = None
        self._synced: Future[None] | None = None

    def __len__(self) -> int:
        """Number of files since the last `flush`."""
        return len(self._waiting)

    def add(self, path: str | Path) -> str:
        """Return the temporary path under which to write the file `path`.

        Raises
        ------
        OSError
            If `path` is a link, a folder or anything else that is not a file.
        """
        _require_file_or_nothing(path)
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders.add(folder)
            self._open_file_system(folder or ".")
        temporary = os.path.join(folder, temporary_name(name))
        self._waiting.append((temporary, str(path)))
        return temporary

    def _open_file_system(self, folder: str) -> None:
        """Keep one folder of each file system open; a process may not open them all."""
        device = os.stat(folder).st_dev
        if device not in self._handles and os.name == "posix":
            self._handles[device] = os.open(folder, os.O_RDONLY)

    def discard(self, start: int = 0) -> None:
        """Remove the files since the last `flush`, from the `start`-th on."""
        for temporary, _ in self._waiting[start:]:
            Path(temporary).unlink(missing_ok=True)
        del self._waiting[start:]

    def flush(self) -> None:
        """Start to sync the files added so far, without waiting.

        The files of an earlier call get their final names.
        """
        self._rename_synced()
        self._syncing = self._waiting
        self._waiting = []
        if self._syncing:
            self._thread = self._thread or ThreadPoolExecutor(1, "sync")
            paths = [temporary for temporary, _ in self._syncing]
            handles = list(self._handles.values())
            self._synced = self._thread.submit(sync_files, paths, handles)

    def _rename_synced(self) -> None:
        """Wait until the files of the last `flush` are synced, and give them their final names."""
        if self._synced is not None:
            self._synced.result()
            self._synced = None
        for temporary, path in self._syncing:
            # A Path takes longer to make than the call.
            os.replace(temporary, path)  # noqa: PTH105
        self._syncing = []

    def commit(self) -> None:
        """Sync all files, give them their final names, and sync these."""
        self.flush()
        self._rename_synced()
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


def _require_file_or_nothing(path: str | Path) -> None:
    """Refuse to replace what is not a file; a link may lead to a file of another folder."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        reason = "is a link, a folder or a device, which is not replaced by a file: remove it"
        raise OSError(errno.EEXIST, reason, str(path))


def sync_files(paths: Sequence[str], folders: Sequence[int]) -> None:
    """Wait until files, or the names in folders, are on the disk.

    Some file systems are known to sync everything at once, at a fraction of the cost of file by
    file.

    Parameters
    ----------
    paths
        Files, or folders whose names to sync.
    folders
        Handles of open folders, one of each file system.
    """
    if folders and all(_syncs_at_once(handle) for handle in folders):
        for handle in folders:
            sync_file_system(handle)
        return
    with ThreadPoolExecutor(min(_SYNC_THREADS, len(paths))) as threads:
        list(threads.map(sync_path, paths))


def sync_file_system(handle: int) -> None:
    """Wait until everything written to the file system of an open folder is on its disk."""
    if _libc().syncfs(handle) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@lru_cache(maxsize=1)
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _syncs_at_once(handle: int) -> bool:
    """Return whether `sync_file_system` can be relied on for the file system of an open folder."""
    return sys.platform == "linux" and _is_local(os.fstat(handle).st_dev)


@lru_cache(maxsize=16)
def _is_local(device: int) -> bool:
    """Return whether a device is a local file system whose syncfs syncs all and reports errors.

    Linux reports them from 5.8 on. Other file systems, such as those in user space, may do nothing.
    """
    release = re.match(r"(\d+)\.(\d+)", platform.release())
    if release is None or (int(release[1]), int(release[2])) < (5, 8):
        return False
    if not hasattr(_libc(), "syncfs"):
        return False
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False

    # A line has the device as its third field, and the kind of file system after a dash.
    number = f"{os.major(device)}:{os.minor(device)}"
    kinds = set()
    for line in mounts.splitlines():
        if line.split(" ")[2] == number:
            kinds.add(line.rpartition(" - ")[2].split(" ")[0])
    return bool(kinds) and kinds <= _LOCAL_FILE_SYSTEMS
