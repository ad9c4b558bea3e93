"""Inputs that are made to cost much, at any size: what their generators share.

`tests.fuzz.expensive_records` has one generator for each format of recordings, and
`tests.fuzz.expensive_files` one for each kind of our own files and of tables. What reading such an
input takes as its size doubles is measured by `tests.fuzz.costs`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

TEXT = 2**18
"""Characters of the smallest text of three; the largest has a million, as headers may have."""

PARTS = 10_000
"""Parts of the smallest of three inputs of many parts."""

BYTES = 2**22
"""Bytes of the smallest of three binary inputs."""

HOLE = 2**26
"""Bytes of the smallest of three holes, which take no room on a disk."""

RUNS = (" ", "0", "a", ",", ";", "-", "(", "\t", "\u00a0", "1 ", "a:")
"""What a text is continued by, as patterns stumble over each of them in other places."""

_NUMBER = re.compile(r"-?\d+")


@dataclass(frozen=True)
class Expensive:
    """An input of any size.

    `build` gives the files of an input of size n by name, and `entry` is the one to read. `size`
    is the n of the smallest of the three that are measured. An input with a hole is as large as n
    says, but its end is not on the disk.
    """

    name: str
    entry: str
    build: Callable[[int], dict[str, bytes]]
    size: int
    has_hole: bool = False

    def write(self, folder: Path, n: int) -> Path:
        for name, content in self.build(n).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        path = folder / self.entry
        if self.has_hole:
            os.truncate(path, path.stat().st_size + n)
        return path


# Texts --------------------------------------------------------------------------------------------


def stretch_fields(
    label: str,
    entry: str,
    files: dict[str, bytes],
    fields: str = r"[^\s,;:\"]+",
    runs: tuple[str, ...] = RUNS,
    encoding: str = "utf-8",
) -> Iterator[Expensive]:
    """Continue each field of a text by a long run that something else ends.

    Fields that differ in numbers only count once.
    """
    text = files[entry].decode(encoding)
    for start, end in _places(text, fields):
        for run in runs:

            def build(n: int, end: int = end, run: str = run) -> dict[str, bytes]:
                longer = text[:end] + run * (n // len(run)) + "x" + text[end:]
                return {**files, entry: longer.encode()}

            name = f"{label}: {run!r} after {text[max(0, start - 12) : end][-40:]!r}"
            yield Expensive(name, entry, build, TEXT)


def _places(text: str, fields: str) -> Iterator[tuple[int, int]]:
    seen = set()
    for match in re.finditer(fields, text):
        before = text[max(0, match.start() - 12) : match.start()]
        kind = _NUMBER.sub("0", before), _NUMBER.sub("0", match[0][:20])
        if kind not in seen:
            seen.add(kind)
            yield match.span()


def repeat_parts(
    label: str,
    entry: str,
    files: dict[str, bytes],
    parts: str = r"[^\n]+\n",
    encoding: str = "utf-8",
    size: int = TEXT,
) -> Iterator[Expensive]:
    """Repeat each part of a text, such as a line, as it is and with a number in its first word.

    Parts that differ in numbers only count once.
    """
    text = files[entry].decode(encoding)
    for start, end in _places(text, parts):
        for is_numbered in (False, True):

            def build(
                n: int, start: int = start, end: int = end, is_numbered: bool = is_numbered
            ) -> dict[str, bytes]:
                part = text[start:end]
                copies = (
                    re.sub(r"[^\W\d]+", rf"\g<0>{i}", part, count=1) if is_numbered else part
                    for i in range(n // len(part))
                )
                return {**files, entry: (text[:end] + "".join(copies) + text[end:]).encode()}

            sort = "numbered" if is_numbered else "equal"
            yield Expensive(f"{label}: many {sort} {text[start:end][:40]!r}", entry, build, size)


# Bytes --------------------------------------------------------------------------------------------


def stretch_bytes(label: str, entry: str, files: dict[str, bytes]) -> Iterator[Expensive]:
    """Put long runs of bytes into a binary file, at its beginning, in its parts and at its end, and
    repeat its own bytes; end it in a hole.
    """
    raw = files[entry]
    places = {8, 64, 132, 256, 512, len(raw) // 2, len(raw) - 8, len(raw)}
    for at in sorted(place for place in places if place <= len(raw)):
        units = {"0": b"\0", "255": b"\xff", "the bytes before": raw[max(0, at - 64) : at]}
        for name, unit in units.items():

            def build(n: int, at: int = at, unit: bytes = unit) -> dict[str, bytes]:
                return {**files, entry: raw[:at] + unit * (n // len(unit)) + raw[at:]}

            yield Expensive(f"{label}: bytes of {name} at {at}", entry, build, BYTES)
    for end in (132, len(raw)):
        yield Expensive(
            f"{label}: a hole from {end}",
            entry,
            lambda n, end=end: {**files, entry: raw[:end]},
            HOLE,
            has_hole=True,
        )
