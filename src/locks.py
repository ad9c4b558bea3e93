"""A lock file that reserves a folder, or one file, for one process.

The lock is ``flock`` rather than a lock of the package filelock, which cannot keep two promises:
that a folder can be locked on file systems without locks (ENOLCK, EOPNOTSUPP), and that the lock
file says there who holds the folder, with which command and since when.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, NamedTuple

from src.utils import is_alive, make_folder, output_file, printable

logger = logging.getLogger(__name__)


LOCK_FILE = ".lock"
_POLL_S = 0.1
# A lock file that stays empty this long is of a process that was killed before it wrote its name.
_EMPTY_S = 10.0
# Open lock files of this process. A forked child inherits them and must close its copies, because a
# lock lasts as long as one copy is open.
_open_locks: set[IO[bytes]] = set()


class _Holder(NamedTuple):
    """The process that holds a folder; the fields are the keys in the lock file."""

    pid: int
    host: str
    since: str
    what: str

    def __str__(self) -> str:
        return (
            f"{printable(self.what)} runs here already, process {self.pid} on "
            f"{printable(self.host)} since {printable(self.since)}"
        )


@contextmanager
def lock_folder(folder: str | Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Hold a folder, so that no other run writes into it at the same time.

    Where the file system offers locks, the system locks the file ``.lock`` and releases it however
    the process ends. Elsewhere the existence of the file is the lock, and a lock left by a dead
    process of this machine is taken over.

    Parameters
    ----------
    folder
        Created if it does not exist.
    what
        Names the run, for the message that other runs show.
    wait
        Wait for another process that holds the folder.

    Raises
    ------
    ValueError
        As `src.utils.output_folder` does.
    RuntimeError
        If another process holds the folder; the message says which, where and since when.
    """
    folder = make_folder(folder)
    with _held(folder / LOCK_FILE, what, wait, f"{folder}"):
        yield


@contextmanager
def lock_file(path: str | Path, what: str) -> Iterator[Path]:
    """Hold one file, so that no other process changes it between reading and writing.

    Another process that holds it is waited for. The lock is a hidden file beside it.

    Parameters
    ----------
    path
        The file; it need not exist. A link and the file that it leads to have one lock.
    what
        Names the work, for the message of processes that wait.

    Yields
    ------
    Path
        The file, after links.

    Raises
    ------
    ValueError
        As `src.utils.output_file` does.
    """
    target = output_file(path)
    folder = make_folder(target.parent)
    with _held(folder / f".{target.name}{LOCK_FILE}", what, True, f"{path}"):
        yield target


@contextmanager
def _held(path: Path, what: str, wait: bool, name: str) -> Iterator[None]:
    """Hold a lock file; `name` is what it reserves, for messages."""
    # Opening a pipe would block, and a link would have another file written.
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise ValueError(f"{path}: is no file of ours: expected a lock file; remove it")
    stream = _take_lock(path)
    if stream is None and wait:
        logger.info("%s: %s; waiting for it", name, _describe_holder(path))
    while stream is None and wait:
        time.sleep(_POLL_S)
        stream = _take_lock(path)
    if stream is None:
        raise RuntimeError(
            f"{name}: {_describe_holder(path)}; wait for it, or choose another folder"
        )
    try:
        _write_holder(path, what)
        yield
    finally:
        _release_lock(path, stream)


def _release_lock(path: Path, stream: IO[bytes]) -> None:
    if stream in _open_locks:
        # The system's lock is released last, so that nobody locks the file that is being removed.
        path.unlink(missing_ok=True)
        _open_locks.discard(stream)
        stream.close()
    else:
        # Windows cannot remove an open file.
        stream.close()
        path.unlink(missing_ok=True)


def _take_lock(path: Path) -> IO[bytes] | None:
    """Return the open lock file, or None if another process holds it."""
    try:
        import fcntl
    except ImportError:  # Windows
        return _create_lock_file(path)
    while True:
        stream = open(path, "ab")  # noqa: SIM115  open as long as the folder is held
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.close()
            return None
        except OSError:
            # This file system has no locks.
            stream.close()
            return _create_lock_file(path)

        # The previous holder may have removed the file after it was opened here. Then the lock is
        # on a file that no other process can find.
        if path.exists() and os.path.samestat(os.fstat(stream.fileno()), os.stat(path)):
            _report_takeover(path)
            _open_locks.add(stream)
            return stream
        stream.close()


def _close_in_child() -> None:
    """Close a forked child's copies of the lock files, which stay locked by the parent."""
    for stream in _open_locks:
        stream.close()
    _open_locks.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


def _create_lock_file(path: Path) -> IO[bytes] | None:
    """Return a new lock file, which is the lock itself, or None if a live process has one.

    It replaces the lock file of a dead process of this machine.
    """
    for _ in range(2):
        try:
            # Until its holder is written, the file is too young to be taken over.
            return open(path, "xb")
        except FileExistsError:
            if not _is_stale(path):
                return None
            _report_takeover(path)
            path.unlink(missing_ok=True)
    return None


def _is_stale(path: Path) -> bool:
    """Return whether a lock file is of a dead process of this machine."""
    holder = _read_holder(path)
    if holder is not None:
        return holder.host == platform.node() and not is_alive(holder.pid)
    # Its process may have created it just now.
    try:
        return time.time() - path.stat().st_mtime > _EMPTY_S
    except FileNotFoundError:
        return True


def _report_takeover(path: Path) -> None:
    holder = _read_holder(path)
    if holder is not None:
        logger.warning("%s: taken over from a run that is gone (%s)", path, holder)


def _write_holder(path: Path, what: str) -> None:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    holder = _Holder(os.getpid(), platform.node(), since, what)
    path.write_text(json.dumps(holder._asdict()) + "\n", encoding="utf-8")


def _read_holder(path: Path) -> _Holder | None:
    """Return the holder that a lock file names, or None if it names none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(values, dict) or not isinstance(values.get("pid"), int):
        return None
    host, since, what = (str(values.get(name, "?")) for name in ("host", "since", "what"))
    return _Holder(values["pid"], host, since, what)


def _describe_holder(path: Path) -> str:
    return str(_read_holder(path) or "another process holds this folder")
