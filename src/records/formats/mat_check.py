"""What a MAT file of version 4 or 5 promises, held against its bytes before SciPy takes memory for
it.

Format: MathWorks, MAT-File Format (R2024a), chapter 1. A compressed variable is inflated here, up
to a limit, so that what is inside is checked as well.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from src.records.record import RecordError

_MATRIX, _COMPRESSED = 14, 15
_MAX_DEPTH = 8  # structures in structures
_MAX_ELEMENTS = 200_000
_MAX_VARIABLES = 1000
_SMALL_BYTES = 2**26
_MAX_RATIO = 100  # more than deflate finds in an ECG
_FULL_CLASSES = {
    1,
    2,
    3,
    4,
    *range(6, 16),
}  # cells, structures, objects, text and numbers: all but sparse ones and functions
_V4_BYTES = {0: 8, 1: 4, 2: 4, 3: 2, 4: 2, 5: 1}  # precision digit -> bytes of a value


def _broken(path: Path, text: str) -> RecordError:
    return RecordError(path, f"not readable as a MAT file: {text}")


def plain_mat(path: Path, raw: bytes) -> bytes:
    """Return the content of a file with its compressed variables inflated.

    Raises
    ------
    RecordError
        If a size goes beyond the file or what holds it, or far more comes out of it than an ECG
        would give.
    """
    if raw[124:128] in (b"\x00\x01IM", b"\x01\x00MI"):
        return _plain_5(path, raw)
    _check_4(path, raw)
    return raw


def _check_4(path: Path, raw: bytes) -> None:
    """Walk the variables of a version 4 file: five 32-bit numbers, the name, the values."""
    order = "<" if struct.unpack_from("<I", raw.ljust(4, b"\0"))[0] < 5000 else ">"
    at = n_variables = 0
    while at + 20 <= len(raw):
        n_variables += 1
        if n_variables > _MAX_VARIABLES:
            raise _broken(
                path, f"holds over {_MAX_VARIABLES} variables: expected those of a recording"
            )
        kind, rows, columns, imaginary, n_name = struct.unpack_from(f"{order}5i", raw, at)
        size = _V4_BYTES.get(kind // 10 % 10, 0)
        n_bytes = rows * columns * size * (2 if imaginary else 1)
        if not 0 <= kind < 5000 or min(rows, columns) < 0 or n_name < 1 or not size:
            raise _broken(
                path,
                f"variable at byte {at} has type {kind} and shape ({rows}, {columns}): "
                "expected a MAT file of version 4",
            )
        at += 20 + n_name + n_bytes
        if at > len(raw):
            raise _broken(
                path,
                f"variable of shape ({rows}, {columns}) ends at byte {at}, the file has {len(raw)}",
            )


def _plain_5(path: Path, raw: bytes) -> bytes:
    order = "<" if raw[126:128] == b"IM" else ">"
    limit = max(_SMALL_BYTES, _MAX_RATIO * len(raw))
    view, elements = memoryview(raw), iter(range(_MAX_ELEMENTS))
    out: list[memoryview | bytes] = [view[:128]]
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
            limit -= len(content)
        _check_elements(path, content, 0, len(content), order, 0, elements)
        out.append(content)
        at += 8 + size
    return raw if all(isinstance(part, memoryview) for part in out) else b"".join(out)


def _inflate(path: Path, packed: memoryview | bytes, limit: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(packed, max(1, limit))  # 0 would set no limit
    except zlib.error as error:
        raise _broken(path, f"a compressed variable is damaged ({error})") from None
    if stream.unconsumed_tail:
        raise _broken(
            path,
            f"a variable of {len(packed)} bytes inflates to over {limit}: expected the "
            "samples of an ECG",
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
    elements: Iterator[int],
) -> None:
    """Walk the elements between two offsets, and what is inside matrices; `elements` runs out where
    there are too many.
    """
    if depth > _MAX_DEPTH:
        raise _broken(path, f"holds structures over {_MAX_DEPTH} deep")
    while at + 8 <= end:
        if next(elements, None) is None:
            raise _broken(
                path, f"holds over {_MAX_ELEMENTS} elements: expected the matrices of a recording"
            )
        kind, size = struct.unpack_from(f"{order}II", content, at)
        if kind >> 16:  # up to four bytes stand in the tag itself
            if kind >> 16 > 4:
                raise _broken(path, f"an element at byte {at} of a variable is damaged")
            at += 8
            continue
        if size > end - at - 8:
            raise _broken(
                path, f"an element of a variable has {size} bytes, {end - at - 8} are left"
            )
        if kind == _MATRIX:
            _check_dimensions(path, content[at + 8 : at + 8 + min(size, 4096)], size, order)
            _check_elements(path, content, at + 8, at + 8 + size, order, depth + 1, elements)
        elif kind == _COMPRESSED:
            raise _broken(path, "a compressed variable is inside another")
        at += 8 + size + (-size % 8 if size % 8 else 0)


def _check_dimensions(path: Path, head: memoryview | bytes, size: int, order: str) -> None:
    """Refuse an array of more values than it has bytes; its flags take 16 of them, then come the
    dimensions.
    """
    if len(head) < 24 or head[8 if order == "<" else 11] not in _FULL_CLASSES:
        return
    kind, n_bytes = struct.unpack_from(f"{order}II", head, 16)
    if kind >> 16:
        dimensions = struct.unpack_from(f"{order}i", head, 20)
    else:
        dimensions = struct.unpack_from(f"{order}{min(n_bytes, len(head) - 24) // 4}i", head, 24)
    if any(n < 0 for n in dimensions) or math.prod(dimensions) > size:
        raise _broken(path, f"an array promises shape {dimensions[:8]} and has {size} bytes")
