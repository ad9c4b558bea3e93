"""Errors of readers, and reading a whole file within a size limit."""

from __future__ import annotations

import errno
from pathlib import Path

from src.records.record import RecordError

_NOT_THE_FILE = {
    getattr(errno, name, None)
    for name in (
        "EMFILE",
        "ENFILE",
        "ENOMEM",
        "ESTALE",
        "ENOTCONN",
        "EHOSTDOWN",
        "ETIMEDOUT",
        "ENODEV",
        "ENXIO",
    )
} - {None}


def open_error(path: str | Path, error: OSError) -> OSError | RecordError:
    """Return what to raise for a file that cannot be read: an error of the record, or `error` where
    the machine is at fault.

    A stale mount or a process out of descriptors says nothing of the record, and all others would
    fail as well.
    """
    if _is_machine_fault(error):
        return error
    return RecordError(path, f"cannot be read ({error.strerror or error})")


def package_error(path: str | Path, error: Exception, kind: str) -> Exception:
    """Return what to raise where a package failed to read a file as `kind`, as `open_error` does;
    packages raise whatever they meet.
    """
    if _is_machine_fault(error):
        return error
    return RecordError(path, f"not readable as {kind} ({type(error).__name__}: {error})")


def _is_machine_fault(error: BaseException) -> bool:
    """Tell whether an error is of the machine and says nothing of the file that was read."""
    return isinstance(error, OSError) and error.errno in _NOT_THE_FILE


def read_whole(path: Path, max_bytes: int, what: str) -> bytes:
    """Return the content of a file that has to be read whole, after a look at its size: a sparse
    file may claim any.

    Raises
    ------
    RecordError
        If it is larger than `max_bytes` or cannot be read.
    """
    try:
        n_bytes = path.stat().st_size
        if n_bytes > max_bytes:
            raise RecordError(path, f"has {n_bytes} bytes, over {max_bytes}: expected {what}")
        return path.read_bytes()
    except OSError as error:
        raise open_error(path, error) from None


def missing_extra(path: str | Path, package: str, kind: str) -> RecordError:
    """Return the error for a format whose optional package is not installed."""
    return RecordError(
        path, f"{kind} files need the package {package}: pip install -r requirements-formats.txt"
    )
