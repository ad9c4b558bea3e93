"""WFDB annotation files (``.atr`` and the like) in the MIT format, within limits of size and time.

The format is documented in ``annot(5)`` of the WFDB Applications Guide: words of 16 bits, of which
the upper six are a code and the lower ten the samples since the annotation before. The package
``wfdb`` reads the same, and is what the tests compare with; it trusts what a file claims.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.records.formats.errors import open_error
from src.records.record import MAX_FS, MIN_FS, RecordError
from src.utils import read_regular

# Annotations of a month. A file of this size is read in a second.
MAX_BYTES = 2**22
SYMBOLS: Mapping[int, str] = (
    dict(enumerate("NLRaVFJASEj/Q~", start=1))
    | dict(enumerate("|", start=16))
    | dict(enumerate('sT*D"=pB^t+u?![]en@xf()r', start=18))
)
"""Code of an annotation -> its symbol."""

_COMMENT = 22
_SKIP, _NUM, _SUB, _CHAN, _AUX = 59, 60, 61, 62, 63
_RESOLUTION = re.compile(r"## time resolution: ([0-9.]{1,20})")


@dataclass(frozen=True)
class Annotations:
    """The annotations of a file, in its order.

    Attributes
    ----------
    samples
        Sample of each annotation, from 0 on, shape (n,).
    codes
        Its code; see `SYMBOLS`.
    subtypes
        Its subtype, 0 where the file states none.
    notes
        Position of an annotation -> its text (``aux_note``).
    fs
        Samples per second, if the file states its own.
    """

    samples: NDArray[np.int64]
    codes: NDArray[np.uint8]
    subtypes: NDArray[np.int8]
    notes: dict[int, str]
    fs: float | None = None

    @property
    def symbols(self) -> list[str]:
        """The symbol of each annotation, empty for a code without one."""
        return [SYMBOLS.get(code, "") for code in self.codes.tolist()]


def read_annotations(path: str | Path) -> Annotations:
    """Read an annotation file.

    Raises
    ------
    RecordError
        If it is missing, no file of this format, too large, cut, or its times run backwards; the
        message names the place.
    """
    try:
        raw = read_regular(path, MAX_BYTES)
    except OSError as error:
        raise open_error(path, error) from None
    except ValueError as error:
        raise RecordError(path, str(error).partition(": ")[2]) from None
    if len(raw) < 2 or len(raw) % 2:
        raise RecordError(
            path, f"has {len(raw)} bytes: expected annotations in words of 16 bits, ending in 0"
        )
    return _Parser(Path(path), np.frombuffer(raw, "<u2").tolist(), raw).parse()


class _Parser:
    """Goes through the words of a file once."""

    def __init__(self, path: Path, words: list[int], raw: bytes) -> None:
        self.path = path
        self.words = words
        self.raw = raw
        self.samples = array("q")
        self.codes = bytearray()
        self.subtypes = array("b")
        self.notes: dict[int, str] = {}

    def parse(self) -> Annotations:
        words, n_words = self.words, len(self.words)
        time = place = 0
        while place < n_words:
            code, value = words[place] >> 10, words[place] & 0x3FF
            place += 1
            if code == 0 and value == 0:
                break
            if code == _SKIP:
                self._require(place + 2 <= n_words, "the file ends inside a jump in time")
                jump = (words[place] << 16) + words[place + 1]
                time += jump - 2**32 if jump >= 2**31 else jump
                place += 2
            elif code == _AUX:
                place = self._read_note(place, value)
            elif code == _SUB:
                self._require(bool(self.codes), "a subtype comes before any annotation")
                # A signed byte
                self.subtypes[-1] = (value & 0xFF) - ((value & 0x80) << 1)
            elif code not in (_NUM, _CHAN):
                time += value
                earliest = self.samples[-1] if self.samples else 0
                self._require(time >= earliest, f"lies at sample {time}, before {earliest}")
                self.samples.append(time)
                self.codes.append(code)
                self.subtypes.append(0)
        else:
            raise RecordError(self.path, "ends without a word of 0: expected the whole file")
        return self._build()

    def _read_note(self, place: int, n_bytes: int) -> int:
        """Add the text of the last annotation and return the place after it."""
        self._require(bool(self.codes), "a text comes before any annotation")
        stop = place + (n_bytes + 1) // 2
        self._require(stop <= len(self.words), "the file ends inside a text")
        text = self.raw[2 * place : 2 * place + n_bytes].decode("latin-1")
        self.notes[len(self.codes) - 1] = text.partition("\0")[0].strip()
        return stop

    def _require(self, condition: bool, problem: str) -> None:
        if not condition:
            raise RecordError(
                self.path,
                f"annotation {len(self.codes) + 1}: {problem}: expected annotations in the order "
                "of time, as in the MIT format",
            )

    def _find_definitions(self) -> list[int]:
        """Return the notes at the beginning that tell the clock of the file, or define codes."""
        found = []
        is_inside = False
        for place, text in self.notes.items():
            if self.samples[place] != 0 or self.codes[place] != _COMMENT:
                break
            is_inside |= text == "## annotation type definitions"
            if is_inside or text.startswith("## "):
                found.append(place)
            is_inside &= text != "## end of definitions"
        return found

    def _build(self) -> Annotations:
        samples = np.array(self.samples, np.int64)
        codes = np.frombuffer(bytes(self.codes), np.uint8)
        subtypes = np.array(self.subtypes, np.int8)
        fs = None
        about = self._find_definitions()
        for place in about:
            if match := _RESOLUTION.fullmatch(self.notes[place]):
                fs = _parse_rate(match[1], self.path)
        # A code of 0 moves the clock and annotates nothing.
        is_kept = codes != 0
        is_kept[about] = False
        if is_kept.all():
            return Annotations(samples, codes, subtypes, self.notes, fs)
        kept = np.flatnonzero(is_kept)
        places = {int(old): new for new, old in enumerate(kept)}
        notes = {places[old]: text for old, text in self.notes.items() if old in places}
        return Annotations(samples[kept], codes[kept], subtypes[kept], notes, fs)


def _parse_rate(text: str, path: Path) -> float:
    """Return the clock of a file in Hz."""
    try:
        fs = float(text)
    except ValueError:
        fs = 0.0
    if not MIN_FS <= fs <= MAX_FS:
        raise RecordError(
            path, f"its time resolution is {text!r}: expected {MIN_FS:g} to {MAX_FS:g} Hz"
        )
    return fs
