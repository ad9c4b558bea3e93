"""Files made to do harm, each by one trick that chance mutations would hardly find."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import h5py

from .seeds import Seed, record_seeds

Writer = Callable[[Path], Path]


def _header(text: str, samples: bytes = b"\1\0" * 600, name: str = "r.dat") -> Writer:
    def write(folder: Path) -> Path:
        (folder / "r.hea").write_text(text)
        if samples:
            (folder / name).write_bytes(samples)
        return folder / "r.hea"

    return write


def _file(name: str, content: Callable[[], bytes]) -> Writer:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content())
        return folder / name

    return write


@cache
def _seed(name: str) -> Seed:
    return next(seed for seed in record_seeds() if seed.name == name)


@cache
def _deflated_zeros(megabytes: int) -> bytes:
    """Return a raw deflate stream of zeros, without ever holding them."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    return b"".join([*(stream.compress(bytes(2**20)) for _ in range(megabytes)), stream.flush()])


@cache
def _mat_bomb(megabytes: int) -> bytes:
    """A MAT file of a compressed matrix of zeros, a thousand times as large as the file."""
    n = megabytes * 2**20 // 24
    inner = (
        struct.pack("<II", 14, 48 + 24 * n)
        + struct.pack("<IIII", 6, 8, 6, 0)
        + struct.pack("<IIii", 5, 8, 12, n)
    )
    inner += struct.pack("<HH4s", 1, 3, b"val\0") + struct.pack("<II", 9, 24 * n)
    stream = zlib.compressobj(9)
    packed = (
        stream.compress(inner)
        + b"".join(stream.compress(bytes(2**20)) for _ in range(megabytes))
        + stream.flush()
    )
    return b"MATLAB 5.0".ljust(124) + b"\x00\x01IM" + struct.pack("<II", 15, len(packed)) + packed


def _mat5(n_bytes: int, rows: int, columns: int, kind: int = 6) -> bytes:
    body = (
        struct.pack("<IIII", 6, 8, kind, 0)
        + struct.pack("<IIii", 5, 8, rows, columns)
        + struct.pack("<HH4s", 1, 3, b"val\0")
    )
    body += struct.pack("<II", 9, n_bytes) + bytes(64)
    return b"MATLAB 5.0".ljust(124) + b"\x00\x01IM" + struct.pack("<II", 14, len(body)) + body


@cache
def _hdf5_bomb() -> bytes:
    """Chunks of zeros, each the same few bytes."""
    stream = io.BytesIO()
    chunk = (12, 2**18)
    with h5py.File(stream, "w") as file:
        data = file.create_dataset(
            "ecg", shape=(12, 2**18 * 60), dtype="f4", chunks=chunk, compression="gzip"
        )
        packed = zlib.compress(bytes(4 * chunk[0] * chunk[1]), 9)
        for i in range(60):
            data.id.write_direct_chunk((0, i * chunk[1]), packed)
    return stream.getvalue()


def _zip(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def _segments(folder: Path) -> Path:
    """Two records that are segments of each other."""
    (folder / "r.hea").write_text("r/1 2 100 100\nq 100\n")
    (folder / "q.hea").write_text("q/1 2 100 100\nr 100\n")
    return folder / "r.hea"


def _linked(folder: Path) -> Path:
    secret = folder.parent / "secret.dat"
    secret.write_bytes(b"\1\0" * 600)
    (folder / "r.dat").symlink_to(secret)
    (folder / "r.hea").write_text(
        "r 2 100 100\nr.dat 16 100/mV 16 0 0 0 0 I\nr.dat 16 100/mV 16 0 0 0 0 II\n"
    )
    return folder / "r.hea"


def _pipe(name: str) -> Writer:
    def write(folder: Path) -> Path:
        os.mkfifo(folder / name)
        (folder / "r.hea").write_text(
            "r 1 100 100\nr.dat 16 100/mV 16 0 0 0 0 I\n"
        ) if name == "r.dat" else None
        return folder / ("r.hea" if name == "r.dat" else name)

    return write


def _folder(name: str) -> Writer:
    def write(folder: Path) -> Path:
        (folder / name).mkdir()
        return folder / name

    return write


_TWO = "r.dat 16 100/mV 16 0 0 0 0 I\nr.dat 16 100/mV 16 0 0 0 0 II\n"
_LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a0 "ha">'
    + "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10))
    + "]><RestingECG>&a9;</RestingECG>"
)

RECORDS: dict[str, Writer] = {
    "header of spaces": _header("r 1 100 100\nr.dat" + " " * 3_900_000 + "x\n"),
    "record line of letters": _header("r" * 3_900_000 + "\n"),
    "a million leads": _header("r 300000 100 1\n" + "r.dat 16 1\n" * 300_000),
    "a million comments": _header("r 2 100 100\n" + _TWO + "#<<a>:b,<c\n" * 350_000),
    "many samples": _header(f"r 2 100 {2**50}\n" + _TWO),
    "many samples per frame": _header("r 1 100 100\nr.dat 16x10000000 100/mV 16 0 0 0 0 I\n"),
    "much skew": _header("r 1 100 100\nr.dat 16:99999999 100/mV 16 0 0 0 0 I\n"),
    "flac of many": _header("r 1 100 20000000\nr.dat 516 100/mV 16 0 0 0 0 I\n"),
    "self": _header("r/1 2 100 100\nr 100\n", b""),
    "each other": _segments,
    "many segments": _header("r/99999999 2 100 100\ns 100\n", b""),
    "gaps": _header("r/2 2 100 100000010\n~ 100000000\ns 10\n", b""),
    "folder above": _header("r 1 100 100\n../r.dat 16 100/mV 16 0 0 0 0 I\n"),
    "absolute": _header("r 1 100 100\n/etc/hostname 16 100/mV 16 0 0 0 0 I\n"),
    "drive": _header("r 1 100 100\nC:r.dat 16 100/mV 16 0 0 0 0 I\n"),
    "device": _header("r 1 100 100\nNUL.dat 16 100/mV 16 0 0 0 0 I\n", name="NUL.dat"),
    "address": _header("r 1 100 100\nfilecache::r.dat 508 100/mV 16 0 0 0 0 I\n"),
    "segment above": _header("r/1 1 100 100\n../q 100\n", b""),
    "segment of the web": _header("r/1 1 100 100\nhttps://example.org/q 100\n", b""),
    "link": _linked,
    "pipe of samples": _pipe("r.dat"),
    "pipe of xml": _pipe("r.xml"),
    "pipe of hdf5": _pipe("r.h5"),
    "folder called mat": _folder("r.mat"),
    "folder called header": _folder("r.hea"),
    "mat bomb": _file("r.mat", lambda: _mat_bomb(200)),
    "mat of a large element": _file("r.mat", lambda: _mat5(2**31, 12, 100)),
    "mat of a large shape": _file("r.mat", lambda: _mat5(64, 2**15, 2**15)),
    "mat of many cells": _file("r.mat", lambda: _mat5(64, 2**15, 2**15, kind=1)),
    "mat of much text": _file("r.mat", lambda: _mat5(0, 2**15, 2**15, kind=4)),
    "mat 4 of a large shape": _file(
        "r.mat", lambda: struct.pack("<5i", 30, 2**15, 2**15, 0, 4) + b"val\0"
    ),
    "hdf5 bomb": _file("r.h5", _hdf5_bomb),
    "hdf5 never written": _file("r.h5", lambda: _seed("h5_huge").files["r.h5"]),
    "entities": _file("r.xml", lambda: _LAUGHS.encode()),
    "deep xml": _file("r.xml", lambda: b"<RestingECG>" + b"<a>" * 10**5),
    "wide xml": _file("r.xml", lambda: b"<RestingECG>" + b"<a/>" * 1_500_000),
    "edf of many channels": _file(
        "r.edf", lambda: _seed("edf").files["r.edf"][:252] + b"9999" + b"9" * 256 * 9999
    ),
    "edf of many samples": _file(
        "r.edf", lambda: _seed("edf").files["r.edf"].replace(b"30      ", b"9999999 ")
    ),
    "deep dicom": _file(
        "r.dcm",
        lambda: (
            _seed("dicom").files["r.dcm"]
            + b"\x00\x54\x00\x01SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 20_000
        ),
    ),
}

ARCHIVES: dict[str, Callable[[], bytes]] = {
    "zeros": lambda: _bomb_npz(2**29),
    "shape": lambda: _zip({"signal.npy": _npy("(12, 2000000000)", "<f4")}),
    "objects": lambda: _zip({"signal.npy": _npy("(1,)", "|O") + b"\x80\x04N."}),
    "deep header": lambda: _zip({"signal.npy": _npy("(" * 5000, "<f4")}),
    "long header": lambda: _zip(
        {"signal.npy": b"\x93NUMPY\x02\x00" + struct.pack("<I", 10**6) + b"{" * 10**6}
    ),
    "encrypted": lambda: (
        _zip({"signal.npy": b"x"})
        .replace(b"PK\x03\x04\x14\x00\x00", b"PK\x03\x04\x14\x00\x01")
        .replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01")
    ),
}


def _npy(shape: str, descr: str) -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text + b"\n"


def _bomb_npz(n_bytes: int) -> bytes:
    """An archive whose array is there, deflated a thousand times."""
    packed = _deflated_zeros(n_bytes // 2**20 + 1)
    common = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, 0, len(packed), n_bytes + 2**20, 10, 0)
    local = b"PK\x03\x04" + common + b"signal.npy" + packed
    entry = b"PK\x01\x02\x14\x00" + common + struct.pack("<HHHII", 0, 0, 0, 0, 0) + b"signal.npy"
    return (
        local
        + entry
        + struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 1, 1, len(entry), len(local), 0)
    )
