"""The .npz archive: fast to write, the same bytes for the same arrays, and safe to read.

An archive is an ordinary deflated .npz that plain ``np.load`` opens. It is written here rather than
with ``np.savez_compressed`` because zlib takes most of a preprocessing run; ISA-L's deflate gives
about the same size in a tenth of the time. Reading checks what the headers of the file claim.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from src.utils import holds_unicode, open_regular, require_regular

_DEFLATE_LEVEL = 1
# Negative window bits: raw deflate without a zlib header, as zip has it
_RAW_DEFLATE = -15
_SMALL_MEMBER_BYTES = 1024

# Layout after PKWARE's APPNOTE 6.3. The local header and the directory entry of a member share the
# fields from the version to the lengths of its name and extra field.
_SHARED_FIELDS = struct.Struct("<HHHHHIIIHH")
# Directory entry: length of the comment, disk, internal and external attributes, then the offset
_DIRECTORY_FIELDS = struct.Struct("<HHHI")
_OFFSET = struct.Struct("<I")
_END_RECORD = struct.Struct("<4sHHHHIIH")
_END_SIGNATURE = b"PK\x05\x06"
# Header of a stored deflate block that is not the last: type 0, its length, and the complement of
# that
_STORED_BLOCK = struct.Struct("<BHH")
# Stands in the end record for an offset that is too large for it
_ZIP64_OFFSET = 2**32 - 1

# A member may inflate to at least this many bytes, or by this ratio. Deflate compresses ECGs less,
# even where a record fills only a part of its tensor.
_PLAUSIBLE_BYTES = 2**29
_MAX_RATIO = 100


class Archive:
    """An .npz of at most 2 GiB that is being made: small arrays are packed, large ones are not yet.

    Large arrays take most of the time. For many archives, the small arrays can be packed first,
    while the processor's caches hold the code for it.
    """

    # Order of the bytes: members with local headers, central directory, end record. Time stamps are
    # fixed, so that equal arrays give equal bytes. Large arrays come last, so that all other
    # offsets are known before they are packed.

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._large: list[tuple[str, NDArray[Any]]] = []
        self._members: list[bytes] = []
        self._directory: list[bytes] = []
        offset = 0
        for name, array in arrays.items():
            if array.nbytes > _SMALL_MEMBER_BYTES:
                self._large.append((name, array))
                continue
            content = array.tobytes()
            member, before, after = _pack_small(name, array.dtype.str, array.shape, content)
            self._members.append(member)
            self._directory.append(before + _OFFSET.pack(offset) + after)
            offset += len(member)

    def encode(self) -> bytes:
        """Return the bytes of the archive (zip, deflate)."""
        members = [*self._members]
        directory = [*self._directory]
        offset = sum(map(len, members))
        for name, array in self._large:
            header = _npy_header(array.dtype.str, array.shape)
            values = np.ascontiguousarray(array).data

            # The .npy header is a stored block in front, so that the values need no copy behind it.
            block = _STORED_BLOCK.pack(0, len(header), len(header) ^ 0xFFFF)
            deflated = isal_zlib.compress(values, _DEFLATE_LEVEL, _RAW_DEFLATE)
            checksum = isal_zlib.crc32(values, isal_zlib.crc32(header))
            n_packed = len(block) + len(header) + len(deflated)
            n_bytes = len(header) + values.nbytes
            local, before, after = _zip_headers(name, checksum, n_packed, n_bytes)
            members += [local, block, header, deflated]
            directory.append(before + _OFFSET.pack(offset) + after)
            offset += len(local) + n_packed

        n_members = len(directory)
        directory_bytes = sum(map(len, directory))
        end = _END_RECORD.pack(
            _END_SIGNATURE, 0, 0, n_members, n_members, directory_bytes, offset, 0
        )
        return b"".join([*members, *directory, end])

    def write(self, path: str | Path) -> None:
        """Write the archive to a file.

        Raises
        ------
        OSError
            If writing fails.
        """
        # An unbuffered file may take a part at a time.
        content = memoryview(self.encode())
        with open(path, "wb", buffering=0) as stream:
            while content:
                content = content[stream.write(content) :]


def is_whole_npz(path: str | Path) -> bool:
    """Return whether a file exists and ends as `Archive` ends one; a truncated file does not."""
    try:
        with open_regular(path) as stream:
            n_bytes = stream.seek(0, 2)
            stream.seek(max(0, n_bytes - _END_RECORD.size))
            end = _END_RECORD.unpack(stream.read())
    except (OSError, struct.error):
        return False
    signature, *_, directory_bytes, offset, _ = end
    if signature != _END_SIGNATURE:
        return False
    return bool(offset in (_ZIP64_OFFSET, n_bytes - _END_RECORD.size - directory_bytes))


@lru_cache(maxsize=256)
def _pack_small(
    name: str, descr: str, shape: tuple[int, ...], content: bytes
) -> tuple[bytes, bytes, bytes]:
    """Return a member with its local header, and its directory entry before and after the offset.

    It is cached, because many records have the same small arrays, such as their rate.
    """
    content = _npy_header(descr, shape) + content
    # Level 0 deflates too, and has the least overhead.
    packed = isal_zlib.compress(content, 0, _RAW_DEFLATE)
    local, before, after = _zip_headers(name, isal_zlib.crc32(content), len(packed), len(content))
    return local + packed, before, after


def _zip_headers(
    name: str, checksum: int, n_packed: int, n_bytes: int
) -> tuple[bytes, bytes, bytes]:
    """Return the local header of a member, and its directory entry before and after the offset."""
    file_name = f"{name}.npy".encode()
    # Version 2.0, no flags, deflate, 1980-01-01 00:00, checksum, sizes, lengths of name and extra
    # field
    shared = _SHARED_FIELDS.pack(20, 0, 8, 0, 33, checksum, n_packed, n_bytes, len(file_name), 0)
    return (
        b"PK\x03\x04" + shared + file_name,
        b"PK\x01\x02\x14\x00" + shared + _DIRECTORY_FIELDS.pack(0, 0, 0, 0o600 << 16),
        file_name,
    )


@lru_cache(maxsize=1024)
def _npy_header(descr: str, shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    return stream.getvalue()


def read_npz(
    path: str | Path, *names: str, optional: Collection[str] = ()
) -> dict[str, NDArray[Any]]:
    """Read the named arrays of an archive, and those of `optional` that it holds; or all of them.

    Object arrays, which would need pickle, are refused.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If the file is damaged or claims more than it holds; the message does not name the file.
    """
    with _open_archive(path) as (archive, members):
        absent = [name for name in names if name not in members]
        if absent:
            raise ValueError(f"no array {', '.join(absent)} in it")
        chosen = [*names, *(name for name in optional if name in members)]
        if not (names or optional):
            chosen = list(members)
        return {name: _read_member(archive, members[name]) for name in chosen}


def list_arrays(path: str | Path) -> list[str]:
    """Return the names of the arrays of an archive; raises as `read_npz`."""
    with _open_archive(path) as (_, members):
        return [name for name, info in members.items() if info.filename.endswith(".npy")]


@contextmanager
def _open_archive(
    path: str | Path,
) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """Open an archive, with its members by the name of their array."""
    try:
        require_regular(path)
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if len(members) < len(archive.infolist()):
                raise ValueError("holds an array twice: expected each name once")
            yield archive, members
    except (OSError, ValueError):
        raise
    # zipfile and NumPy raise errors of any type on a damaged file.
    except Exception as error:  # noqa: BLE001
        raise ValueError(f"{type(error).__name__}: {error}") from None


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    # A damaged or hostile header may claim to inflate to more than the memory.
    if info.file_size > max(_PLAUSIBLE_BYTES, _MAX_RATIO * info.compress_size):
        raise ValueError(
            f"{info.filename} inflates from {info.compress_size} to {info.file_size} bytes: "
            "expected the size of an ECG"
        )
    # zipfile compares the checksum. A bytearray makes the array writable.
    content = bytearray(archive.read(info))
    stream = io.BytesIO(content[:65536])
    shape, is_fortran, dtype = _read_npy_header(stream, info.filename)

    start = stream.tell()
    n_bytes = len(content) - start
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != n_bytes:
        raise ValueError(
            f"{info.filename} claims shape {shape} of {dtype}, but holds {n_bytes} bytes"
        )
    order: Literal["F", "C"] = "F" if is_fortran else "C"
    array: NDArray[Any] = np.ndarray(shape, dtype, memoryview(content)[start:], order=order)

    if not holds_unicode(array):
        raise ValueError(f"{info.filename} holds text that is not Unicode")
    return array


def _read_npy_header(
    stream: io.BytesIO, file_name: str
) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return the shape, whether it is in Fortran order, and the type of the array that follows."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, is_fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"{file_name} is of .npy version {version}: expected (1, 0) or (2, 0)")
    if dtype.hasobject:
        raise ValueError(f"{file_name} holds objects: expected numbers or text")
    return shape, is_fortran, dtype
