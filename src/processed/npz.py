"""The .npz archive: written fast and with the same bytes for the same arrays, read without trusting
what it promises.

It is an ordinary deflated .npz that plain ``np.load`` opens. It is written here rather than with
``np.savez_compressed`` because zlib takes most of a preprocessing run; ISA-L's deflate gives about
the same size in a tenth of the time.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Mapping
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

_DEFLATE_LEVEL = 1
_SMALL_MEMBER = 1024  # bytes
_COMMON, _DIRECTORY, _OFFSET = (
    struct.Struct("<HHHHHIIIHH"),
    struct.Struct("<HHHI"),
    struct.Struct("<I"),
)
_STORED = struct.Struct("<BHH")
_END = struct.Struct("<4sHHHHIIH")
_ZIP64 = 2**32 - 1  # stands where an offset is too large for the end record
_PLAUSIBLE_BYTES = 2**29
_MAX_RATIO = (
    100  # more than deflate finds in ECGs, even where a record fills only a part of its tensor
)


class Archive:
    """An .npz in the making, at most 2 GiB: all is packed but the large arrays, which take most of
    the time.

    Of many archives this can be done first, while the processor's caches hold the code for it.
    """

    # Layout after PKWARE's APPNOTE 6.3: local headers with data, central directory, end record.
    # Time stamps are fixed, so that equal arrays give equal bytes. Large arrays come last, so that
    # all offsets but theirs are known before they are packed.

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._large = [
            (name, array) for name, array in arrays.items() if array.nbytes > _SMALL_MEMBER
        ]
        small = [
            _pack_small(name, array.dtype.str, array.shape, array.tobytes())
            for name, array in arrays.items()
            if array.nbytes <= _SMALL_MEMBER
        ]
        self._members = [member for member, _, _ in small]
        offsets = accumulate(map(len, self._members), initial=0)
        self._directory = [
            before + _OFFSET.pack(offset) + after
            for (_, before, after), offset in zip(small, offsets, strict=False)
        ]

    def encode(self) -> bytes:
        """Return its bytes (zip, deflate)."""
        members, directory = [*self._members], [*self._directory]
        offset = sum(map(len, members))
        for name, array in self._large:
            head, values = (
                _npy_header(array.dtype.str, array.shape),
                np.ascontiguousarray(array).data,
            )
            # The first block is stored, so that the values need no copy behind their header: type
            # 0, length, and its complement
            packed = (
                _STORED.pack(0, len(head), len(head) ^ 0xFFFF),
                head,
                isal_zlib.compress(values, _DEFLATE_LEVEL, -15),
            )
            local, before, after = _describe(
                name,
                isal_zlib.crc32(values, isal_zlib.crc32(head)),
                sum(map(len, packed)),
                len(head) + values.nbytes,
            )
            members += [local, *packed]
            directory.append(before + _OFFSET.pack(offset) + after)
            offset += len(local) + sum(map(len, packed))
        end = _END.pack(
            b"PK\x05\x06", 0, 0, len(directory), len(directory), sum(map(len, directory)), offset, 0
        )
        return b"".join([*members, *directory, end])

    def write(self, path: str | Path) -> None:
        """Write it to a file.

        Raises
        ------
        OSError
            If that fails.
        """
        content = memoryview(self.encode())
        with open(path, "wb", buffering=0) as stream:
            while content:
                content = content[stream.write(content) :]


def is_whole_npz(path: str | Path) -> bool:
    """Tell whether a file is there and ends as `Archive` ends one, which a file that was cut off or
    emptied does not.
    """
    try:
        with open(path, "rb") as stream:
            n_bytes = stream.seek(0, 2)
            stream.seek(max(0, n_bytes - _END.size))
            mark, *_, directory, offset, _ = _END.unpack(stream.read())
    except (OSError, struct.error):
        return False
    return bool(
        mark == b"PK\x05\x06" and (offset == _ZIP64 or offset + directory + _END.size == n_bytes)
    )


@lru_cache(maxsize=256)
def _pack_small(
    name: str, descr: str, shape: tuple[int, ...], content: bytes
) -> tuple[bytes, bytes, bytes]:
    """Return a member, and what stands before and behind its offset in the directory; the same of
    many records, such as their rate, is packed once.
    """
    content = _npy_header(descr, shape) + content
    packed = isal_zlib.compress(content, 0, -15)  # level 0 deflates too, and costs least to begin
    local, before, after = _describe(name, isal_zlib.crc32(content), len(packed), len(content))
    return local + packed, before, after


def _describe(name: str, checksum: int, n_packed: int, n_bytes: int) -> tuple[bytes, bytes, bytes]:
    """Return the header that stands before a member, and what stands before and behind its offset
    in the directory.
    """
    file_name = f"{name}.npy".encode()
    # version 2.0, flags 0, deflate, 1980-01-01 00:00, CRC, sizes, name length, no extra field
    common = _COMMON.pack(20, 0, 8, 0, 33, checksum, n_packed, n_bytes, len(file_name), 0)
    return (
        b"PK\x03\x04" + common + file_name,
        b"PK\x01\x02\x14\x00" + common + _DIRECTORY.pack(0, 0, 0, 0o600 << 16),
        file_name,
    )


@lru_cache(maxsize=1024)
def _npy_header(descr: str, shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    return stream.getvalue()


def read_npz(path: str | Path, *names: str) -> dict[str, NDArray[Any]]:
    """Read the named arrays of an archive, or all of them; objects, which would need pickle, are
    refused.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is damaged or promises more than is there; the message says what, not the file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            held = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            absent = [name for name in names if name not in held]
            if absent:
                raise ValueError(f"no array {', '.join(absent)} in it")
            return {name: _read_member(archive, held[name]) for name in names or held}
    except (OSError, ValueError):
        raise
    # zipfile and NumPy raise whatever a damaged file makes them meet
    except Exception as error:  # noqa: BLE001
        raise ValueError(f"{type(error).__name__}: {error}") from None


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    if info.file_size > max(_PLAUSIBLE_BYTES, _MAX_RATIO * info.compress_size):
        raise ValueError(
            f"{info.filename} inflates from {info.compress_size} to {info.file_size} "
            "bytes: expected an ECG's"
        )
    content = bytearray(archive.read(info))  # writable, and its checksum was compared
    stream = io.BytesIO(content[:65536])
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{info.filename} is of .npy version {version}: expected (1, 0)")
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, fortran, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError(f"{info.filename} holds objects: expected numbers or text")
    held = len(content) - stream.tell()
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != held:
        raise ValueError(
            f"{info.filename} promises shape {shape} of {dtype}, {held} bytes are there"
        )
    array: NDArray[Any] = np.ndarray(
        shape, dtype, memoryview(content)[stream.tell() :], order="F" if fortran else "C"
    )
    if (
        dtype.kind == "U"
        and array.size
        and np.frombuffer(
            content, dtype.byteorder.replace("=", "<") + "u4", offset=stream.tell()
        ).max()
        > 0x10FFFF
    ):
        raise ValueError(f"{info.filename} holds text that is none")
    return array
