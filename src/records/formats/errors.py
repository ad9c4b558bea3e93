"""The errors that readers raise, and reading a whole file within a size limit."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from src.records.record import RecordError

HEAD_BYTES = 2**16
"""First bytes of a file that tell what it is."""

# Files of up to this size are read whatever was written of them, and larger ones if a quarter was.
_SMALL_BYTES = 2**27
_MAX_SPARSE = 4
_MAX_HOLES = 100_000
# Errors of the machine, not of the file. Some systems lack some of them.
_MACHINE_FAULTS = {
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
    """Return the error to raise for a file that cannot be opened or read.

    A stale mount or a process out of file descriptors says nothing about the record, and all other
    records would fail as well. Such an error is returned as it is, so that the run stops.

    Parameters
    ----------
    path
        The file.
    error
        The error of the system.

    Returns
    -------
    OSError or RecordError
        `error` if the machine is at fault, else an error of the record.
    """
    if _is_machine_fault(error):
        return error
    return RecordError(path, f"cannot be read ({error.strerror or error})")


def package_error(path: str | Path, error: Exception, kind: str) -> Exception:
    """Return the error to raise for a file that a package failed to read.

    Parameters
    ----------
    path
        The file.
    error
        The error of the package, which may be of any class.
    kind
        The format, for the message.

    Returns
    -------
    Exception
        `error` if the machine is at fault (see `open_error`), else a RecordError.
    """
    if _is_machine_fault(error):
        return error
    text = f"{type(error).__name__}: {error}"
    # What a damaged size claims, not what the machine lacks
    if "memory allocation failed" in text:
        text = "a damaged part claims more than the file holds"
    return RecordError(path, f"not readable as {kind} ({text})")


def _is_machine_fault(error: BaseException) -> bool:
    """Return whether an error is the machine's and says nothing about the file."""
    return isinstance(error, OSError) and error.errno in _MACHINE_FAULTS


def read_whole(path: Path, max_bytes: int, what: str) -> bytes:
    """Return the content of a file, after checking its size.

    A sparse file may have any size without taking space on disk.

    Parameters
    ----------
    path
        The file.
    max_bytes
        Largest size that is read.
    what
        Content that was expected, for the message.

    Raises
    ------
    RecordError
        If it is larger than `max_bytes` or cannot be read.
    """
    try:
        n_bytes = path.stat().st_size
        if n_bytes > max_bytes:
            raise RecordError(path, f"has {n_bytes} bytes, over {max_bytes}: expected {what}")
        check_written(path, n_bytes)
        return path.read_bytes()
    except OSError as error:
        raise open_error(path, error) from None


def check_written(path: str | Path, n_bytes: int) -> None:
    """Refuse a large file most of which was never written.

    Such a sparse file reads as zeros, which cost as much time and memory as samples do.

    Parameters
    ----------
    path
        The file.
    n_bytes
        Its size.

    Raises
    ------
    RecordError
        If less than a quarter of a large file is there.
    """
    if n_bytes <= _SMALL_BYTES or not hasattr(os, "SEEK_DATA"):
        return
    n_written = _count_written(path, n_bytes)
    if n_written * _MAX_SPARSE < n_bytes:
        raise RecordError(
            path, f"is sparse: {n_written} of its {n_bytes} bytes were written: expected samples"
        )


def _count_written(path: str | Path, n_bytes: int) -> int:
    """Return the bytes of a file outside its holes; all where the system does not tell."""
    n_written = at = 0
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for _ in range(_MAX_HOLES):
            start = os.lseek(descriptor, at, os.SEEK_DATA)
            at = os.lseek(descriptor, start, os.SEEK_HOLE)
            n_written += at - start
            if at >= n_bytes:
                return n_written
        return n_bytes
    except OSError as error:
        # Nothing but a hole is left, or the file system has no holes.
        return n_written if error.errno == errno.ENXIO else n_bytes
    finally:
        os.close(descriptor)


def missing_extra(path: str | Path, package: str, kind: str) -> RecordError:
    """Return the error for a file whose format needs a package that is not installed.

    Parameters
    ----------
    path
        The file.
    package
        Name of the package.
    kind
        The format.
    """
    return RecordError(
        path, f"{kind} files need the package {package}: pip install -r requirements-formats.txt"
    )
