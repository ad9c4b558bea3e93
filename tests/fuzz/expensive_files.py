"""A generator of expensive inputs for each kind of our own files, for tables and for folders."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch

from .expensive import BYTES, HOLE, PARTS, TEXT, Expensive, repeat_parts, stretch_fields
from .tables import TABLES
from .targets import PATTERNS, own_files

_E_ACUTE = ("\u00e9", "e\u0301")  # one letter in two forms
JSON_RUNS = (" ", "0", "a", "[", "\\\\")


@cache
def _own(kind: str) -> tuple[str, bytes]:
    """Return the name and the bytes of a file of ours."""
    path = next(path for path in sorted(own_files()) if Path(path).match(PATTERNS[kind]))
    return Path(path).name, own_files()[path]


def _holes(kind: str) -> Iterator[Expensive]:
    name, raw = _own(kind)
    yield Expensive("a hole", name, lambda n: {name: raw}, HOLE, has_hole=True)
    yield Expensive("nothing but a hole", name, lambda n: {name: b""}, HOLE, has_hole=True)


# Tables -------------------------------------------------------------------------------------------


def table_inputs(kind: str) -> Iterator[Expensive]:
    """Long cells and names, many rows and columns, quotes that do not end, rows that run on."""
    seed = TABLES[kind]
    entry, files = seed.entry, seed.files
    yield from stretch_fields(kind, entry, files, r"[^\n,\"]+")
    # Valid rows are work: a table of a million is read in seconds.
    yield from repeat_parts(kind, entry, files, size=TEXT // 8)
    header, *lines = files[entry].decode().splitlines()

    def wide(n: int) -> str:
        names = "".join(f",c{i}" for i in range(n // 8))
        return "\n".join([header + names, *lines]) + "\n"

    def wide_rows(n: int) -> str:
        cells = ",1" * (n // 8)
        names = "".join(f",c{i}" for i in range(n // 8))
        return "\n".join([header + names, *(line + cells for line in lines * 3)]) + "\n"

    for name, build in {
        "columns": wide,
        "columns with cells": wide_rows,
        "cells without a column": lambda n: header + "\n" + lines[0] + "," * n + "\n",
        "separators": lambda n: header + "\n" + ";" * n + "\n",
        "quotes": lambda n: header + "\n" + '"' * n + "\n",
        "a quote that does not end": lambda n: header + '\n"' + "a,b\n" * (n // 4),
        "blank lines": lambda n: header + "\n" * n + "\n".join(lines) + "\n",
        "blank cells": lambda n: header + "\n" + (",,,\n" * (n // 4)),
    }.items():
        yield Expensive(
            name, entry, lambda n, build=build: {**files, entry: build(n).encode()}, TEXT
        )
    yield Expensive("a hole", entry, lambda n: files, HOLE, has_hole=True)


def mapping_inputs() -> Iterator[Expensive]:
    """A row for each of many records: ids, patients and labels that are hard to tell apart, and
    folders whose files are called alike.
    """
    yield from table_inputs("mapping")
    head = "dataset,record_id,mapped_label,patient_id,path\n"
    rows: dict[str, Callable[[int], str]] = {
        "rows": lambda i: f"d,r{i},A,p{i},",
        "zeros in front": lambda i: f"d,{'0' * (i % 60)}{i},A,{'0' * (i % 60)}{i},",
        "labels of their own": lambda i: f"d,r{i},label {i};other {i},,",
        "one patient": lambda i: f"d,r{i},A,p1,",
        "datasets": lambda i: f"d{i},r1,A,p1,",
        "patients in two forms": lambda i: f"d,r{i},A,{_E_ACUTE[i % 2]}{i // 2},",
        "one path": lambda i: f"d,r{i},A,,x/r",
        "paths": lambda i: f"d,r{i},A,,data/p{i}/ecg.hea",
        "wrong rows": lambda i: f"d,,\x01{i},,",
        "one id": lambda i: "d,r1,A,,",
        "ids in other case": lambda i: f"d,{'rR'[i % 2]}{i // 2},A,,",
    }
    for name, row in rows.items():

        def build(n: int, row: Callable[[int], str] = row) -> dict[str, bytes]:
            return {"m.csv": (head + "".join(f"{row(i)}\n" for i in range(n))).encode()}

        yield Expensive(name, "m.csv", build, PARTS // 2)
    yield from folder_inputs(head)


def folder_inputs(head: str) -> Iterator[Expensive]:
    """Folders of many files, and a mapping that names them by other paths."""
    alike: dict[str, tuple[Callable[[int], str], Callable[[int], str]]] = {
        "one name in each folder": (lambda i: f"p{i}/ecg.hea", lambda i: f"data/p{i}/ecg.hea"),
        "shared endings": (lambda i: f"p{i}/a/b/ecg.hea", lambda i: f"q{i}/a/b/ecg.hea"),
        "shared beginnings": (lambda i: f"a/b/p{i}.hea", lambda i: f"c/b/p{i}"),
        "zeros": (lambda i: f"{i:07d}.hea", lambda i: f"{i}"),
        "rates": (lambda i: f"p{i}_hr.hea", lambda i: f"p{i}_lr"),
        "other case": (lambda i: f"P{i}.hea", lambda i: f"p{i}"),
        "only one row": (lambda i: f"p{i}/ecg.hea", lambda i: "ecg"),
        "parts": (lambda i: f"r{i % 9}/{i}.h5", lambda i: f"r{i % 9}/{i}.h5::x{i}"),
        "no record": (lambda i: f"{i}.tar", lambda i: f"{i}"),
        "texts": (lambda i: f"{i}.txt", lambda i: f"{i}"),
    }
    for name, (file, path) in alike.items():

        def build(
            n: int, file: Callable[[int], str] = file, path: Callable[[int], str] = path
        ) -> dict[str, bytes]:
            rows = "".join(f"d,r{i},A,,{path(i)}\n" for i in range(n))
            return {"m.csv": (head + rows).encode(), **{file(i): b"" for i in range(n)}}

        yield Expensive(f"folder: {name}", "m.csv", build, PARTS // 10)


# Archives -----------------------------------------------------------------------------------------


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _zip(members: Iterator[tuple[str, bytes]]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


def archive_inputs(kind: str) -> Iterator[Expensive]:
    """Each array grown, many members, long names and headers, much that is deflated to little."""
    entry, raw = _own(kind)
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}

    def changed(name: str, content: Callable[[int], bytes]) -> Callable[[int], dict[str, bytes]]:
        return lambda n: {entry: _zip(iter({**members, name: content(n)}.items()))}

    for name in members:
        for sort, make in {
            "zeros": lambda n: _npy(np.zeros(n, np.float32)),
            "a long text": lambda n: _npy(np.array(["x" * (n // 4)])),
            "many texts": lambda n: _npy(np.array([f"t{i}" for i in range(n // 32)])),
            "many equal texts": lambda n: _npy(np.full(n // 32, "A")),
            "a long header": lambda n: b"\x93NUMPY\x02\0" + n.to_bytes(4, "little") + b"(" * n,
            "zeros that are no array": lambda n: bytes(n),
        }.items():
            yield Expensive(f"{sort} in {name}", entry, changed(name, make), BYTES)

    def many(n: int) -> dict[str, bytes]:
        more = ((f"v{i}.npy", _npy(np.zeros(1))) for i in range(n))
        return {entry: _zip(iter([*members.items(), *more]))}

    yield Expensive("members", entry, many, PARTS)
    yield from _holes(kind)


def predictions_inputs() -> Iterator[Expensive]:
    from src.learning.predictions import Predictions

    yield from archive_inputs("predictions")

    def save(n_records: int, n_classes: int) -> dict[str, bytes]:
        import tempfile

        keys = tuple(f"d__r{i}" for i in range(n_records))
        classes = tuple(f"class {i}" for i in range(n_classes))
        values = np.zeros((n_records, n_classes))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "p.npz")
            Predictions(keys, values, values, classes, signal_hashes=keys).save(path)
            return {"p.npz": path.read_bytes()}

    yield Expensive("records", "p.npz", lambda n: save(n, 5), PARTS)
    yield Expensive("classes", "p.npz", lambda n: save(5, n), PARTS)


def checkpoint_inputs() -> Iterator[Expensive]:
    """Many, large and nested weights, classes and states; numbers, names and keys that run on."""
    entry, raw = _own("checkpoint")

    def changed(change: Callable[[dict, int], object]) -> Callable[[int], dict[str, bytes]]:
        def build(n: int) -> dict[str, bytes]:
            content = torch.load(io.BytesIO(raw), weights_only=True)
            change(content, n)
            stream = io.BytesIO()
            torch.save(content, stream)
            return {entry: stream.getvalue()}

        return build

    def nest(n: int) -> object:
        value: object = 1
        for _ in range(n):
            value = [value]
        return value

    one = torch.zeros(1)
    parts: dict[str, Callable[[dict, int], object]] = {
        "weights": lambda c, n: c["weights"].update({f"w{i}": one for i in range(n)}),
        "weights of their own": lambda c, n: c["weights"].update(
            {f"w{i}": torch.zeros(1) for i in range(n // 10)}
        ),
        "classes": lambda c, n: c["card"].update(classes=[f"c{i}" for i in range(n)]),
        "equal classes": lambda c, n: c["card"].update(classes=["c"] * n),
        "leads": lambda c, n: c["card"].update(leads=["I"] * n),
        "thresholds": lambda c, n: c["card"].update(thresholds=[0.5] * n),
        "fields": lambda c, n: c["card"].update({f"f{i}": 1 for i in range(n)}),
        "hashes": lambda c, n: c["card"].update(train_hashes=[f"{i:032x}" for i in range(n)]),
        "state": lambda c, n: c["state"].update({f"f{i}": [1] for i in range(n)}),
        "nested state": lambda c, n: c.update(state={"a": nest(min(n // 100, 400))}),
        "digits": lambda c, n: c["card"]["model"].update(base_channels=10 ** min(n // 10, 4000)),
        "a long name": lambda c, n: c["card"].update(classes=["x" * (100 * n)]),
        "a large weight": lambda c, n: c["weights"].update(w=torch.zeros(100 * n)),
    }
    for name, change in parts.items():
        yield Expensive(name, entry, changed(change), PARTS)
    yield from _holes("checkpoint")


# JSON, manifest, journal --------------------------------------------------------------------------


def json_inputs(kind: str) -> Iterator[Expensive]:
    """Long names and values, many of each, deep nests."""
    entry, raw = _own(kind)
    files = {entry: raw}
    yield from stretch_fields(kind, entry, files, r"[^\s,:{}\[\]\"]+", JSON_RUNS)
    value = json.loads(raw)
    for key, held in value.items():

        def put(n: int, key: str = key, make: Callable[[int], object] = list) -> dict[str, bytes]:
            return {entry: json.dumps({**value, key: make(n)}).encode()}

        old = (
            next(iter(held.values() if isinstance(held, dict) else held), 1)
            if held and isinstance(held, dict | list)
            else held
        )
        for sort, make in {
            "numbers": lambda n: list(range(n)),
            "texts": lambda n: [f"d__r{i}" for i in range(n)],
            "fields": lambda n: {f"f{i}": 1 for i in range(n)},
            "copies": lambda n, old=old: [old] * n,
            "named copies": lambda n, old=old: {f"f{i}": old for i in range(n)},
        }.items():
            build = lambda n, key=key, make=make, put=put: put(n, key, make)  # noqa: E731
            yield Expensive(f"{sort} in {key}", entry, build, PARTS)
    for name, unit in (("lists", b"["), ("tables", b'{"a":'), ("spaces", b" "), ("zeros", b"\0")):
        yield Expensive(
            f"nested {name}", entry, lambda n, unit=unit: {entry: unit * (n // len(unit))}, TEXT
        )
    yield from _holes(kind)


def manifest_inputs() -> Iterator[Expensive]:
    """Long cells, many columns and rows; records that all have another label, patient or fold."""
    entry, raw = _own("manifest")
    files = {entry: raw}
    yield from stretch_fields("manifest", entry, files, r"[^\n,\"]+")
    yield from repeat_parts("manifest", entry, files)
    names = raw.decode().splitlines()[0].split(",")

    def rows(**cells: Callable[[int], object]) -> Callable[[int], dict[str, bytes]]:
        given = {"dataset": lambda i: "d", "record_id": lambda i: f"r{i}", "status": lambda i: "ok"}
        given |= {"label_source": lambda i: "mapping", "labels": lambda i: "A", **cells}

        def build(n: int) -> dict[str, bytes]:
            lines = (
                ",".join(str(given[name](i)) if name in given else "" for name in names)
                for i in range(n)
            )
            return {entry: "\n".join([",".join(names), *lines, ""]).encode()}

        return build

    for name, cells in {
        "rows": {},
        "labels of their own": {"labels": lambda i: f"label {i}"},
        "two labels of their own": {"labels": lambda i: f"label {i};other {i // 2}"},
        "labels of all": {"labels": lambda i: ";".join(f"l{(i * k) % 97}" for k in range(9))},
        "patients": {"patient_id": lambda i: f"p{i}"},
        "one patient": {"patient_id": lambda i: "p"},
        "pairs of patients": {"patient_id": lambda i: f"p{i // 2}", "labels": lambda i: f"l{i}"},
        "datasets": {"dataset": lambda i: f"d{i}"},
        "folds": {"fold": lambda i: i % 10},
        "folds of their own": {"fold": lambda i: i},
        "copies": {"status": lambda i: "rejected", "reason": lambda i: f"copy of d__r{i // 2}"},
    }.items():
        yield Expensive(f"split {name}", entry, rows(**cells), PARTS // 2)
    yield from _holes("manifest")


def journal_inputs() -> Iterator[Expensive]:
    entry, row = "manifest.partial.jsonl", b'["d", "r1"]\n'
    for name, unit in {
        "rows": row,
        "brackets": b"[",
        "blank lines": b"\n",
        "zeros": b"\0",
        "marks": b"\xff",
        "torn rows": b'["d\n',
        "digits": b"1",
    }.items():
        yield Expensive(name, entry, lambda n, unit=unit: {entry: unit * (n // len(unit))}, TEXT)
    yield Expensive("a hole", entry, lambda n: {entry: row}, HOLE // 4, has_hole=True)


GENERATORS: dict[str, Callable[[], Iterator[Expensive]]] = {
    "mapping": mapping_inputs,
    **{name: lambda name=name: table_inputs(name) for name in TABLES if name != "mapping"},
    "record_file": lambda: archive_inputs("record_file"),
    "predictions": predictions_inputs,
    "features": lambda: archive_inputs("features"),
    "checkpoint": checkpoint_inputs,
    "manifest": manifest_inputs,
    "journal": journal_inputs,
    **{
        name: lambda name=name: json_inputs(name)
        for name in ("splits", "preprocess_config", "config", "training_log", "metrics")
    },
}
"""Target -> its expensive inputs; a new kind of file needs a line here."""
