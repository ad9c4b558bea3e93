"""Sizes in a MAT file of version 4 or 5, checked before SciPy allocates memory for them.

Compressed variables are inflated here, up to a limit, so that their content is checked as well.
Format: MathWorks, MAT-File Format (R2024a), chapter 1.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from src.records.record import RecordError

# Types of an element of version 5.
_MATRIX = 14
_COMPRESSED = 15
# SciPy ends the process on text of any other type.
_TYPES = {*range(1, 8), 9, *range(12, 19)}
# Structures within structures.
_MAX_DEPTH = 8
_MAX_ELEMENTS = 200_000
_MAX_VARIABLES = 1000
_SMALL_BYTES = 2**26
_LARGE_BYTES = 2**28
# Deflate compresses ECGs stored as doubles by 5 to 15.
_MAX_RATIO = 20
# Classes of arrays whose values are all stored: cells, structures, objects, text and numbers, but
# not sparse arrays (5).
_FULL_CLASSES = {1, 2, 3, 4, *range(6, 16)}
# Version 4: bytes of a value by the digit for its precision.
_V4_BYTES = {0: 8, 1: 4, 2: 4, 3: 2, 4: 2, 5: 1}


def _broken(path: Path, text: str) -> RecordError:
    return RecordError(path, f"not readable as a MAT file: {text}")


def plain_mat(path: Path, raw: bytes) -> bytes:
    """Check the sizes in a file and return its content with compressed variables inflated.

    Parameters
    ----------
    path
        The file, for error messages.
    raw
        Its content.

    Raises
    ------
    RecordError
        If an element is larger than what holds it, or inflates to more than an ECG would.
    """
    # Version 5 has its number and the byte order after 124 bytes of text.
    if raw[124:128] in (b"\x00\x01IM", b"\x01\x00MI"):
        return _plain_5(path, raw)
    _check_4(path, raw)
    return raw


def _check_4(path: Path, raw: bytes) -> None:
    """Walk the variables of a version 4 file: five 32-bit numbers, the name, the values."""
    # Types are below 5000, so a larger number is one of the other byte order.
    order = "<" if struct.unpack_from("<I", raw.ljust(4, b"\0"))[0] < 5000 else ">"
    at = 0
    n_variables = 0
    while at + 20 <= len(raw):
        n_variables += 1
        if n_variables > _MAX_VARIABLES:
            raise _broken(
                path, f"holds over {_MAX_VARIABLES} variables: expected those of a recording"
            )
        kind, rows, columns, imaginary, n_name = struct.unpack_from(f"{order}5i", raw, at)
        size = _V4_BYTES.get(kind // 10 % 10, 0)
        n_values = rows * columns * (2 if imaginary else 1)
        if not 0 <= kind < 5000 or min(rows, columns) < 0 or n_name < 1 or not size:
            raise _broken(
                path,
                f"variable at byte {at} has type {kind} and shape ({rows}, {columns}): "
                "expected a MAT file of version 4",
            )
        at += 20 + n_name + n_values * size
        if at > len(raw):
            raise _broken(
                path,
                f"variable of shape ({rows}, {columns}) ends at byte {at}, the file has {len(raw)}",
            )


def _plain_5(path: Path, raw: bytes) -> bytes:
    """Walk the variables of a version 5 file, and return its content with none compressed."""
    order = "<" if raw[126:128] == b"IM" else ">"
    limit = min(_LARGE_BYTES, max(_SMALL_BYTES, _MAX_RATIO * len(raw)))
    view = memoryview(raw)
    # Counts the elements of the whole file.
    budget = iter(range(_MAX_ELEMENTS))
    parts: list[memoryview | bytes] = [view[:128]]
    at = 128
    while at + 8 <= len(raw):
        kind, size = struct.unpack_from(f"{order}II", raw, at)
        if size > len(raw) - at - 8:
            raise _broken(
                path, f"variable at byte {at} has {size} bytes, {len(raw) - at - 8} are left"
            )
        if kind not in (_MATRIX, _COMPRESSED):
            raise _broken(path, f"element at byte {at} is of type {kind}: expected a variable")
        content: memoryview | bytes = view[at : at + 8 + size]
        if kind == _COMPRESSED:
            content = _inflate(path, content[8:], limit)
            # The limit is on all variables together.
            limit -= len(content)
        _check_elements(path, content, 0, len(content), order, 0, budget)
        parts.append(content)
        at += 8 + size
    has_compressed = any(isinstance(part, bytes) for part in parts)
    return b"".join(parts) if has_compressed else raw


def _inflate(path: Path, packed: memoryview | bytes, limit: int) -> bytes:
    """Return the content of a compressed variable, of `limit` bytes at most."""
    stream = zlib.decompressobj()
    try:
        # zlib takes 0 for no limit.
        content = stream.decompress(packed, max(1, limit))
    except zlib.error as error:
        raise _broken(path, f"a compressed variable is damaged ({error})") from None
    if stream.unconsumed_tail:
        raise _broken(
            path,
            f"a variable of {len(packed)} bytes inflates to over {limit}: expected the "
            "samples of an ECG; convert longer ones to WFDB",
        )
    if not stream.eof:
        raise _broken(path, "a compressed variable ends too early")
    return content


def _check_elements(
    path: Path,
    content: memoryview | bytes,
    at: int,
    end: int,
    order: str,
    depth: int,
    budget: Iterator[int],
) -> None:
    """Check the elements of a variable, and those inside its matrices.

    Parameters
    ----------
    path
        The file, for error messages.
    content
        The variable.
    at, end
        Offsets in it between which the elements are.
    order
        Byte order, as in `struct`.
    depth
        Number of matrices around these elements.
    budget
        Gives a number for each element, and ends when there are too many.
    """
    if depth > _MAX_DEPTH:
        raise _broken(path, f"holds structures over {_MAX_DEPTH} deep")
    while at + 8 <= end:
        if next(budget, None) is None:
            raise _broken(
                path, f"holds over {_MAX_ELEMENTS} elements: expected the matrices of a recording"
            )
        kind, size = struct.unpack_from(f"{order}II", content, at)
        # Up to four bytes of data are in the tag itself, with their number in its high half.
        if kind >> 16:
            if kind >> 16 > 4 or kind & 0xFFFF not in _TYPES:
                raise _broken(path, f"an element at byte {at} of a variable is damaged")
            at += 8
            continue
        if size > end - at - 8:
            raise _broken(
                path, f"an element of a variable has {size} bytes, {end - at - 8} are left"
            )
        if kind == _MATRIX:
            _check_dimensions(path, content[at + 8 : at + 8 + min(size, 4096)], size, order)
            _check_elements(path, content, at + 8, at + 8 + size, order, depth + 1, budget)
        elif kind == _COMPRESSED:
            raise _broken(path, "a compressed variable is inside another")
        elif size and kind not in _TYPES:
            raise _broken(path, f"an element of a variable is of type {kind}: expected 1 to 18")
        # Elements begin at multiples of eight bytes.
        at += 8 + size + -size % 8


def _check_dimensions(path: Path, head: memoryview | bytes, size: int, order: str) -> None:
    """Check that an array does not promise more values than it has bytes.

    Parameters
    ----------
    path
        The file, for error messages.
    head
        The array's first bytes: 16 of flags, then its dimensions.
    size
        Its number of bytes.
    order
        Byte order, as in `struct`.
    """
    if len(head) < 24 or head[8 if order == "<" else 11] not in _FULL_CLASSES:
        return
    kind, n_bytes = struct.unpack_from(f"{order}II", head, 16)
    # A single dimension fits into the tag.
    if kind >> 16:
        dimensions = struct.unpack_from(f"{order}i", head, 20)
    else:
        dimensions = struct.unpack_from(f"{order}{min(n_bytes, len(head) - 24) // 4}i", head, 24)
    if any(n < 0 for n in dimensions) or math.prod(dimensions) > size:
        raise _broken(path, f"an array promises shape {dimensions[:8]} and has {size} bytes")
