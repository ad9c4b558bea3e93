"""A generator of expensive recordings for each format."""

from __future__ import annotations

import base64
import io
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import cache

import h5py
import numpy as np
import pydicom
import scipy.io
from pydicom.dataset import Dataset

from .expensive import (
    BYTES,
    HOLE,
    PARTS,
    RUNS,
    TEXT,
    Expensive,
    repeat_parts,
    stretch_bytes,
    stretch_fields,
)
from .seeds import (
    SUFFIXES,
    Seed,
    counts,
    ishne,
    pack_lzw,
    parquet_bytes,
    philips_xml,
    record_seeds,
    scp_of,
)

Build = Callable[[int], bytes]


@cache
def _seed(name: str) -> Seed:
    return next(seed for seed in record_seeds() if seed.name == name)


def _one(entry: str, size: int, builds: dict[str, Build]) -> Iterator[Expensive]:
    """Return inputs of one file each."""
    for name, build in builds.items():
        yield Expensive(name, entry, lambda n, build=build: {entry: build(n)}, size)


def _texts(seed: Seed, fields: str = r"[^\s,;:\"]+") -> Iterator[Expensive]:
    yield from stretch_fields(seed.name, seed.entry, seed.files, fields, encoding="latin-1")
    yield from repeat_parts(seed.name, seed.entry, seed.files, encoding="latin-1")


def _bytes(suffix: str) -> Iterator[Expensive]:
    """Stretch the bytes of each seed of a format."""
    for seed in record_seeds():
        if seed.entry.endswith(suffix):
            yield from stretch_bytes(seed.name, seed.entry, seed.files)


# WFDB ---------------------------------------------------------------------------------------------

_FACTS = "#Age: 74\n#Sex: Male\n#Dx: 59118001,164889003\n# 69 M 1085 1629 x1\n#<age>: 69 <sex>: M\n"


def wfdb_inputs() -> Iterator[Expensive]:
    header = "r 2 100/50(3) 120 10:11:12 12/05/2020\nr.dat 16x1:2+24 100.5(3)/mV 16 3 1 2 0 II\n"
    header += "r.dat 16 100.5(3)/mV 16 3 1 2 0 V1\n" + _FACTS
    files = {"r.hea": header.encode(), "r.dat": bytes(1000)}
    for name in ("stated", "mitdb", "segments", "segments_layout"):
        given = files if name == "stated" else _seed(name).files
        yield from stretch_fields(name, "r.hea", given)
        yield from repeat_parts(name, "r.hea", given)
    yield from _wfdb_parts()
    layout = _seed("segments_layout")
    yield from stretch_fields("layout", "layout.hea", layout.files)
    for name in ("format516", "format80", "format212", "frames"):
        seed = _seed("mitdb" if name == "format212" else name)
        for input_ in stretch_bytes(
            name, next(f for f in seed.files if f[-4:] != ".hea"), seed.files
        ):
            yield Expensive(f"{input_.name} of the samples", "r.hea", input_.build, input_.size)


def _wfdb_parts() -> Iterator[Expensive]:
    """Many leads, segments, gaps, samples in a frame, and links between segments."""
    two = b"s 1 100 2\ns.dat 16 100/mV 16 0 0 0 0 I\n"
    samples = {"s.hea": two, "s.dat": bytes(4)}

    def header(first: str, line: Callable[[int], str]) -> Callable[[int], dict[str, bytes]]:
        def build(n: int) -> dict[str, bytes]:
            lines = (line(i) for i in range(n))
            return {"r.hea": (first.format(n=n, m=2 * n) + "".join(lines)).encode(), **samples}

        return build

    for name, first, line in (
        ("many leads", "r {n} 100 2\n", lambda i: f"s.dat 16 100/mV 16 0 0 0 0 L{i}\n"),
        ("many files", "r {n} 100 2\n", lambda i: f"s{i}.dat 16 100/mV 16 0 0 0 0 L{i}\n"),
        ("one segment again and again", "r/{n} 1 100 {m}\n", lambda i: "s 2\n"),
        ("gaps", "r/{n} 1 100 {n}\n", lambda i: "~ 1\n"),
        ("segments and gaps", "r/{n} 1 100 {m}\n", lambda i: ("s 2\n", "~ 2\n")[i % 2]),
        ("missing segments", "r/{n} 1 100 {m}\n", lambda i: f"s{i} 2\n"),
        ("samples in a frame", "r 1 100 2\ns.dat 16x{n} 100/mV 16 0 0 0 0 I\n", lambda i: ""),
        ("gap of many", "r/2 1 100 {n}000\n~ {n}000\ns 2\n", lambda i: ""),
        ("claimed samples", "r 1 100 {n}000\ns.dat 16 100/mV 16 0 0 0 0 I\n", lambda i: ""),
    ):
        yield Expensive(name, "r.hea", header(first, line), PARTS)

    def chain_of(n: int) -> dict[str, bytes]:
        links = {f"q{i}.hea": f"q{i}/1 1 100 2\nq{i + 1} 2\n".encode() for i in range(n)}
        return {"r.hea": b"r/1 1 100 2\nq0 2\n", **links, f"q{n}.hea": two, "s.dat": bytes(4)}

    def segments(n: int) -> dict[str, bytes]:
        parts = {f"q{i}.hea": two.replace(b"s 1", b"q%d 1" % i) for i in range(n)}
        lines = "".join(f"q{i} 2\n" for i in range(n))
        return {"r.hea": f"r/{n} 1 100 {2 * n}\n{lines}".encode(), **parts, "s.dat": bytes(4)}

    yield Expensive("segments within segments", "r.hea", chain_of, PARTS // 20)
    yield Expensive("segments of their own", "r.hea", segments, PARTS // 20)


# MAT ----------------------------------------------------------------------------------------------


def _mat(variables: dict[str, object], **options: object) -> bytes:
    stream = io.BytesIO()
    scipy.io.savemat(stream, variables, **options)  # type: ignore[arg-type]
    return stream.getvalue()


def mat_inputs() -> Iterator[Expensive]:
    adc = counts(12).T
    yield from _bytes(".mat")
    facts = ("sex", "age", "fs", "gain", "units", "leads", "baseline", "sampling_interval")
    for fact in facts:
        for run in RUNS:
            yield from _one(
                "r.mat",
                TEXT,
                {
                    f"{run!r} in {fact}": lambda n, fact=fact, run=run: _mat(
                        {"ECG": {"data": adc / 1000, fact: "5" + run * (n // len(run)) + "x"}}
                    )
                },
            )
    yield from _one("r.mat", PARTS, _mat_parts(adc))
    yield from _one("r.mat", BYTES, _mat_ratios(adc))


def _mat_parts(adc: np.ndarray) -> dict[str, Build]:
    def nest(n: int, wrap: Callable[[object], object]) -> object:
        value: object = adc
        for _ in range(min(n // 100, 200)):
            value = wrap(value)
        return value

    def cell(value: object) -> object:
        held = np.empty(1, object)
        held[0] = value
        return held

    def names(n: int) -> np.ndarray:
        return np.array([f"lead {i}" for i in range(n)], object)

    def cells(values: list[np.ndarray]) -> np.ndarray:
        held = np.empty(len(values), object)
        held[:] = values
        return held

    return {
        "many variables": lambda n: _mat({"val": adc} | {f"v{i}": 1.0 for i in range(n)}),
        "many matrices": lambda n: _mat({f"v{i}": adc for i in range(n // 10)}),
        "many deflated variables": lambda n: _mat(
            {"val": adc} | {f"v{i}": 1.0 for i in range(n)}, do_compression=True
        ),
        "many fields": lambda n: _mat({"ECG": {"data": adc} | {f"v{i}": 1.0 for i in range(n)}}),
        "many vectors": lambda n: _mat({"rec": {f"II{i}": adc[0] for i in range(n // 10)}}),
        "many names": lambda n: _mat({"val": adc, "fs": 500.0, "leads": names(n)}),
        "many cells": lambda n: _mat({"val": names(n), "ECG": names(n)}),
        "many structures": lambda n: _mat({"val": adc, "siginfo": [{"Units": "uV"}] * n}),
        "deep structures": lambda n: _mat({"val": nest(n, lambda value: {"a": value})}),
        "deep cells": lambda n: _mat({"val": nest(n, cell)}),
        "deep deflated cells": lambda n: _mat({"val": nest(n, cell)}, do_compression=True),
        "many leads": lambda n: _mat({"val": np.ones((n, 12)), "fs": 500.0, "gain": 1.0}),
        "many variables of version 4": lambda n: (
            (struct.pack("<5i", 0, 1, 1, 0, 2) + b"v\0" + bytes(8)) * n
        ),
        "many records": lambda n: _mat({"X": [adc] * (n // 10), "fs": 500.0}),
        "many vectors in cells": lambda n: _mat({"X": cells([adc[0]] * n), "id": np.arange(n)}),
        "many records of structures": lambda n: _mat({"X": [{"data": adc, "fs": 1.0}] * (n // 10)}),
        "a stack": lambda n: _mat({"X": np.zeros((n, 2, 100), np.int8), "fs": 500.0}),
        "dimensions": lambda n: _mat({"val": np.zeros((1,) * min(n // 1000, 30) + (12, 9))}),
    }


def _mat_ratios(adc: np.ndarray) -> dict[str, Build]:
    noise = counts(12, 20_000).tobytes()

    def deflated(head: bytes, n: int, unit: bytes) -> bytes:
        packed = zlib.compress(head + unit * (n // len(unit)), 9)
        return b"MATLAB 5.0".ljust(124) + b"\0\1IM" + struct.pack("<II", 15, len(packed)) + packed

    def matrix(n: int) -> bytes:
        columns = n // 24
        flags = struct.pack("<IIIIIIIIii", 14, 48 + 24 * columns, 6, 8, 6, 0, 5, 8, 12, columns)
        return flags + struct.pack("<HH4sII", 1, 3, b"val\0", 9, 24 * columns)

    return {
        "deflated zeros": lambda n: deflated(matrix(16 * n), 16 * n, b"\0"),
        "deflated noise and zeros": lambda n: deflated(matrix(16 * n) + noise, 16 * n, b"\0"),
        "deflated zero elements": lambda n: deflated(b"", n, bytes(8)),
        "deflated empty matrices": lambda n: deflated(b"", n, struct.pack("<II", 14, 0)),
        "deflated text": lambda n: _mat({"val": adc, "ECG": {"age": " " * n}}, do_compression=True),
        "samples": lambda n: _mat({"val": np.zeros((12, n // 96)), "fs": 500.0, "gain": 1.0}),
        "deflated samples": lambda n: _mat(
            {"val": np.zeros((12, n // 96)), "fs": 500.0, "gain": 1.0}, do_compression=True
        ),
    }


# HDF5 ---------------------------------------------------------------------------------------------


def _h5(write: Callable[[h5py.File, int], None], **options: object) -> Build:
    def build(n: int) -> bytes:
        stream = io.BytesIO()
        with h5py.File(stream, "w", **options) as file:
            file["ecg"] = (counts(12).T / 1000).astype(np.float32)
            write(file, n)
        return stream.getvalue()

    return build


def _each(put: Callable[[h5py.File, str], None]) -> Callable[[h5py.File, int], None]:
    def write(file: h5py.File, n: int) -> None:
        for i in range(n):
            put(file, f"name{i}")

    return write


def hdf5_inputs() -> Iterator[Expensive]:
    yield from _bytes("5")
    for fact in ("fs", "gain", "units", "leads", "age", "sex", "exam_id", "patient_id"):
        for run in RUNS:

            def attribute(file: h5py.File, n: int, fact: str = fact, run: str = run) -> None:
                file[fact] = "5" + run * (n // len(run)) + "x"

            yield from _one("r.h5", TEXT, {f"{run!r} in {fact}": _h5(attribute)})
    yield from _one("r.h5", PARTS, _hdf5_parts())
    yield from _one("r.h5", BYTES, _hdf5_ratios())


def _hdf5_parts() -> dict[str, Build]:
    text = h5py.string_dtype()

    def nest(file: h5py.File, n: int) -> None:
        group: h5py.Group = file
        for _ in range(n // 20):
            group = group.create_group("g")
        group["ecg"] = np.zeros((12, 9))

    def ladder(file: h5py.File, n: int) -> None:
        """Two names for each group of a ladder: as many paths as two to the power of its rungs."""
        group: h5py.Group = file
        for _ in range(n // 200):
            below = group.create_group("a")
            group["b"] = below
            group = below

    def many(file: h5py.File, n: int) -> None:
        del file["ecg"]
        file["tracings"] = np.zeros((n, 10, 12), np.float32)
        file["exam_id"] = np.array([f"e{i}" for i in range(n)], dtype=text)
        file["fs"] = np.array([f"{100 + i} Hz" for i in range(n)], dtype=text)

    def claims(file: h5py.File, n: int) -> None:
        for name, kind in (("fs", "f8"), ("leads", "S100"), ("gain", text), ("exam_id", text)):
            file.create_dataset(name, (n * 10_000,), kind, chunks=(1000,))

    def references(file: h5py.File, n: int) -> None:
        file.create_dataset("leads", data=[file["ecg"].ref] * n, dtype=h5py.ref_dtype)

    def fields(file: h5py.File, n: int) -> None:
        file["x"] = np.zeros(3, [(f"f{i}", "f4") for i in range(n // 100)])

    def small_chunks(file: h5py.File, n: int) -> None:
        del file["ecg"]
        data = file.create_dataset("ecg", (12, n), "f4", chunks=(12, 1))
        data[:] = 1.0

    def attributes(file: h5py.File, n: int) -> None:
        for i in range(n // 10):
            file["ecg"].attrs[f"name{i}"] = "x"

    return {
        "soft links": _h5(_each(lambda f, name: f.__setitem__(name, h5py.SoftLink("/ecg")))),
        "links to nothing": _h5(_each(lambda f, name: f.__setitem__(name, h5py.SoftLink("/no")))),
        "links out": _h5(
            _each(lambda f, name: f.__setitem__(name, h5py.ExternalLink("other.h5", "/")))
        ),
        "hard links": _h5(_each(lambda f, name: f.__setitem__(name, f["ecg"]))),
        "numbers": _h5(_each(lambda f, name: f.__setitem__(name, 1.0))),
        "empty arrays": _h5(_each(lambda f, name: f.create_dataset(name, (0,), "f4"))),
        "groups": _h5(_each(lambda f, name: f.create_group(name))),
        "groups of the latest form": _h5(
            _each(lambda f, name: f.create_group(name)), libver="latest"
        ),
        "deep groups": _h5(nest),
        "ladder of groups": _h5(ladder),
        "attributes": _h5(attributes, libver="latest"),
        "records": _h5(many),
        "claimed facts": _h5(claims),
        "references": _h5(references),
        "fields": _h5(fields),
        "small chunks": _h5(small_chunks),
        "names": _h5(
            lambda f, n: f.__setitem__("leads", np.array([f"lead {i}" for i in range(n)], text))
        ),
        "columns": _h5(lambda f, n: f.__setitem__("tracings", np.zeros((9, n), np.float32))),
    }


def _hdf5_ratios() -> dict[str, Build]:
    def deflated(kind: str, name: str) -> Callable[[h5py.File, int], None]:
        def write(file: h5py.File, n: int) -> None:
            if name in file:
                del file[name]
            width = 12 * np.dtype(kind).itemsize
            file.create_dataset(
                name, data=np.zeros((12, 4 * n // width), kind), compression="gzip", chunks=True
            )

        return write

    def one_chunk(file: h5py.File, n: int) -> None:
        del file["ecg"]
        shape = (12, n // 12)
        file.create_dataset(
            "ecg", data=np.zeros(shape, np.float32), compression="gzip", chunks=shape
        )

    def claimed(file: h5py.File, n: int) -> None:
        del file["ecg"]
        file.create_dataset("ecg", (12, n * 100), "f4", chunks=(1, 1024))

    return {
        "deflated samples": _h5(deflated("f4", "ecg")),
        "deflated facts": _h5(deflated("f8", "fs")),
        "deflated names": _h5(deflated("S50", "leads")),
        "deflated ids": _h5(deflated("S50", "exam_id")),
        "one deflated chunk": _h5(one_chunk),
        "claimed samples": _h5(claimed),
    }


# EDF, DICOM, SCP-ECG, ISHNE -----------------------------------------------------------------------


def edf_inputs() -> Iterator[Expensive]:
    yield from _bytes(".edf")
    plain, plus = (_seed(name).files["r.edf"] for name in ("edf", "edf_plus"))

    def channels(n: int) -> bytes:
        n = min(n, 9999)
        head = plain[:184] + b"%-8d" % (256 * (n + 1)) + plain[192:236] + b"%-8d" % 4
        widths = (16, 80, 8, 8, 8, 8, 8, 80, 8, 32)
        at, fields = 256, b""
        for width in widths:
            fields += plain[at : at + width] * n
            at += 2 * width
        return head + plain[244:252] + b"%-4d" % n + fields + bytes(60 * n * 4)

    def records(n: int, raw: bytes) -> bytes:
        size = (len(raw) - int(raw[184:192])) // 4
        return raw[:236] + b"%-8d" % n + raw[244:] + raw[-size:] * (n - 4)

    yield from _one(
        "r.edf",
        PARTS // 4,
        {
            "channels": channels,
            "data records": lambda n: records(n, plain),
            "timed data records": lambda n: records(n, plus),
            "claimed data records": lambda n: plain[:236] + b"%-8d" % (n * 100) + plain[244:],
            "annotations": lambda n: _annotations(plus, 10 * n),
        },
    )


def bdf_inputs() -> Iterator[Expensive]:
    yield from _bytes(".bdf")
    raw = _seed("bdf").files["r.bdf"]
    size = (len(raw) - int(raw[184:192])) // 4
    yield from _one(
        "r.bdf",
        PARTS,
        {
            "data records": lambda n: raw[:236] + b"%-8d" % n + raw[244:] + raw[-size:] * (n - 4),
            "claimed data records": lambda n: raw[:236] + b"%-8d" % (n * 100) + raw[244:],
        },
    )


def _annotations(plus: bytes, n: int) -> bytes:
    """Return an EDF+ file whose annotations of a data record take 2 n bytes, as many marks."""
    size = 256 * 4
    at = 256 + 3 * (16 + 80 + 8 + 8 + 8 + 8 + 8 + 80)
    head = bytearray(plus[:size])
    head[at + 16 : at + 24] = b"%-8d" % n
    head[236:244] = b"%-8d" % 1
    marks = (b"+0\x14\x14\0" + b"+1\x14a\x14\0" * (n // 3))[: 2 * n].ljust(2 * n, b"\0")
    return bytes(head) + bytes(2 * 2 * 30) + marks


def dicom_inputs() -> Iterator[Expensive]:
    yield from _bytes(".dcm")
    raw = _seed("dicom").files["r.dcm"]
    texts = ("CodeMeaning", "CodeValue", "PatientID", "PatientAge", "PatientSex", "PatientName")
    for keyword in texts:
        for run in RUNS:
            if run.isascii():
                text = {
                    f"{run!r} in {keyword}": lambda n, keyword=keyword, run=run: _dicom(
                        raw, keyword, "5" + run * (n // len(run)) + "x"
                    )
                }
                yield from _one("r.dcm", TEXT, text)
    yield from _one("r.dcm", PARTS, _dicom_parts(raw))
    deflated = {
        "deflated zeros": lambda n: _deflated_dicom(raw, bytes(16 * n)),
        "deflated elements": lambda n: _deflated_dicom(raw, _ELEMENT * (n // len(_ELEMENT))),
    }
    yield from _one("r.dcm", BYTES, deflated)


_ELEMENT = struct.pack("<HH2sH", 0x7FE1, 0x1001, b"SH", 0)


def _dicom(raw: bytes, keyword: str, text: str) -> bytes:
    """Return a DICOM file with another text in each element of a keyword.

    It is written with implicit types, in which a short text may be as long as any.
    """
    dataset = pydicom.dcmread(io.BytesIO(raw))
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    tag = pydicom.datadict.tag_for_keyword(keyword)

    def change(inner: Dataset, element: pydicom.DataElement) -> None:
        if element.tag == tag:
            inner[tag] = pydicom.DataElement(tag, "UT", text)

    dataset.PatientName = "A"
    dataset.walk(change)
    stream = io.BytesIO()
    dataset.save_as(stream, implicit_vr=True, little_endian=True, enforce_file_format=True)
    return stream.getvalue()


def _dicom_parts(raw: bytes) -> dict[str, Build]:
    def changed(change: Callable[[Dataset, int], None]) -> Build:
        def build(n: int) -> bytes:
            dataset = pydicom.dcmread(io.BytesIO(raw))
            change(dataset, n)
            stream = io.BytesIO()
            dataset.save_as(stream, enforce_file_format=True)
            return stream.getvalue()

        return build

    def groups(dataset: Dataset, n: int) -> None:
        dataset.WaveformSequence = list(dataset.WaveformSequence) * (n // 100)

    def channels(dataset: Dataset, n: int) -> None:
        group = dataset.WaveformSequence[0]
        n = n // 50
        group.ChannelDefinitionSequence = list(group.ChannelDefinitionSequence)[:1] * n
        group.NumberOfWaveformChannels = n
        group.WaveformData = bytes(2 * n * group.NumberOfWaveformSamples)

    def sources(dataset: Dataset, n: int) -> None:
        channel = dataset.WaveformSequence[0].ChannelDefinitionSequence[0]
        channel.ChannelSourceSequence = list(channel.ChannelSourceSequence) * (n // 20)

    nested = b"\x00\x54\x00\x01SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    return {
        "waveforms": changed(groups),
        "channels": changed(channels),
        "sources of a channel": changed(sources),
        "elements of one tag": lambda n: raw + _ELEMENT * n,
        "elements": lambda n: (
            raw
            + b"".join(
                struct.pack("<HH2sH", 0x7FE1 + 2 * (i >> 15), 0x1000 + (i & 0x7FFF), b"SH", 0)
                for i in range(n)
            )
        ),
        "nested sequences": lambda n: raw + nested * n,
        "empty items": lambda n: (
            raw + struct.pack("<HH2sHI", 0x5400, 0x0100, b"SQ", 0, 8 * n) + item * n
        ),
    }


def _deflated_dicom(raw: bytes, more: bytes) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(raw))
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    whole = stream.getvalue()
    # The group of the file's own elements ends where the compressed ones begin.
    at = 144 + struct.unpack("<I", whole[140:144])[0]
    plain = zlib.decompress(whole[at:], -15)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return whole[:at] + packer.compress(plain + more) + packer.flush()


def scp_inputs() -> Iterator[Expensive]:
    yield from _bytes(".scp")
    leads = {i: struct.pack("<IIB", 1, 120, i % 200 + 1) for i in range(255)}
    tag = struct.pack("<BH", 1, 1) + b"\0"

    def text(number: int, unit: bytes) -> Build:
        def build(n: int) -> bytes:
            value = (unit * n)[:60_000]
            return scp_of({1: struct.pack("<BH", number, len(value)) + value + b"\xff\0\0"})

        return build

    def bits(unit: bytes, n_leads: int) -> Build:
        def build(n: int) -> bytes:
            each = min(n // n_leads, 65534) // 2 * 2
            named = b"".join(struct.pack("<IIB", 1, 8 * each, i + 1) for i in range(n_leads))
            rows = struct.pack("<HHBB", 4880, 2000, 0, 0)
            rows += struct.pack(f"<{n_leads}H", *[each] * n_leads)
            body = (unit * (each * n_leads))[: each * n_leads]
            head = {
                2: struct.pack("<H", 19999),
                3: bytes([n_leads, 4 + 8 * (n_leads & 15)]) + named,
            }
            return scp_of({**head, 6: rows + body})

        return build

    def codes(n: int) -> bytes:
        """A table of many codes, of which each is longer than the one before."""
        count = min(n, 60_000)
        table = struct.pack("<HH", 1, count)
        table += b"".join(struct.pack("<BBBhI", 32, 32, 1, i % 999, i) for i in range(count))
        return scp_of({2: table, 6: struct.pack("<HHBB", 4880, 2000, 0, 0) + bytes(500)})

    yield from _one(
        "r.scp",
        BYTES // 4,
        {
            **{
                f"bits of {unit!r} in {n_leads} leads": bits(unit, n_leads)
                for unit in (b"\0", b"\xff", b"\xaa", b"\xff\xc0\0\0")
                for n_leads in (8, 40, 255)
            },
            **{
                f"{unit!r} in tag {number}": text(number, unit)
                for number in (0, 1, 2, 4, 5, 8)
                for unit in (b" ", b"0", b"a", b"\0")
            },
            "tags": lambda n: scp_of({1: tag * n}),
            "leads": lambda n: scp_of(
                {3: bytes([255, 0]) + b"".join(leads.values()) * (n // 2295)}
            ),
        },
    )
    yield from _one("r.scp", PARTS, {"codes": codes})


def ishne_inputs() -> Iterator[Expensive]:
    yield from _bytes(".ecg")

    def samples(n: int) -> bytes:
        return ishne(2, n // 4, 500, (1000, 2500)) + bytes(n)

    yield from _one("r.ecg", BYTES, {"samples": samples})


# XML ----------------------------------------------------------------------------------------------

_NODES = r"(?<=>)[^<>]+(?=<)|(?<==\")[^\"]*(?=\")|(?<=<)[A-Za-z]+"


def xml_inputs() -> Iterator[Expensive]:
    names = (
        "muse",
        "aecg",
        "philips",
        "philips_plain",
        "cardiosoft",
        "cardiosoft_stress",
        "mortara",
    )
    for name in names:
        seed = _seed(name)
        yield from stretch_fields(name, "r.xml", seed.files, _NODES, encoding="latin-1")
        elements = r"<([A-Za-z]+)[^<>/]*>[^<>]*</\1>|<[A-Za-z]+[^<>]*/>"
        yield from repeat_parts(name, "r.xml", seed.files, elements, encoding="latin-1")
        text = seed.files["r.xml"].decode("latin-1")
        for tag in sorted(set(re.findall(r"<([A-Za-z]+)", text))):
            yield from _one("r.xml", TEXT, _xml_parts(name, text, tag))
    for tag, name in (
        ("LeadData", "muse"),
        ("sequence", "aecg"),
        ("series", "aecg"),
        ("Strip", "cardiosoft_stress"),
    ):
        whole = rf"(?s)<{tag}>.*?</{tag}>"
        yield from repeat_parts(name, "r.xml", _seed(name).files, whole, encoding="latin-1")
    yield from _one("r.xml", TEXT, _philips_samples())


def _philips_samples() -> dict[str, Build]:
    """Return runs of codes in XLI, of which a few stand for many bytes."""

    def packed(n: int, codes: bytes, n_leads: int) -> bytes:
        duration = 2 * n // n_leads
        chunk = struct.pack("<iHh", len(codes), 1, 0) + codes
        text = base64.b64encode(chunk * n_leads).decode()
        named = f'numberofleads="{n_leads}" durationperchannel="{duration}" resolution="5"'
        return philips_xml(f'dataencoding="Base64" compression="XLI" {named}', text).encode()

    return {
        "philips: zeros in LZW": lambda n: packed(n, pack_lzw(bytes(2 * (n // 12))), 12),
        "philips: codes of zero": lambda n: packed(n, bytes(n), 1),
        "philips: codes that grow": lambda n: packed(
            n, (bytes(50) + pack_lzw(bytes(9999))) * (n // 9999 + 1), 1
        ),
        "philips: leads": lambda n: packed(n, b"\0" * 5, min(n // 100, 2000)),
    }


def _xml_parts(name: str, text: str, tag: str) -> dict[str, Build]:
    """Return long, deep and many parts at an element."""
    at = text.index(f"<{tag}") + len(tag) + 1
    inside = text.index(">", at) + 1 if text[text.index(">", at) - 1] != "/" else len(text)

    def put(where: int, make: Callable[[int], str]) -> Build:
        return lambda n: (text[:where] + make(n) + text[where:]).encode("latin-1")

    return {
        f"{name}: attributes of {tag}": put(
            at, lambda n: "".join(f' a{i}=""' for i in range(n // 10))
        ),
        f"{name}: namespaces of {tag}": put(
            at, lambda n: "".join(f' xmlns:a{i}="x"' for i in range(n // 16))
        ),
        f"{name}: nested {tag}": put(inside, lambda n: f"<{tag}>" * (n // 20)),
        f"{name}: comments in {tag}": put(inside, lambda n: "<!---->" * (n // 7)),
        f"{name}: characters in {tag}": put(inside, lambda n: "&#49;" * (n // 5)),
        f"{name}: blocks of {tag}": put(inside, lambda n: "<![CDATA[1]]>" * (n // 13)),
    }


# Arrays and texts ---------------------------------------------------------------------------------


def npy_inputs() -> Iterator[Expensive]:
    yield from _bytes(".npy")

    def header(text: Callable[[int], str]) -> Build:
        def build(n: int) -> bytes:
            raw = text(n).encode()
            return b"\x93NUMPY\x02\0" + struct.pack("<I", len(raw)) + raw + bytes(4800)

        return build

    start = "{'descr': '<f4', 'fortran_order': False, 'shape': "
    yield from _one(
        "r.npy",
        TEXT,
        {
            "spaces in the header": header(lambda n: start + "(12, 100), }" + " " * n),
            "brackets": header(lambda n: start + "(" * n),
            "digits": header(lambda n: start + "(" + "1" * n + ",), }"),
            "dimensions": header(lambda n: start + "(" + "1," * (n // 2) + "), }"),
            "keys": header(lambda n: "{" + "'a': 1, " * (n // 8) + "}"),
            "signs": header(lambda n: start + "(" + "-" * n + "1,), }"),
            "fields": header(
                lambda n: "{'descr': [" + "('a', '<f4'), " * (n // 14) + "], 'fortran_order': 1}"
            ),
        },
    )

    array = np.ones((4, 120, 2), np.float32)
    stream = io.BytesIO()
    np.save(stream, array)
    seed = {"r.npy": stream.getvalue(), "r.csv": b"id,age\na,1\nb,2\nc,3\nd,4\n"}
    for size, name, table in (
        (PARTS, "rows", lambda n: b"id\n" + b"a\n" * (10 * n)),
        (TEXT, "columns", lambda n: b"a," * (n // 2) + b"id\n"),
        (TEXT, "quotes", lambda n: b'id\n"' + b"\n" * n),
        (TEXT, "a long id", lambda n: b"id\n" + b"a" * n + b"\nb\nc\nd\n"),
    ):
        yield Expensive(
            f"{name} of the index",
            "r.npy",
            lambda n, table=table: {**seed, "r.csv": table(n)},
            size,
        )

    def many(n: int) -> dict[str, bytes]:
        stream = io.BytesIO()
        np.save(stream, np.ones((n, 100, 1), np.float32))
        ids = "".join(f"\nr{i}" for i in range(n))
        return {"r.npy": stream.getvalue(), "r.csv": f"id{ids}\n".encode()}

    yield Expensive("many records", "r.npy", many, PARTS)


def npz_inputs() -> Iterator[Expensive]:
    yield from _bytes(".npz")

    def packed(make: Callable[[int], dict[str, object]], pack: object) -> Build:
        def build(n: int) -> bytes:
            stream = io.BytesIO()
            pack(stream, **make(n))  # type: ignore[operator]
            return stream.getvalue()

        return build

    signal = np.ones((500, 2), np.float32)
    for name, make, size in (
        ("members", lambda n: {"signal": signal, **{f"a{i}": 1 for i in range(n // 10)}}, PARTS),
        ("samples", lambda n: {"signal": np.zeros((n // 8, 2), np.float32), "fs": 100}, 8 * BYTES),
        ("records", lambda n: {"X": np.zeros((n, 100, 1), np.float32), "fs": 100}, PARTS),
        ("texts", lambda n: {"signal": signal, "leads": np.array(["a" * n, "b"])}, TEXT),
        ("leads", lambda n: {"signal": signal, "leads": np.array(["a"] * n)}, TEXT),
    ):
        for pack in (np.savez, np.savez_compressed):
            yield from _one("r.npz", size, {f"{name}, {pack.__name__}": packed(make, pack)})


def parquet_inputs() -> Iterator[Expensive]:
    yield from _bytes(".parquet")

    def rows(n: int) -> dict[str, object]:
        return {"id": [f"{i}" for i in range(n)], "signal": [[[0.5] * 100]] * n}

    entry, signal = "r.parquet", [[[0.5] * 500] * 2]
    for name, columns, stated, size in (
        ("rows", rows, lambda n: {}, PARTS // 4),
        ("samples", lambda n: {"id": ["a"], "signal": [[[0.5] * n]]}, lambda n: {}, BYTES),
        ("leads", lambda n: {"id": ["a"], "signal": [[[0.5]] * n]}, lambda n: {}, PARTS),
        ("a long id", lambda n: {"id": ["a" * n], "signal": signal}, lambda n: {}, TEXT),
        ("a unit", lambda n: {"id": ["a"], "signal": signal}, lambda n: {"unit": "m" * n}, TEXT),
        ("names", lambda n: {"id": ["a"], "signal": signal}, lambda n: {"leads": "[" * n}, TEXT),
        (
            "columns",
            lambda n: {"id": ["a"], "signal": signal} | {f"c{i}": [1] for i in range(n // 50)},
            lambda n: {},
            PARTS,
        ),
    ):
        yield Expensive(
            name,
            entry,
            lambda n, columns=columns, stated=stated: {entry: parquet_bytes(columns(n), stated(n))},
            size,
        )


def text_inputs(suffix: str) -> Iterator[Expensive]:
    for seed in record_seeds():
        if seed.entry.endswith(suffix):
            yield from stretch_fields(seed.name, seed.entry, seed.files)
            yield from repeat_parts(seed.name, seed.entry, seed.files)
    entry = f"r{suffix}"
    yield from _one(
        entry,
        TEXT,
        {
            "columns": lambda n: ",".join(f"c{i}" for i in range(n // 6)).encode() + b"\n1\n",
            "columns of numbers": lambda n: (b"1," * (n // 4) + b"1\n") * 2,
            "one column": lambda n: b"1\n" * (n // 2),
            "blank lines": lambda n: b"a,b\n" + b"\n" * n + b"1,2\n",
            "facts": lambda n: b"# sampling rate: 250 Hz\n" * (n // 24) + b"1,2\n" * 500,
            "quotes": lambda n: b'"' * n,
            "quoted lines": lambda n: b'a,b\n"' + b"\n" * n,
            "long numbers": lambda n: (b"1" * (n // 4) + b",2\n") * 4,
            "exponents": lambda n: b"1e" + b"9" * n + b",2\n" + b"1,2\n" * 500,
        },
    )
    yield Expensive("a hole", entry, lambda n: {entry: b"I,II\n1,2\n"}, HOLE, has_hole=True)


GENERATORS: dict[str, Callable[[], Iterator[Expensive]]] = {
    "wfdb": wfdb_inputs,
    "mat": mat_inputs,
    "hdf5": hdf5_inputs,
    "edf": edf_inputs,
    "bdf": bdf_inputs,
    "dicom": dicom_inputs,
    "xml": xml_inputs,
    "scp": scp_inputs,
    "ishne": ishne_inputs,
    "npy": npy_inputs,
    "npz": npz_inputs,
    "parquet": parquet_inputs,
    **{
        name: lambda suffix=SUFFIXES[name]: text_inputs(suffix)
        for name in ("csv", "tsv", "txt", "asc")
    },
}
"""Target -> its expensive inputs; a new format needs a line here."""
