"""The .npz archive: written fast and with the same bytes for the same arrays, read without trusting what it promises.

It is an ordinary deflated .npz that plain ``np.load`` opens. It is written here rather than with ``np.savez_compressed``
because zlib takes most of a preprocessing run; ISA-L's deflate gives about the same size in a tenth of the time.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

_DEFLATE_LEVEL = 1
_SMALL_MEMBER = 1024  # bytes
_COMMON, _DIRECTORY = struct.Struct("<HHHHHIIIHH"), struct.Struct("<HHHII")
_STORED = struct.Struct("<BHH")
_END = struct.Struct("<4sHHHHIIH")
_ZIP64 = 2**32 - 1  # stands where an offset is too large for the end record
_PLAUSIBLE_BYTES = 2**29
_MAX_RATIO = 100  # more than deflate finds in ECGs, even where a record fills only a part of its tensor


def encode_npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the bytes of an .npz (zip, deflate) holding `arrays`; at most 2 GiB."""
    # Layout after PKWARE's APPNOTE 6.3: local headers with data, central directory, end record. Time stamps are fixed, so that
    # equal arrays give equal bytes.
    parts: list[bytes] = []
    directory: list[bytes] = []
    offset = 0
    for name, array in arrays.items():
        common, packed = _pack(name, array)
        parts += [b"PK\x03\x04", common, *packed]
        directory += [b"PK\x01\x02\x14\x00", common[: _COMMON.size], _DIRECTORY.pack(0, 0, 0, 0o600 << 16, offset), common[_COMMON.size :]]
        offset += 4 + len(common) + sum(map(len, packed))
    n_bytes = sum(map(len, directory))
    end = _END.pack(b"PK\x05\x06", 0, 0, len(arrays), len(arrays), n_bytes, offset, 0)
    return b"".join([*parts, *directory, end])


def write_npz(path: str | Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an .npz holding `arrays`; at most 2 GiB."""
    content = encode_npz(arrays)
    with open(path, "wb") as stream:
        stream.write(content)


def is_whole_npz(path: str | Path) -> bool:
    """Tell whether a file is there and ends as `write_npz` ends one, which a file that was cut off or emptied does not."""
    try:
        with open(path, "rb") as stream:
            n_bytes = stream.seek(0, 2)
            stream.seek(max(0, n_bytes - _END.size))
            mark, *_, directory, offset, _ = _END.unpack(stream.read())
    except (OSError, struct.error):
        return False
    return bool(mark == b"PK\x05\x06" and (offset == _ZIP64 or offset + directory + _END.size == n_bytes))


def _pack(name: str, array: NDArray[Any]) -> tuple[bytes, tuple[bytes, ...]]:
    """Return what local and central header have in common with the name behind it, and the deflated content in parts."""
    head = _npy_header(array.dtype.str, array.shape)
    if array.nbytes <= _SMALL_MEMBER:
        return _pack_small(name, head + array.tobytes())
    values = np.ascontiguousarray(array).data
    # The first block is stored, so that the values need no copy behind their header: type 0, length, and its complement
    packed = _STORED.pack(0, len(head), len(head) ^ 0xFFFF), head, isal_zlib.compress(values, _DEFLATE_LEVEL, -15)
    return _describe(name, isal_zlib.crc32(values, isal_zlib.crc32(head)), packed, len(head) + values.nbytes), packed


@lru_cache(maxsize=256)
def _pack_small(name: str, content: bytes) -> tuple[bytes, tuple[bytes, ...]]:
    """Pack what is the same in many records, such as their rate, but once; level 0 deflates too, and costs least to begin."""
    packed = (isal_zlib.compress(content, 0, -15),)
    return _describe(name, isal_zlib.crc32(content), packed, len(content)), packed


def _describe(name: str, checksum: int, packed: tuple[bytes, ...], n_bytes: int) -> bytes:
    file_name = f"{name}.npy".encode()
    # version 2.0, flags 0, deflate, 1980-01-01 00:00, CRC, sizes, name length, no extra field
    return _COMMON.pack(20, 0, 8, 0, 33, checksum, sum(map(len, packed)), n_bytes, len(file_name), 0) + file_name


@lru_cache(maxsize=1024)
def _npy_header(descr: str, shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def read_npz(path: str | Path, *names: str) -> dict[str, NDArray[Any]]:
    """Read the named arrays of an archive, or all of them; objects, which would need pickle, are refused.

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
    except Exception as error:  # noqa: BLE001  zipfile and NumPy raise whatever a damaged file makes them meet
        raise ValueError(f"{type(error).__name__}: {error}") from None


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    if info.file_size > max(_PLAUSIBLE_BYTES, _MAX_RATIO * info.compress_size):
        raise ValueError(f"{info.filename} inflates from {info.compress_size} to {info.file_size} bytes: expected an ECG's")
    content = bytearray(archive.read(info))  # writable, and its checksum was compared
    stream = io.BytesIO(content[:65536])
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{info.filename} is of .npy version {version}: expected (1, 0)")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError(f"{info.filename} holds objects: expected numbers or text")
    held = len(content) - stream.tell()
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != held:
        raise ValueError(f"{info.filename} promises shape {shape} of {dtype}, {held} bytes are there")
    array: NDArray[Any] = np.ndarray(shape, dtype, memoryview(content)[stream.tell() :], order="F" if fortran else "C")
    if dtype.kind == "U" and array.size and np.frombuffer(content, dtype.byteorder.replace("=", "<") + "u4", offset=stream.tell()).max() > 0x10FFFF:
        raise ValueError(f"{info.filename} holds text that is none")
    return array
