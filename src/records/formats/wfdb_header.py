"""The header of a WFDB record: what it says of its leads, its segments and its patient.

Read here, since the ``wfdb`` package spends more time in its header parser than the whole pipeline
takes, and refuses headers that the Challenges ship. Format: WFDB Applications Guide, header(5).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from src.records.formats.errors import open_error
from src.records.record import RecordError

DEFAULT_FS = 250.0  # header(5): when the record line gives none
DEFAULT_GAIN = (
    200.0  # header(5): when a gain is absent or 0, the signal is uncalibrated and 200 is assumed
)
_MAX_HEADER_BYTES = 4_000_000
_SMALL_HEADER_BYTES = 65_536
_MAX_LINE = 2000  # characters; patterns take long to refuse a line of millions
_MAX_LEADS = 1000
_DEVICES = {
    "CON",
    "PRN",
    "AUX",
    "NUL",
    *(f"{port}{i}" for port in ("COM", "LPT") for i in range(10)),
}  # files to Windows
_MAX_SAMPLES = 2**53

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_SIGNAL_LINE = re.compile(
    rf"""^(?P<file>.+?)\s+(?P<fmt>\d+)(?:x(?P<frame>\d+))?(?::(?P<skew>\d+))?(?:\+(?P<offset>\d+))?
    (?:\s+(?P<gain>{_NUMBER}|[-+]?nan|[-+]?inf)(?:\((?P<baseline>-?\d+)\))?(?:/(?P<units>\S*))?
    (?:\s+(?P<adc_res>-?\d+)(?:\s+(?P<adc_zero>-?\d+)(?:\s+(?P<initial>-?\d+)(?:\s+(?P<checksum>-?\d+)
    (?:\s+(?P<block>\d+)(?:\s+(?P<description>.*))?)?)?)?)?)?)?\s*$""",
    re.VERBOSE | re.IGNORECASE,
)
_INTEGERS = re.compile(r"-?[0-9]+(?: -?[0-9]+)*")
_SEGMENT_LINE = re.compile(r"^(?P<name>\S+)\s+(?P<n>\d+)\s*$")
_RECORD_LINE = re.compile(
    rf"^(?P<name>\S+?)(?:/(?P<segments>\d+))?\s+(?P<n_leads>\d+)(?:\s+(?P<fs>{_NUMBER}|nan|inf)(?:/\S+)?(?:\s+(?P<n>\d+)(?:\s.*)?)?)?\s*$",
    re.IGNORECASE,
)


class SignalSpec(NamedTuple):
    """One signal line of a header; what differs from record to record comes first."""

    file: str
    initial: int | None
    checksum: int | None
    fmt: str
    samples_per_frame: int
    skew: int
    byte_offset: int
    gain: float
    gain_assumed: bool
    baseline: int
    units: str
    description: str


@dataclass(frozen=True)
class Segment:
    """One segment line of a header; a name of ``~`` is a gap."""

    name: str
    n_samples: int


class Header(NamedTuple):
    """A parsed header; `n_samples` is None when it does not say, and `segments` are those of a
    record made of several.

    `facts` are what its comments say of the patient, as `parse_comments` finds them.
    """

    path: Path
    fs: float
    n_samples: int | None
    signals: tuple[SignalSpec, ...]
    segments: tuple[Segment, ...]
    facts: dict[str, str]


def read_header(path: Path) -> Header:
    """Read a .hea file; those read last are kept, since a record is asked for its length first, and
    then window by window.

    Raises
    ------
    RecordError
        If the file is missing, empty or not a WFDB header.
    """
    try:
        status = os.stat(path)
        read = _small_header if status.st_size <= _SMALL_HEADER_BYTES else _large_header
        return read(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise open_error(path, error) from None


def _read_file(path: Path, mtime_ns: int, size: int) -> Header:
    with open(path, "rb", buffering=0) as stream:
        # Not to its end, since what a system makes up while it is read may have none; nor the most,
        # for which room would be made
        raw = stream.read(size) if size <= _MAX_HEADER_BYTES else b""
    if size > _MAX_HEADER_BYTES:
        raise RecordError(
            path, f"header is over {_MAX_HEADER_BYTES} bytes: expected a short text file"
        )
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return parse_header(text, path)


_small_header = lru_cache(maxsize=64)(_read_file)  # as many as are read together


_large_header = lru_cache(maxsize=4)(_read_file)


def lone_headers(names: Sequence[str]) -> list[str]:
    """Return the headers of a folder that have no samples of their own name beside them, as those
    of records made of segments.
    """
    held = {os.path.splitext(name)[0] for name in names if name.lower().endswith((".dat", ".mat"))}
    return [
        name
        for name in names
        if name.lower().endswith(".hea") and os.path.splitext(name)[0] not in held
    ]


def named_files(path: Path) -> Iterator[str]:
    """Yield the files that a header asks for, of samples and of its segments' headers; none where
    it cannot be read.
    """
    try:
        header = read_header(path)
    except RecordError:
        return
    yield from dict.fromkeys(spec.file for spec in header.signals)
    yield from dict.fromkeys(
        f"{segment.name}.hea" for segment in header.segments if segment.name != "~"
    )


def segment_names(path: Path) -> set[str]:
    """Return the names of the segments that a record is made of; none where it is made of none or
    cannot be read.
    """
    try:
        return {segment.name for segment in read_header(path).segments} - {path.stem}
    except RecordError:
        return set()


def parse_header(text: str, path: Path) -> Header:
    """Parse the text of a header; see `read_header`."""
    stripped = [line.strip() for line in text.lstrip("\ufeff").replace("\r", "\n").split("\n")]
    lines = [line for line in stripped if line and not line.startswith("#")]
    facts = parse_comments(tuple(line[1:].strip() for line in stripped if line.startswith("#")))
    if not lines:
        raise RecordError(
            path, "header is empty: expected a record line 'name n_leads fs n_samples'"
        )
    match = _RECORD_LINE.match(lines[0]) if len(lines[0]) <= _MAX_LINE else None
    if match is None:
        raise RecordError(path, f"record line {lines[0][:80]!r} is not 'name n_leads fs n_samples'")
    n_leads, fs = int(match["n_leads"]), float(match["fs"] or DEFAULT_FS)
    if n_leads == 0:
        raise RecordError(path, "header promises zero leads: expected one or more")
    if not (math.isfinite(fs) and 0 < fs <= 1e6):
        raise RecordError(
            path, f"sampling rate is {match['fs']}: expected Hz above 0 and up to 1e6"
        )
    n_samples = _count(match["n"], _MAX_SAMPLES, "samples", path) or None
    if match["segments"]:
        segments = _parse_segments(lines[1:], int(match["segments"]), path)
        return Header(path, fs, n_samples, (), segments, facts)
    return Header(path, fs, n_samples, _parse_signals(lines[1:], n_leads, path), (), facts)


def _count(text: str | None, largest: int, what: str, path: Path) -> int:
    """Return a count of the header, 0 where it does not say one."""
    value = int(text or 0)
    if value > largest:
        raise RecordError(path, f"header promises {value} {what}: expected {largest} at most")
    return value


def _parse_segments(lines: list[str], n_segments: int, path: Path) -> tuple[Segment, ...]:
    if len(lines) != n_segments or not n_segments:
        raise RecordError(
            path, f"record line promises {n_segments} segments, {len(lines)} segment lines follow"
        )
    segments = []
    for line in lines:
        match = _SEGMENT_LINE.match(line) if len(line) <= _MAX_LINE else None
        if match is None:
            raise RecordError(path, f"segment line {line[:80]!r} is not 'name n_samples'")
        n_samples = _count(match["n"], _MAX_SAMPLES, "samples", path)
        segments.append(Segment(plain_name(match["name"], "segment", path), n_samples))
    return tuple(segments)


def _parse_signals(lines: list[str], n_leads: int, path: Path) -> tuple[SignalSpec, ...]:
    if len(lines) != n_leads:
        raise RecordError(
            path, f"record line promises {n_leads} leads, {len(lines)} signal lines follow"
        )
    if n_leads > _MAX_LEADS:
        raise RecordError(path, f"header promises {n_leads} leads: expected {_MAX_LEADS} at most")
    return _parse_alike(lines, path) or tuple(_parse_any_signal(line, path) for line in lines)


def _parse_alike(lines: list[str], path: Path) -> tuple[SignalSpec, ...]:
    """Parse signal lines that give everything, as those of most collections; what they have in
    common with other records is parsed once.

    Returns nothing where one of them is another.
    """
    rows = [line.split(None, 8) for line in lines] if max(map(len, lines)) <= _MAX_LINE else []
    if set(map(len, rows)) != {9}:
        return ()
    files, formats, gains, resolutions, zeros, initial, checksums, blocks, descriptions = zip(
        *rows, strict=True
    )
    common = list(map(_common_part, formats, gains, resolutions, zeros, blocks, descriptions))
    if None in common or not _INTEGERS.fullmatch(" ".join(initial + checksums)):
        return ()
    for name in dict.fromkeys(files):
        plain_name(name, "signal file", path)
    return tuple(
        map(
            SignalSpec._make,
            zip(
                files,
                map(int, initial),
                map(int, checksums),
                *zip(*common, strict=True),
                strict=True,
            ),
        )
    )


@lru_cache(maxsize=256)
def _common_part(
    fmt: str, gain: str, adc_res: str, adc_zero: str, block: str, description: str
) -> tuple[Any, ...] | None:
    """Parse a line of these words and return what follows the checksum in its `SignalSpec`, or None
    where it is not plain; what is wrong with it then depends on the whole.
    """
    try:
        spec = _parse_any_signal(
            f"f {fmt} {gain} {adc_res} {adc_zero} 0 0 {block} {description}", Path()
        )
    except RecordError:
        return None
    return (
        spec[3:]
        if spec.file == "f" and spec.checksum == 0 and spec.description == description
        else None
    )


def _parse_any_signal(line: str, path: Path) -> SignalSpec:
    match = _SIGNAL_LINE.match(line) if len(line) <= _MAX_LINE else None
    if match is None:
        raise RecordError(path, f"signal line {line[:80]!r} is not 'file format gain/units ...'")
    gain = float(match["gain"] or 0)
    if not math.isfinite(gain) or (gain and not 1e-12 < abs(gain) < 1e12):
        raise RecordError(
            path, f"gain {match['gain']} is implausible: expected ADC units per physical unit"
        )
    adc_zero = int(match["adc_zero"] or 0)
    baseline = int(match["baseline"]) if match["baseline"] else adc_zero
    if abs(baseline) > 2**40:
        raise RecordError(path, f"baseline {baseline} is implausible: expected an ADC value")
    return SignalSpec(
        file=plain_name(match["file"], "signal file", path),
        initial=int(match["initial"]) if match["initial"] else None,
        checksum=int(match["checksum"]) if match["checksum"] else None,
        fmt=match["fmt"],
        samples_per_frame=_count(match["frame"], 10_000, "samples per frame", path) or 1,
        skew=_count(match["skew"], 1_000_000, "samples of skew", path),
        byte_offset=_count(match["offset"], _MAX_SAMPLES, "bytes before the samples", path),
        gain=gain or DEFAULT_GAIN,
        gain_assumed=not gain,
        baseline=baseline,
        units=match["units"] or "",
        description=(match["description"] or "").strip(),
    )


def plain_name(name: str, what: str, path: Path) -> str:
    """Refuse what a hostile header may point to: files of another folder, devices, and addresses
    that a library follows.
    """
    if not _is_plain(name):
        raise RecordError(path, f"{what} {name!r} is not a plain file name in the header's folder")
    return name


@lru_cache(maxsize=16)  # the leads of a record name the same file
def _is_plain(name: str) -> bool:
    stem = name.split(".")[0].rstrip(" ").upper()
    return not (
        re.search(r"[/\\\0]|::|^[A-Za-z]:", name) or name in {".", ".."} or stem in _DEVICES
    )


def parse_comments(comments: tuple[str, ...]) -> dict[str, str]:
    """Return the ``key: value`` facts of a header's comments with lower-case keys.

    The MIT-BIH style ``69 M 1085 1629 x1`` and the ``<age>: 69 <sex>: M`` style are understood for
    age and sex.
    """
    facts: dict[str, str] = {}
    for comment in comments:
        if match := re.match(r"^(\d+|-1)\s+([MF?])\b", comment):
            facts.setdefault("age", match[1])
            facts.setdefault("sex", match[2])
        elif tagged := re.findall(r"<(\w+)>:?\s*([^<]*)", comment):
            facts.update({key.lower(): value.strip() for key, value in tagged})
        elif ":" in comment:
            key, value = comment.split(":", 1)
            facts.setdefault(key.strip().lower(), value.strip())
    return facts
