"""A lock file that holds a folder for one process."""

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
from typing import IO, Any

from src.utils import printable

logger = logging.getLogger(__name__)


LOCK_FILE = ".lock"
_POLL_S = 0.1
_NAMELESS_S = 10.0  # a lock file that names nobody is of a process that was killed before it could
_held: set[IO[bytes]] = set()
"""Lock files of this process. Children close theirs, since a lock lasts as long as one copy of its
file is open.
"""


def is_alive(pid: int) -> bool:
    """Tell whether a process of this machine is there."""
    if os.name != "posix":  # asking there may end the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Tell whether a process has ended and only waits to be asked for its exit status."""
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text(encoding="latin-1").rpartition(")")[2].split()[0]
            == "Z"
        )
    except (OSError, IndexError):
        return False


@contextmanager
def lock_folder(folder: str | Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Hold a folder, so that no other run writes into it at the same time.

    The lock is the system's own on the file ``.lock`` where the file system offers one, and goes
    with the process however it ends. Elsewhere the file itself is the lock, and that of a process
    that is gone is taken over.

    Parameters
    ----------
    folder
        Made where it is not there.
    what
        What the run does, for the message that another gets.
    wait
        Wait for another process that holds the folder.

    Raises
    ------
    RuntimeError
        If another process holds the folder; the message says which, where and since when.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_FILE
    stream = _take_lock(path)
    if stream is None and wait:
        logger.info("%s: %s; waiting for it", folder, _describe(_holder(path)))
    while stream is None and wait:
        time.sleep(_POLL_S)
        stream = _take_lock(path)
    if stream is None:
        raise RuntimeError(
            f"{folder}: {_describe(_holder(path))}; wait for it, or choose another folder"
        )
    try:
        _write_holder(path, what)
        yield
    finally:
        if (
            stream in _held
        ):  # the system's lock: let go of last, so that nobody takes the file that is about to go
            path.unlink(missing_ok=True)
            _held.discard(stream)
            stream.close()
        else:  # Windows removes no open file
            stream.close()
            path.unlink(missing_ok=True)


def _take_lock(path: Path) -> IO[bytes] | None:
    """Return the open lock file, or None where another process holds it."""
    try:
        import fcntl
    except ImportError:  # Windows
        return _make_lock_file(path)
    while True:
        stream = open(path, "ab")  # noqa: SIM115  open as long as the folder is held
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.close()
            return None
        except OSError:  # no locks on this file system
            stream.close()
            return _make_lock_file(path)
        if path.exists() and os.path.samestat(os.fstat(stream.fileno()), os.stat(path)):
            _report_takeover(path)
            _held.add(stream)
            return stream
        stream.close()  # the one before removed the file meanwhile


def _let_go() -> None:
    for stream in _held:
        stream.close()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def _is_stale(path: Path) -> bool:
    """Tell whether the process that a lock file names was of this machine and is gone; one that
    names none may just be made.
    """
    holder = _holder(path)
    if holder:
        return holder.get("host") == platform.node() and not is_alive(holder["pid"])
    try:
        return time.time() - path.stat().st_mtime > _NAMELESS_S
    except FileNotFoundError:
        return True


def _report_takeover(path: Path) -> None:
    if _holder(path):
        logger.warning(
            "%s: taken over from a run that is gone (%s)", path, _describe(_holder(path))
        )


def _make_lock_file(path: Path) -> IO[bytes] | None:
    """Make the lock file, over that of a process of this machine that is gone; None where that of a
    living one is there.
    """
    for _ in range(2):
        try:
            return open(
                path, "xb"
            )  # until it names its holder, it is young enough to be left alone
        except FileExistsError:
            if not _is_stale(path):
                return None
            _report_takeover(path)
            path.unlink(missing_ok=True)
    return None


def _write_holder(path: Path, what: str) -> None:
    holder = {
        "pid": os.getpid(),
        "host": platform.node(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "what": what,
    }
    path.write_text(json.dumps(holder) + "\n", encoding="utf-8")


def _holder(path: Path) -> dict[str, Any]:
    """Return who holds a folder, as far as the lock file tells."""
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    usable = isinstance(holder, dict) and isinstance(holder.get("pid"), int)
    return holder if usable else {}


def _describe(holder: dict[str, Any]) -> str:
    if not holder:
        return "another process holds this folder"
    who = {name: printable(str(holder.get(name, "?"))) for name in ("what", "pid", "host", "since")}
    return (
        f"{who['what']} runs here already, process {who['pid']} on {who['host']} since "
        f"{who['since']}"
    )
